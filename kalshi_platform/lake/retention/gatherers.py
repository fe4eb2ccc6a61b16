"""Drops the old rows of one gatherer, which production has read to their end and the lake holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from kalshi_platform.lake.retention.drop import (
    Dropper,
    OldPartition,
    count_rows,
    describe_refusals,
    find_old_partitions,
    refuse_rows_between,
)
from kalshi_platform.lake.retention.gate import HeldHour, HourRefused, LakeGate
from kalshi_platform.lake.retention.production import read_hour_states
from kalshi_platform.lake.retention.report import Outcome
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.market.tables import GATHERER_TABLES, MERGED_TABLES
from kalshi_platform.market.times import HOUR
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

# Of equal messages production keeps one, whose time may be another's: by a minute for trades, five for lifecycle.
_NEIGHBOURS = frozenset({"trades", "market_lifecycle"})


@dataclass(frozen=True)
class _Close:
    """What the close of an hour says of a gatherer and table. `seen`: rows that it showed, None where not recorded."""

    is_read: bool
    seen: int | None
    has_refused_rows: bool


@dataclass(frozen=True)
class GathererCursor:
    """The last batch of a gatherer that production has read."""

    batch_no: int


def read_cursor(production: Database, timeseries: Database, gatherer: str) -> GathererCursor | None:
    """Return how far production has read a gatherer; None where it has read another database, or none.

    A database that was restored numbers its batches anew: what production has read is not what it holds.
    """
    with production.transaction() as transaction:
        row = transaction.fetch_one(_SQL["read_cursor"], (gatherer,))
    if row is None or row[1] is None:
        return None
    with timeseries.transaction() as transaction:
        same = transaction.fetch_one(_SQL["is_read_batch"], {"batch_no": row[0], "token": row[1]})
    return GathererCursor(int(row[0])) if same is not None and same[0] else None


class GathererRetention:
    """Retention of one gatherer's tables."""

    def __init__(
        self,
        name: str,
        timeseries: Database,
        production: Database,
        store: ObjectStore,
        gate: LakeGate,
        dropper: Dropper,
    ) -> None:
        self._name = name
        self._timeseries = timeseries
        self._production = production
        self._store = store
        self._gate = gate
        self._dropper = dropper

    def drop(self, before: datetime, cursor: GathererCursor | None, *, dry_run: bool) -> Iterator[Outcome]:
        """Drop the partitions that end by `before` and that the lake holds; yield what came of each."""
        for table in MERGED_TABLES:
            for old in find_old_partitions(self._timeseries, table, GATHERER_TABLES[table].time_column, before):
                counts: dict[datetime, int] = {}
                refused: str | None = None
                try:
                    counts = count_rows(self._timeseries, old)
                    held = self._check(old, counts, cursor) if counts else []
                    if not dry_run:
                        recheck = partial(self._refuse_unread, old=old, cursor=cursor, is_empty=not counts)
                        self._dropper.drop(self._timeseries, self._store, old, held, recheck)
                except HourRefused as refusal:
                    refused = str(refusal)
                yield Outcome(self._name, table, old.low, old.high, sum(counts.values()), old.bytes, refused)

    def _check(self, old: OldPartition, counts: dict[datetime, int], cursor: GathererCursor | None) -> list[HeldHour]:
        if cursor is None:
            raise HourRefused(f"production has not read this database of {self._name}: kalshi-platform dedup")
        with self._timeseries.transaction() as transaction:
            self._refuse_unread(transaction, old, cursor, is_empty=False)
        margin = HOUR if old.table in _NEIGHBOURS else 0 * HOUR
        states = read_hour_states(self._production, old.low - margin, old.high + margin)
        closes = self._read_closes(old)
        held: list[HeldHour] = []
        refusals: dict[datetime, str] = {}
        neighbours = {hour + offset for hour in counts for offset in (-margin, margin)}
        for hour in sorted(counts.keys() | {each for each in neighbours if states[each].active}):
            try:
                held.append(self._gate.check(old.table, states[hour]))
                if hour in counts:
                    self._check_close(old.table, hour, counts[hour], closes.get(hour))
            except HourRefused as refusal:
                refusals[hour] = str(refusal)
        if refusals:
            raise HourRefused(describe_refusals(refusals))
        return held

    def _read_closes(self, old: OldPartition) -> dict[datetime, _Close]:
        parameters = {"gatherer": self._name, "table": old.table, "low": old.low, "high": old.high}
        with self._production.transaction() as transaction:
            rows = transaction.fetch_all(_SQL["find_closes_of_gatherer"], parameters)
        return {hour: _Close(*rest) for hour, *rest in rows}

    def _check_close(self, table: str, hour: datetime, rows: int, close: _Close | None) -> None:
        name = f"{hour:%Y-%m-%dT%H}"
        if close is None or not close.is_read:
            raise HourRefused(f"{name} was closed without {self._name}: kalshi-platform close-hour {name}, then export")
        if close.has_refused_rows:
            raise HourRefused(f"production refused rows of {table} {name} (dead_letters): close the hour again")
        if close.seen is None or close.seen < rows:
            raise HourRefused(
                f"{self._name} has {rows} rows of {table} {name}, and showed {close.seen or 0} when that was closed:"
                f" kalshi-platform close-hour {name}, then export"
            )

    def _refuse_unread(
        self, transaction: Transaction, old: OldPartition, cursor: GathererCursor | None, is_empty: bool
    ) -> None:
        """Raise HourRefused where rows of the partition came that production has not read."""
        if is_empty:
            refuse_rows_between(transaction, old)
            return
        batch_no = 0 if cursor is None else cursor.batch_no
        parameters = {"table": old.table, "low": old.low, "high": old.high, "batch_no": batch_no}
        row = transaction.fetch_one(_SQL["has_unread_batch"], parameters)
        if row is None or row[0]:
            raise HourRefused(f"production has not read all of {self._name}'s rows of it yet: kalshi-platform dedup")
