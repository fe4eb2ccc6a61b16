"""Records in their order, and where each put ended: what came together is never torn apart. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kalshi_platform.market.records import Record


class Puts:
    """A list of records that grows at its end."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.ends: list[int] = []

    def add(self, records: Sequence[Record]) -> None:
        """Put records at the end."""
        self.records += records
        self.ends.append(len(self.records))

    def parts(self, at_least: int) -> Iterator[int]:
        """Where to cut, so that each part but the last has at least so many records."""
        start = 0
        for end in self.ends:
            if end - start >= at_least:
                yield end
                start = end
        if start < len(self.records):
            yield len(self.records)

    def drop(self, count: int) -> None:
        """Take so many away from the beginning, up to the end of a put."""
        del self.records[:count]
        self.ends = [end - count for end in self.ends if end > count]

    def put_before(self, newer: Puts) -> None:
        """Become the beginning of `newer`."""
        newer.ends = self.ends + [end + len(self.records) for end in newer.ends]
        newer.records[:0] = self.records
