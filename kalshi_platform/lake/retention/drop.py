"""Lists old partitions of a table, counts what they hold, and drops one of them while nobody uses it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from kalshi_platform.clock import Clock
from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.lake.retention.gate import HeldHour, HourRefused, LakeGate, lock_name
from kalshi_platform.lake.retention.settings import RetentionSettings
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))
_LOCKED = "locked"
# A change of a partition's form (a compression that ends, say) is over within moments.
_LOCK_TIMEOUT_MS = "500"
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_IN_USE = "its table is in use: the next run tries again"


class OldPartition(NamedTuple):
    """A partition [low, high) of a table. `time`: the column that it is partitioned by."""

    table: str
    time: str
    low: datetime
    high: datetime
    bytes: int


def find_old_partitions(database: Database, table: str, time: str, before: datetime) -> list[OldPartition]:
    """Return the partitions of a table that end at or before a moment, oldest first.

    Where the table is in use, so that their sizes cannot be read, one from the beginning of time stands for all.
    """
    try:
        with _short_transaction(database) as transaction:
            rows = transaction.fetch_all(_SQL["find_old_partitions"], (table, before))
    except HourRefused:
        return [OldPartition(table, time, _BEGINNING, before, 0)]
    return [OldPartition(table, time, low, high, int(size)) for low, high, size in rows]


def count_rows(database: Database, old: OldPartition) -> dict[datetime, int]:
    """Return the rows of a partition by hour; hours without any are left out. Raises HourRefused where it is in use."""
    if old.low == _BEGINNING:
        raise HourRefused(_IN_USE)
    statement = _SQL["count_rows_by_hour"].format(table=old.table, time=old.time)
    with _short_transaction(database) as transaction:
        return {hour: int(count) for hour, count in transaction.fetch_all(statement, (old.low, old.high))}


def drop_records(database: Database, old: OldPartition) -> None:
    """Drop a partition of records about rows, which the lake need not hold. Raises HourRefused where it is in use."""
    with _short_transaction(database) as transaction:
        transaction.fetch_one(_SQL["drop_partition"], (old.table, old.low, old.high))


@contextmanager
def _short_transaction(database: Database) -> Iterator[Transaction]:
    """A transaction that waits shortly for locks. Raises HourRefused where it does not get one."""
    try:
        with database.transaction() as transaction:
            transaction.fetch_one(_SQL["set_lock_timeout"], (_LOCK_TIMEOUT_MS,))
            yield transaction
    except DatabaseUnavailable as error:
        if error.kind != _LOCKED:
            raise
        raise HourRefused(_IN_USE) from error


class Dropper:
    """Drops partitions of one database, each in a transaction of its own, in which the table is locked shortly."""

    def __init__(self, settings: RetentionSettings, clock: Clock, production: Database, gate: LakeGate) -> None:
        self._settings = settings
        self._clock = clock
        self._production = production
        self._gate = gate

    def drop(
        self,
        database: Database,
        store: ObjectStore,
        old: OldPartition,
        held: Iterable[HeldHour],
        recheck: Callable[[Transaction], None],
    ) -> None:
        """Drop a partition while no export writes what holds its rows. Raises HourRefused where that cannot be now.

        `recheck` looks once more, when nobody can write the partition any more, and raises HourRefused.
        """
        each = list(held)
        with self._hold_exports(store, each):
            changed = [one for one in each if not self._gate.is_unchanged(one)]
            if changed:
                raise HourRefused(f"{changed[0].partition.path} was exported again meanwhile: run retention again")
            for number in range(1, self._settings.lock_tries + 1):
                try:
                    self._drop_once(database, old, recheck)
                except DatabaseUnavailable as error:
                    if error.kind != _LOCKED:
                        raise
                    if number == self._settings.lock_tries:
                        raise HourRefused(_IN_USE) from error
                    self._clock.wait(threading.Event(), self._settings.lock_pause_s)
                else:
                    return

    def _drop_once(self, database: Database, old: OldPartition, recheck: Callable[[Transaction], None]) -> None:
        span = (old.table, old.low, old.high)
        with database.transaction() as transaction:
            transaction.fetch_one(_SQL["set_lock_timeout"], (f"{int(self._settings.lock_timeout_s * 1000)}",))
            transaction.fetch_one(_SQL["lock_partition"], span)
            recheck(transaction)
            transaction.fetch_one(_SQL["drop_partition"], span)

    @contextmanager
    def _hold_exports(self, store: ObjectStore, held: Iterable[HeldHour]) -> Iterator[None]:
        """Hold the locks of the exports of these partitions. Raises HourRefused where an export is at work."""
        with ExitStack() as stack:
            lock = None
            for one in held:
                name = lock_name(store, one.partition)
                if lock is None:
                    lock = stack.enter_context(self._production.advisory_lock(*name))
                    is_held = lock is not None
                else:
                    is_held = lock.take(*name)
                if not is_held:
                    raise HourRefused(f"an export writes {one.partition.path}: the next run tries again")
            yield


def refuse_rows_between(transaction: Transaction, old: OldPartition) -> None:
    """Raise HourRefused where a partition that was counted as empty has a row now."""
    statement = _SQL["has_rows_between"].format(table=old.table, time=old.time)
    row = transaction.fetch_one(statement, (old.low, old.high))
    if row is None or row[0]:
        raise HourRefused("rows came meanwhile: the next run looks again")


def describe_refusals(refusals: Mapping[datetime, str]) -> str:
    """Say why a partition stays: the first reason, and of how many other hours there is one."""
    first = refusals[min(refusals)]
    more = len(refusals) - 1
    return first if not more else f"{first} (and {more} more of its hours)"
