"""Makes partitions before rows need them: ahead of the clock, and for any moment within the configured bounds."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import datetime

from kalshi_platform.clock import Clock
from kalshi_platform.errors import OutOfPartitionBounds
from kalshi_platform.market.times import US_PER_HOUR, datetime_from_us, us_from_datetime
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.settings import PartitionBounds

__all__ = ["PartitionBounds", "PartitionKeeper"]

_HOURS_CACHED = 6
# Each takes about six places of the server's lock table until its transaction ends.
_MADE_AT_ONCE = 8


class PartitionKeeper:
    """Makes the partitions that rows need, and caches which young ones are there.

    Retention may have dropped an old partition since, so older ones are ensured each time.
    """

    def __init__(self, database: Database, bounds: PartitionBounds, clock: Clock) -> None:
        self._database = database
        self._bounds = bounds
        self._clock = clock
        self._known: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def bounds_us(self) -> tuple[int, int]:
        """Return the inclusive lower and the exclusive upper limit of times that are accepted now (µs)."""
        return us_from_datetime(self._bounds.earliest), us_from_datetime(self._clock.now() + self._bounds.ahead)

    def ensure_hours(self, table: str, times_us: Iterable[int]) -> int:
        """Make the partitions of `table` for these moments, a few in a transaction; return how many were made.

        Raises OutOfPartitionBounds for a moment outside bounds_us().
        """
        low, high = self.bounds_us()
        hours = set()
        for moment in times_us:
            if not low <= moment < high:
                raise OutOfPartitionBounds(f"{table}: {_text_of(moment)} lies outside the partition bounds")
            hours.add(moment // US_PER_HOUR)
        with self._lock:
            missing = sorted(hour for hour in hours if (table, hour) not in self._known)
            if not missing:
                return 0
            made = 0
            for start in range(0, len(missing), _MADE_AT_ONCE):
                with self._database.transaction() as transaction:
                    for hour in missing[start : start + _MADE_AT_ONCE]:
                        moment_of_hour = datetime_from_us(hour * US_PER_HOUR)
                        made += ensure(transaction, table, moment_of_hour, moment_of_hour)
            oldest = us_from_datetime(self._clock.now()) // US_PER_HOUR - _HOURS_CACHED
            self._known = {key for key in self._known if key[1] >= oldest}
            self._known.update((table, hour) for hour in missing if hour >= oldest)
            return made

    def ensure_ahead(self, tables: Iterable[str], hours: int = 3) -> int:
        """Make the partitions of the last hour, the running one and the next ones."""
        now_us = us_from_datetime(self._clock.now())
        _, high = self.bounds_us()
        moments = [now_us + offset * US_PER_HOUR for offset in range(-1, hours + 1)]
        return sum(self.ensure_hours(table, [moment for moment in moments if moment < high]) for table in tables)


def _text_of(moment_us: int) -> str:
    try:
        return datetime_from_us(moment_us).isoformat()
    except OverflowError:
        return f"{moment_us} µs"


def ensure(transaction: Transaction, table: str, low: datetime, high: datetime) -> int:
    """Make the partitions of `table` that hold [low, high]; return how many were made."""
    row = transaction.fetch_one(load("storage")["ensure_partitions"], {"table": table, "low": low, "high": high})
    return int(row[0]) if row else 0
