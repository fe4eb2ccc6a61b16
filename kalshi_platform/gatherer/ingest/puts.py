"""Records in their order, and where each put ended: what came together is never torn apart. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kalshi_platform.market.records import Record


class Puts:
    """A list of records that grows at its end. `size`: about how many bytes of memory they take."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.size = 0
        # Of each put: the number of records up to its end, and its bytes.
        self._ends: list[int] = []
        self._sizes: list[int] = []

    def add(self, records: Sequence[Record], size: int) -> None:
        """Put records of `size` bytes at the end."""
        self.records += records
        self.size += size
        self._ends.append(len(self.records))
        self._sizes.append(size)

    def parts(self, at_least: int, at_least_bytes: int) -> Iterator[int]:
        """Where to cut, so that each part but the last has at least so many records or bytes."""
        start = size = 0
        for end, added in zip(self._ends, self._sizes, strict=True):
            size += added
            if end - start >= at_least or size >= at_least_bytes:
                yield end
                start, size = end, 0
        if start < len(self.records):
            yield len(self.records)

    def drop(self, count: int) -> None:
        """Take so many away from the beginning, up to the end of a put."""
        del self.records[:count]
        gone = sum(end <= count for end in self._ends)
        self.size -= sum(self._sizes[:gone])
        self._sizes = self._sizes[gone:]
        self._ends = [end - count for end in self._ends[gone:]]

    def put_before(self, newer: Puts) -> None:
        """Become the beginning of `newer`."""
        newer._ends = self._ends + [end + len(self.records) for end in newer._ends]
        newer._sizes = self._sizes + newer._sizes
        newer.size += self.size
        newer.records[:0] = self.records
