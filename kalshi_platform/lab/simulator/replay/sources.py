"""Which source a replay's settings name."""

from __future__ import annotations

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lab.simulator.replay.capture import CaptureSource
from kalshi_platform.lab.simulator.replay.journal import JournalSource
from kalshi_platform.lab.simulator.replay.journal_segments import find_archived, find_segments, is_journal
from kalshi_platform.lab.simulator.replay.lake import LakeSource
from kalshi_platform.lab.simulator.replay.recorded import Source
from kalshi_platform.lab.simulator.settings import ReplaySettings


def source_of(settings: ReplaySettings) -> Source:
    """Open the capture, the journal or the lake. Raises ConfigurationError."""
    if settings.lake is not None and settings.gatherer is not None:
        segments = find_archived(settings.lake, settings.gatherer, settings.from_us, settings.to_us)
        return JournalSource(segments, settings.to_us)
    if settings.lake is not None:
        return LakeSource(settings.lake, settings.from_us, settings.to_us)
    if settings.capture is None:
        raise ConfigurationError(["a replay needs a capture or a lake"])
    if is_journal(settings.capture):
        return JournalSource(find_segments(settings.capture, settings.gatherer))
    return CaptureSource(settings.capture)
