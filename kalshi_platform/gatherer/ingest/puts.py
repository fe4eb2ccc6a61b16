"""Keeps records in their order, with the end of each put, so that records put together stay together. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kalshi_platform.market.records import BookSnapshot, DeadLetter, LifecycleEvent, Record

RECORD_BYTES = 300
"""Bytes of a delta with its strings and numbers; other records have about as many."""
LEVEL_BYTES = 128
"""Bytes of one level of a book: a pair of numbers."""
_LARGE = frozenset({BookSnapshot, LifecycleEvent, DeadLetter})


class Puts:
    """Lists records, appended put by put; `size` is about their bytes in memory."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.size = 0
        # For each put: the number of records up to its end, and its bytes.
        self._ends: list[int] = []
        self._sizes: list[int] = []

    def add(self, records: Sequence[Record], size: int) -> None:
        """Append records of `size` bytes."""
        self.records += records
        self.size += size
        self._ends.append(len(self.records))
        self._sizes.append(size)

    def parts(self, at_least: int, at_least_bytes: int) -> Iterator[int]:
        """Yield where to cut, so that each part but the last has at least so many records or bytes."""
        start = size = 0
        for end, added in zip(self._ends, self._sizes, strict=True):
            size += added
            if end - start >= at_least or size >= at_least_bytes:
                yield end
                start, size = end, 0
        if start < len(self.records):
            yield len(self.records)

    def drop(self, count: int) -> None:
        """Remove the first `count` records, up to the end of a put."""
        del self.records[:count]
        gone = sum(end <= count for end in self._ends)
        self.size -= sum(self._sizes[:gone])
        self._sizes = self._sizes[gone:]
        self._ends = [end - count for end in self._ends[gone:]]

    def put_before(self, newer: Puts) -> None:
        """Insert these records at the beginning of `newer`."""
        newer._ends = self._ends + [end + len(self.records) for end in newer._ends]
        newer._sizes = self._sizes + newer._sizes
        newer.size += self.size
        newer.records[:0] = self.records


def memory_of(records: Sequence[Record]) -> int:
    """Return about the bytes of `records` in memory, cheaply: by count, and by content of the few large kinds."""
    size = RECORD_BYTES * len(records)
    # A set of the types is made in C; few puts have any of the large ones.
    if not _LARGE.isdisjoint(map(type, records)):
        size += sum(map(_extra_bytes, records))
    return size


def _extra_bytes(record: Record) -> int:
    if isinstance(record, BookSnapshot):
        return LEVEL_BYTES * (len(record.yes) + len(record.no))
    if isinstance(record, LifecycleEvent):
        return len(record.content)
    return len(record.payload) + len(record.detail) if isinstance(record, DeadLetter) else 0
