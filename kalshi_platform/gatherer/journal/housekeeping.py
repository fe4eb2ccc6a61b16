"""Keeps the folder of a journal in order: finished segments are compressed, and removed when nothing needs them.

A segment may go when ingest has committed it, the lake holds it (or frames are not archived), and it is old enough or
room is needed. Segments go from the oldest on, so that what is left has no hole.
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
CHECK_S = 5.0
"""Pause between two looks at whether room is needed at once."""
FRAMES_NOT_ARCHIVED = "frames_not_archived"
"""Kind of the alarm: segments stay on the disk only because the lake does not hold them."""
# A twentieth of a core: enough for some 20,000 messages a second, and no burden for those that are received meanwhile.
_COMPRESS_S = 3.0
_DATABASE, _LAKE = "its database", "the lake"
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
        excess_bytes: Callable[[], int] = lambda: 0,
        on_waiting: Callable[[str | None], None] = lambda _: None,
        on_alarm: Callable[[str, str], None] = lambda _kind, _detail: None,
    ) -> None:
        """Set up; nothing is read or written yet.

        `committed` returns up to where ingest has committed the journal, None while that is not known. `excess_bytes`
        returns how much must go although it is not `keep_s` old, for want of room. `on_waiting` receives what must take
        the oldest segment before it can go, None where it only waits for its time.
        """
        self._folder = folder
        self._journal_id = journal_id
        self._clock = clock
        self._keep_s = keep_s
        self._archive_frames = archive_frames
        self._committed = committed
        self._excess_bytes = excess_bytes
        self._on_waiting = on_waiting
        self._on_alarm = on_alarm
        self._is_waiting = False
        self._was_short = False

    def run(self, stop: threading.Event) -> None:
        """Keep order once a minute until `stop` is set; where room is needed, remove what may go at once."""
        due_s = self._clock.monotonic() + INTERVAL_S
        while not self._clock.wait(stop, CHECK_S):
            if self._clock.monotonic() >= due_s:
                due_s = self._clock.monotonic() + INTERVAL_S
                self.keep_once(stop)
            elif self._excess_bytes() > 0:
                self.keep_once(stop, compress=False)

    def keep_once(self, stop: threading.Event | None = None, *, compress: bool = True) -> HouseKept:
        """Compress and remove what may be now; a disk that refuses is logged, and the next round tries again."""
        committed = self._committed()
        if committed is None:
            self._on_waiting(_DATABASE)
            return HouseKept()
        compressed = removed = 0
        waiting_since: datetime | None = None
        try:
            if compress:
                compressed = self._compress(committed, stop)
        except OSError as error:
            # A full disk has no room for that; to remove something needs none.
            _log.warning("journal_not_tidied", folder=str(self._folder), error=error)
        try:
            removed, waiting_since = self._remove(committed)
        except OSError as error:
            _log.warning("journal_not_tidied", folder=str(self._folder), error=error)
            return HouseKept(compressed)
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
        older_than_ns = self._clock.now_ns() - int(self._keep_s * 1e9)
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
        excess_bytes = self._excess_bytes()
        removed = remove_segments(self._folder, committed, older_than_ns, is_archived, excess_bytes)
        self._report_short(excess_bytes, len(removed))
        segments = list_segments(self._folder)
        if not waiting:
            is_behind = min(segments, default=committed.segment) >= committed.segment and len(segments) > 1
            self._on_waiting(_DATABASE if is_behind else None)
            return len(removed), None
        self._on_waiting(_LAKE)
        path = segments[waiting[0]]
        return len(removed), datetime.fromtimestamp(path.stat().st_mtime_ns // 10**9, UTC)

    def _report_short(self, excess_bytes: int, removed: int) -> None:
        """Log the first time that segments go before their time: where room is little, it happens again and again."""
        if excess_bytes and removed and not self._was_short:
            _log.warning(
                "segments_removed_early",
                folder=str(self._folder),
                segments=removed,
                remedy="none is needed: database and lake hold them. KALSHI_JOURNAL_KEEP_HOURS needs more room than"
                " KALSHI_JOURNAL_MAX_GIB or the disk gives",
            )
            self._was_short = True

    def _report_waiting(self, since: datetime | None) -> None:
        """Raise one alarm when segments begin to pile up for want of an archive."""
        if since is not None and not self._is_waiting:
            detail = (
                f"frames of {since:%Y-%m-%dT%H:%M}Z and before are in the database and not in the lake: they stay on"
                " this disk beyond KALSHI_JOURNAL_KEEP_HOURS, or although there is little room"
            )
            _log.warning(
                FRAMES_NOT_ARCHIVED,
                detail=detail,
                remedy="see the runs of archive_frames, run kalshi-platform journal archive NAME, or set"
                " KALSHI_ARCHIVE_FRAMES=no",
            )
            self._on_alarm(FRAMES_NOT_ARCHIVED, detail)
        self._is_waiting = since is not None
