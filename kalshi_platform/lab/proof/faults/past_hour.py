"""The hour that was over before the run: recorded, merged, closed and exported, so that harm can be done to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.close.close_record import HourClose
from kalshi_platform.deduplicator.close.hours import find_hours_to_close
from kalshi_platform.lab.proof.comparison.stored_rows import STATED
from kalshi_platform.lab.proof.faults.failing_store import rows_of_glob
from kalshi_platform.lab.proof.faults.stack import ProofStack
from kalshi_platform.lake.datasets import RAW_TABLES
from kalshi_platform.lake.export import export_raw
from kalshi_platform.lake.layout import find_dataset, partition_starting
from kalshi_platform.lake.reader import missing_partitions, trades
from kalshi_platform.market.intervals import Interval
from kalshi_platform.market.times import HOUR, us_from_datetime
from kalshi_platform.storage.pool import Database

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Past:
    """`hour` as µs of the exchange's clock; `phase`: the part of it in which the exchange traded."""

    hour: Interval
    phase: Interval


class PastHour:
    """Closes the hour, exports it, and asks what is said of it. Raises DatabaseUnavailable."""

    def __init__(self, stack: ProofStack, clock: Clock, phase: Interval) -> None:
        self._stack = stack
        self._clock = clock
        self.hour: datetime = stack.past_hour
        self.end: datetime = stack.past_hour + HOUR
        self.past = Past((us_from_datetime(self.hour), us_from_datetime(self.end)), phase)

    def close(self) -> HourClose:
        """Close the hour, as the schedule would."""
        settings = self._stack.settings
        return close_hour(settings.deduplicator, self.hour, self._clock, settings.bounds)

    def export(self) -> None:
        """Export every raw table of the hour as closed. Raises what an export raises."""
        for table in RAW_TABLES:
            self.export_table(table)

    def export_table(self, table: str) -> None:
        """Export one."""
        settings = self._stack.settings
        export_raw(settings.lake, settings.deduplicator.production_url, table, self.hour, state="closed")

    def is_to_close(self) -> bool:
        """Whether production says that the hour must be closed (again)."""
        return self._with_production(lambda production: self.hour in find_hours_to_close(production, self._clock.now()))

    def covered_us(self) -> int:
        """What production's coverage states of the hour, over all markets, in µs."""
        return self.number(
            "SELECT coalesce(sum(extract(epoch FROM c.to_ts - c.from_ts)) * 1000000, 0)::bigint FROM coverage c"  # noqa: S608
            f" WHERE c.from_ts >= %s AND c.from_ts < %s AND {STATED}"
        )

    def rows(self, table: str) -> int:
        """Rows of a table of production that lie in the hour, by exchange time."""
        return self.number(f"SELECT count(*) FROM {table} WHERE exchange_ts >= %s AND exchange_ts < %s")  # noqa: S608

    def number(self, query: str) -> int:
        """One number of production; `query` takes the hour's start and end."""

        def ask(production: Database) -> int:
            with production.transaction() as transaction:
                row = transaction.fetch_one(query, (self.hour, self.end))
            return int(row[0]) if row else 0

        return self._with_production(ask)

    def folder(self, table: str) -> Path:
        """Where the lake keeps a table of the hour."""
        return self._stack.lake_folder / partition_starting(find_dataset(f"raw/{table}"), self.hour).path

    def lake_rows(self, table: str) -> int:
        """Rows that any program finds in the lake's files of the hour."""
        return rows_of_glob(self.folder(table))

    def trades_read(self) -> int:
        """Trades of the hour that our own reader gives; -1 where it says that the hour is not there."""
        lake = self._stack.settings.lake
        if missing_partitions(lake, find_dataset("raw/trades"), self.hour, self.end):
            return -1
        return trades(lake, self.hour, self.end).height

    def _with_production(self, ask: Callable[[Database], Answer]) -> Answer:
        production = Database(self._stack.settings.deduplicator.production_url, name="production", pool_size=1)
        try:
            return ask(production)
        finally:
            production.dispose()
