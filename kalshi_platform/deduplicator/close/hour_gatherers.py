"""Reads the gatherers for the close of one hour; keeps which could not be read, or hold less than they recorded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import polars as pl
import pyarrow as pa

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.close.previous_close import PreviousClose
from kalshi_platform.deduplicator.coverage.checkpoint_reader import find_known_streams, read_checkpoints
from kalshi_platform.deduplicator.coverage.gatherer_hour import BOOK_TABLES, GathererHour, read_gatherer_hour
from kalshi_platform.deduplicator.merge.parallel_read import ParallelReader, describe_read_error
from kalshi_platform.deduplicator.merge.source import check_source, estimate_rows, read_between
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.market.names import LONGEST_NAME
from kalshi_platform.market.tables import MERGED_TABLES
from kalshi_platform.market.times import HOUR, us_from_datetime
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import arrow_snapshot

_SQL = load(Path(__file__).with_name("queries.sql"))

Result = TypeVar("Result")
Slices = dict[str, list[tuple[datetime, datetime]]]
"""Table → [low, high) slices of the hour, in order."""
# A slice of an hour is at least a second long.
_MOST_SLICES = 3_600
_log = event_logger(__name__)


class HourGatherers:
    """The gatherers of a close. One that fails to answer once is `missed` (name → why) from there on.

    `incomplete`: by gatherer, the tables of which it no longer has all rows of the hour that it recorded.
    """

    def __init__(self, settings: DeduplicatorSettings, hour: datetime, clock: Clock) -> None:
        self._settings = settings
        self._hour = hour
        self._clock = clock
        self.missed: dict[str, str] = {}
        self.incomplete: dict[str, frozenset[str]] = {}

    @property
    def read(self) -> tuple[str, ...]:
        """Gatherers that were read."""
        return tuple(source.name for source in self._settings.sources if source.name not in self.missed)

    @property
    def tables_not_shown(self) -> frozenset[str]:
        """Tables of which not every gatherer could show all that it recorded."""
        if self.missed:
            return frozenset(MERGED_TABLES)
        return frozenset().union(*self.incomplete.values())

    def read_claims(self) -> dict[str, GathererHour]:
        """Read what each gatherer claims of the hour, one after the other: each holds a stream's rows of it."""
        low, high = us_from_datetime(self._hour), us_from_datetime(self._hour + HOUR)
        found: dict[str, GathererHour] = {}
        for source in self._settings.sources:
            found |= self._gather(
                lambda each: partial(_read_checked_hour, each, low, high, self._settings.max_out_of_orderness_us),
                [source],
            )
        for name, each in found.items():
            self._add_incomplete(name, each.incomplete)
        return found

    def slice_hour(self) -> Slices:
        """Cut the hour so that a slice of a table holds about `rows_per_pass` rows of all gatherers together."""
        counted = self._gather(lambda source: partial(_estimate_rows, source, self._hour))
        slices: Slices = {}
        for table in MERGED_TABLES:
            most = max((counts[table] for counts in counted.values()), default=0)
            parts = max(1, min(_MOST_SLICES, math.ceil(most / self._settings.rows_of_each)))
            edges = [self._hour + HOUR * part / parts for part in range(parts + 1)]
            slices[table] = list(pairwise(edges))
        return slices

    def read_rows(self, table: str, low: datetime, high: datetime) -> dict[str, pa.Table]:
        """Read the rows of [low, high) by gatherer."""
        return self._gather(lambda source: partial(_read_rows, source, table, low, high))

    def find_known_streams(self, stream_ids: Mapping[str, frozenset[int]]) -> dict[str, frozenset[int]]:
        """Return those of `stream_ids` (by gatherer) that the gatherers' ledgers still know."""
        return self._gather(
            lambda source: partial(find_known_streams, source, stream_ids.get(source.name, frozenset()))
        )

    def read_checkpoints(self, known: pl.DataFrame) -> pl.DataFrame:
        """Read the checkpoints of the hour, as rows of `book_checkpoints`.

        `known`: gatherer, stream_id, seq, ticker of snapshots with checkpoints in earlier hours; they are left out.
        """

        def task(source: GathererSource) -> Callable[[], pl.DataFrame]:
            own = known.filter(pl.col("gatherer") == source.name).drop("gatherer")
            settings = self._settings
            return partial(
                read_checkpoints, source, self._hour, own, settings.max_out_of_orderness_us, settings.rows_per_pass
            )

        found = self._gather(task)
        if not found:
            return pl.DataFrame()
        return pl.concat(found.values()).filter(pl.col("ticker").str.len_chars() <= LONGEST_NAME)

    def check_dropped(self) -> None:
        """Add what gatherers dropped while they were read: some of it may be missing from what was read of them."""
        for name, tables in self._gather(lambda source: partial(_read_dropped_tables, source, self._hour)).items():
            self._add_incomplete(name, tables)

    def filter_trustworthy(
        self, claimed: Mapping[str, GathererHour], previous: PreviousClose
    ) -> dict[str, GathererHour]:
        """Leave out gatherers and streams that hold less than they did: what they claimed then stays."""
        # A gatherer that went away meanwhile may claim rows that were not merged.
        whole = {
            name: each
            for name, each in claimed.items()
            if name not in self.missed and not self.incomplete.get(name, frozenset()) & BOOK_TABLES
        }
        return {name: each.without_streams(previous.streams_to_keep(name, each)) for name, each in whole.items()}

    def _add_incomplete(self, name: str, tables: frozenset[str]) -> None:
        before = self.incomplete.get(name, frozenset())
        if tables - before:
            self.incomplete[name] = before | tables
            _log.warning(
                "gatherer_incomplete", gatherer=name, hour=self._hour, tables=sorted(tables),
                consequence="it no longer holds all that it recorded; what it claimed then stays as it was",
            )  # fmt: skip

    def _gather(
        self, task: Callable[[GathererSource], Callable[[], Result]], of: Sequence[GathererSource] | None = None
    ) -> dict[str, Result]:
        """Run a task for every gatherer (or those `of`) that is not missed; one without a result is missed."""
        reader: ParallelReader[Result] = ParallelReader(self._clock)
        sources = [
            source for source in (self._settings.sources if of is None else of) if source.name not in self.missed
        ]
        results, errors = reader.gather(
            {source.name: task(source) for source in sources}, self._settings.close_timeout_s
        )
        for name, error in errors.items():
            self.missed[name] = describe_read_error(error)
            _log.warning("gatherer_left_out_of_close", gatherer=name, hour=self._hour, error=self.missed[name])
        return results


def _read_checked_hour(source: GathererSource, low_us: int, high_us: int, max_out_of_orderness_us: int) -> GathererHour:
    check_source(source)
    return read_gatherer_hour(source, low_us, high_us, max_out_of_orderness_us)


def _read_dropped_tables(source: GathererSource, hour: datetime) -> frozenset[str]:
    with arrow_snapshot(source.timeseries_url) as snapshot:
        found = snapshot.table(_SQL["find_dropped_tables"], (hour,))
    return frozenset(found.column(0).to_pylist())


def _estimate_rows(source: GathererSource, hour: datetime) -> Mapping[str, int]:
    with arrow_snapshot(source.timeseries_url) as snapshot:
        return estimate_rows(snapshot, hour, hour + HOUR)


def _read_rows(source: GathererSource, table: str, low: datetime, high: datetime) -> pa.Table:
    with arrow_snapshot(source.timeseries_url) as snapshot:
        return read_between(snapshot, table, low, high)
