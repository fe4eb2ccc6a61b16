"""Keeps the folder of a journal in order: finished segments are compressed, and removed when nothing needs them.

A segment may go when ingest has committed it, the lake holds it (or frames are not archived), and it is old enough.
Segments go from the oldest on, so that what is left has no hole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kalshi_platform.clock import Clock
from kalshi_platform.gatherer.journal.archived import read_archived
from kalshi_platform.gatherer.journal.block_format import Position
from kalshi_platform.gatherer.journal.keeping import compress_segment, remove_segments
from kalshi_platform.gatherer.journal.segments import created_ns, is_compressed, list_segments
from kalshi_platform.monitoring.event_log import event_logger

INTERVAL_S = 60.0
FRAMES_NOT_ARCHIVED = "frames_not_archived"
"""Kind of the alarm: segments stay on the disk only because the lake does not hold them."""
# A twentieth of a core: enough for some 20,000 messages a second, and no burden for those that are received meanwhile.
_COMPRESS_S = 3.0
_log = event_logger(__name__)


@dataclass(frozen=True)
class HouseKept:
    """Reports what one round did.

    `waiting_for_archive_since`: when the oldest segment was written to its end that only waits for the lake.
    """

    compressed: int = 0
    removed: int = 0
    waiting_for_archive_since: datetime | None = None


class Housekeeping:
    """Keeps one journal in order while it is written; for one thread."""

    def __init__(
        self,
        folder: Path,
        journal_id: int,
        clock: Clock,
        *,
        keep_s: float,
        archive_frames: bool,
        committed: Callable[[], Position | None],
        is_short: Callable[[], bool] = lambda: False,
        on_alarm: Callable[[str, str], None] = lambda _kind, _detail: None,
    ) -> None:
        """Set up; nothing is read or written yet.

        `committed` returns up to where ingest has committed the journal, None while that is not known. `is_short`
        returns whether room is needed: then segments need not be `keep_s` old to go.
        """
        self._folder = folder
        self._journal_id = journal_id
        self._clock = clock
        self._keep_s = keep_s
        self._archive_frames = archive_frames
        self._committed = committed
        self._is_short = is_short
        self._on_alarm = on_alarm
        self._is_waiting = False

    def run(self, stop: threading.Event) -> None:
        """Keep order once a minute until `stop` is set."""
        while not self._clock.wait(stop, INTERVAL_S):
            self.keep_once(stop)

    def keep_once(self, stop: threading.Event | None = None) -> HouseKept:
        """Compress and remove what may be now; a disk that refuses is logged, and the next round tries again."""
        committed = self._committed()
        if committed is None:
            return HouseKept()
        try:
            compressed = self._compress(committed, stop)
            removed, waiting_since = self._remove(committed)
        except OSError as error:
            _log.warning("journal_not_tidied", folder=str(self._folder), error=error)
            return HouseKept()
        if removed:
            _log.info("segments_removed", folder=str(self._folder), segments=removed)
        self._report_waiting(waiting_since)
        return HouseKept(compressed, removed, waiting_since)

    def _compress(self, committed: Position, stop: threading.Event | None) -> int:
        """Compress what ingest needs no more, for some seconds at most."""
        began, count = self._clock.monotonic(), 0
        for number, path in list_segments(self._folder).items():
            is_late = self._clock.monotonic() - began > _COMPRESS_S
            if number >= committed.segment or is_late or (stop is not None and stop.is_set()):
                break
            if not is_compressed(path):
                compress_segment(self._folder, number)
                count += 1
        return count

    def _remove(self, committed: Position) -> tuple[int, datetime | None]:
        """Remove the oldest segments that may go; return how many, and when the oldest that waits ended."""
        older_than_ns = self._clock.now_ns() - (0 if self._is_short() else int(self._keep_s * 1e9))
        waiting: list[int] = []

        def is_archived(number: int) -> bool:
            if not self._archive_frames:
                return True
            began_ns = created_ns(self._folder, number) or 0
            if archived is not None and archived.has(self._journal_id, number, began_ns):
                return True
            waiting.append(number)
            return False

        archived = read_archived(self._folder) if self._archive_frames else None
        removed = remove_segments(self._folder, committed, older_than_ns, is_archived)
        if not waiting:
            return len(removed), None
        path = list_segments(self._folder)[waiting[0]]
        return len(removed), datetime.fromtimestamp(path.stat().st_mtime_ns // 10**9, UTC)

    def _report_waiting(self, since: datetime | None) -> None:
        """Raise one alarm when segments begin to pile up for want of an archive."""
        if since is not None and not self._is_waiting:
            detail = (
                f"frames of {since:%Y-%m-%dT%H:%M}Z and before are in the database and not in the lake: they stay on"
                " this disk beyond KALSHI_JOURNAL_KEEP_HOURS"
            )
            _log.warning(
                FRAMES_NOT_ARCHIVED,
                detail=detail,
                remedy="see the runs of archive_frames, run kalshi-platform journal archive NAME, or set"
                " KALSHI_ARCHIVE_FRAMES=no",
            )
            self._on_alarm(FRAMES_NOT_ARCHIVED, detail)
        self._is_waiting = since is not None
