"""Reads a journal from a position on: the segment that is written now, finished ones and compressed ones alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.gatherer.journal.block_format import (
    Block,
    Damage,
    FormatError,
    OtherVersion,
    Position,
    SegmentInfo,
)
from kalshi_platform.gatherer.journal.segment_reader import SegmentReader
from kalshi_platform.gatherer.journal.segments import (
    following_segment,
    list_segments,
    numbered,
    read_segment_info,
)

_START = Position(0, 0)
# An error of the device may pass; after so many in a row the rest of a finished segment is given up.
_READ_ATTEMPTS = 5
# Blocks of several connections are some seconds out of order at most.
_STEP_BACK_NS = 60 * 10**9


class JournalReader:
    """Returns blocks in order, and in the place of what is damaged or missing a `Damage`.

    The same journal gives the same items whenever it is read, but for the end of the segment that is written now. For
    one thread.
    """

    def __init__(self, segments: Path | Sequence[Path], start: Position | None = None) -> None:
        """Read the segments of a folder (also those to come) or the given files, from `start` or the oldest block."""
        self._source = segments
        self._segment: SegmentReader | None = None
        self._failures = 0
        self.position = start or _START
        """Where the next item begins."""

    def seek(self, position: Position) -> None:
        """Go on at `position`: where a block begins; one beyond the end of a segment is its end."""
        self.close()
        self.position = position

    def close(self) -> None:
        """Close the file that is read; `next` opens it again."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def oldest(self) -> Position | None:
        """Return where the oldest segment begins, None where there is none. Raises OSError."""
        first = next(iter(self._paths()), None)
        return None if first is None else Position(first, 0)

    def next(self) -> Block | Damage | None:
        """Return the next block or damage; None: nothing more now.

        Raises ConfigurationError at a segment of another format version; OSError where a file cannot be read now, which
        may be tried again: after some attempts the rest of a finished segment is a damage.
        """
        while True:
            if self._segment is None:
                missing = self._open()
                if missing is not None:
                    self.position = missing.end
                    return missing
                if self._segment is None:
                    return None
            item = self._next_of_segment(self._segment)
            if item is not None:
                self.position = item.end
                return item
            if self._segment is not None:
                return None

    def before(self, position: Position, seconds: float, *, least_blocks: int = 200) -> Position:
        """Return where the first block begins that was received at most `seconds` before the last one ahead of this.

        There are `least_blocks` at least, whenever they were received; where the clock was set back no more of those
        from before. Without a block it is `position` itself.
        """
        found, count, since_ns, lowest_ns = position, 0, 0, 0
        for number in sorted(each for each in self._paths() if each <= position.segment)[::-1]:
            for start, received_at_ns in reversed(self._blocks_of(number, position)):
                if not count:
                    since_ns, lowest_ns = received_at_ns - int(seconds * 1e9), received_at_ns
                is_of_before = received_at_ns < since_ns or received_at_ns > lowest_ns + _STEP_BACK_NS
                if is_of_before and count >= least_blocks:
                    return found
                found, lowest_ns, count = start, min(lowest_ns, received_at_ns), count + 1
        return found

    def _blocks_of(self, number: int, until: Position) -> list[tuple[Position, int]]:
        """Return where the blocks of a segment begin, and when each was received."""
        blocks: list[tuple[Position, int]] = []
        reader = JournalReader(self._source, Position(number, 0))
        try:
            while (item := reader.next()) is not None and item.position.segment == number and item.position < until:
                if isinstance(item, Block):
                    blocks.append((item.position, item.received_at_ns))
        finally:
            reader.close()
        return blocks

    def _paths(self) -> dict[int, Path]:
        return list_segments(self._source) if isinstance(self._source, Path) else numbered(self._source)

    def _following(self, number: int) -> int | None:
        """Return the number of the first segment after `number`."""
        if isinstance(self._source, Path):
            return following_segment(self._source, number)
        return next((each for each in numbered(self._source) if each > number), None)

    def _info(self, number: int) -> SegmentInfo | None:
        """Return the header of a segment, None where it cannot be read."""
        try:
            return read_segment_info(self._paths()[number])
        except (FormatError, OSError, KeyError):
            return None

    def _open(self) -> Damage | None:
        """Open the segment of the position; return which segments are missing before the next one."""
        number, offset = self.position
        for _ in range(3):
            paths = self._paths()
            following = next((each for each in paths if each >= number), None)
            if following is None:
                return None
            if following > number and self.position != _START:
                return self._missing(following)
            try:
                self._segment = SegmentReader(paths[following], following, offset if following == number else 0)
            except FileNotFoundError:
                # It was just removed, or compressed.
                continue
            self.position = self._segment.position
            return None
        return None

    def _missing(self, following: int) -> Damage:
        number = self.position.segment
        one = following == number + 1
        what = f"segment {number} is missing" if one else f"segments {number} to {following - 1} are missing"
        info = self._info(following) if one and self.position.offset == 0 else None
        blocks = None if info is None else info.former_blocks
        return Damage(self.position, Position(following, 0), number, 0, what, blocks)

    def _next_of_segment(self, segment: SegmentReader) -> Block | Damage | None:
        """Return the next item of the segment; None at its end, and the next segment is open then if there is one."""
        try:
            item = segment.next(finished=False)
            if item is not None:
                self._failures = 0
                return item
            following = self._following(segment.number)
            if following is None and isinstance(self._source, Path) and not segment.is_compressed:
                return None
            # The writer may have appended before it began the next one.
            info = self._info(following) if following == segment.number + 1 else None
            item = segment.next(finished=True, total=None if info is None else info.former_blocks)
        except OtherVersion as error:
            raise ConfigurationError([f"segment {segment.number} of the journal: {error}"]) from error
        except OSError as error:
            self.close()
            return self._unreadable(segment, error)
        self._failures = 0
        if item is not None or following is None:
            return item
        self.close()
        self.position = Position(segment.number + 1, 0)
        return None

    def _unreadable(self, segment: SegmentReader, error: OSError) -> Damage:
        """Raise the error again for some attempts; then return the rest of a finished segment as damaged."""
        self._failures += 1
        following = self._following(segment.number)
        if self._failures < _READ_ATTEMPTS or following is None:
            raise error
        self._failures = 0
        what = f"the rest of the segment cannot be read: {error.strerror or error}"
        return Damage(self.position, Position(segment.number + 1, 0), segment.number, 0, what)
