"""About how many bytes of memory records take, cheaply: one look at the types of a put, and a closer one at the few
kinds that may be large. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from kalshi_platform.market.records import BookSnapshot, DeadLetter, LifecycleEvent, Record

RECORD_BYTES = 300
"""A delta with its strings and numbers; the others take about as much."""
LEVEL_BYTES = 128
"""One level of a book: a pair of numbers."""
_LARGE = frozenset({BookSnapshot, LifecycleEvent, DeadLetter})


def memory_of(records: Sequence[Record]) -> int:
    """About what `records` take in memory, in bytes."""
    size = RECORD_BYTES * len(records)
    # A set of the types is made in C; few puts have any of the large ones.
    if not _LARGE.isdisjoint(map(type, records)):
        size += sum(map(_beyond, records))
    return size


def _beyond(record: Record) -> int:
    if isinstance(record, BookSnapshot):
        return LEVEL_BYTES * (len(record.yes) + len(record.no))
    if isinstance(record, LifecycleEvent):
        return len(record.content)
    return len(record.payload) + len(record.detail) if isinstance(record, DeadLetter) else 0
