"""Reads the gatherers for the close of one hour; keeps which could not be read, or hold less than they recorded."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import polars as pl

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.close.previous_close import PreviousClose
from kalshi_platform.deduplicator.coverage.gatherer_hour import (
    BOOK_TABLES,
    GathererHour,
    HourQuestion,
    read_gatherer_hour,
)
from kalshi_platform.deduplicator.merge.hour_files import HourFiles
from kalshi_platform.deduplicator.merge.market_buckets import MarketBuckets
from kalshi_platform.deduplicator.merge.parallel_read import ParallelReader, describe_read_error
from kalshi_platform.deduplicator.merge.source import check_source, estimate_rows
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.market.tables import MERGED_TABLES
from kalshi_platform.market.times import HOUR, us_from_datetime
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.progress import report_progress
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import arrow_snapshot

_SQL = load(Path(__file__).with_name("queries.sql"))

Result = TypeVar("Result")
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

    def weigh_hour(self) -> int:
        """Return how many weighted rows of the hour all gatherers have together, by their ledgers."""
        counted = self._gather(lambda source: partial(_estimate_rows, source, self._hour))
        return sum(sum(counts.values()) for counts in counted.values())

    def read_hour(
        self, markets: MarketBuckets, folder: Path, known: pl.DataFrame, until: ExitStack
    ) -> tuple[dict[str, GathererHour], dict[str, HourFiles]]:
        """Read each gatherer once, all side by side: what it claims, and its rows as files.

        `known`: gatherer, stream_id, seq, ticker of snapshots with checkpoints in earlier hours. A gatherer that brings
        no row for `close_timeout_s` is missed. `until`: when it ends, the files are removed.
        """
        settings = self._settings
        edges = (us_from_datetime(self._hour), us_from_datetime(self._hour + HOUR))
        files = {
            source.name: HourFiles(folder / str(number), markets, edges)
            for number, source in enumerate(settings.sources)
            if source.name not in self.missed
        }

        for file in files.values():
            until.callback(file.close)

        finished = itertools.count(1)
        report_progress("gatherers read", 0, len(files))

        def task(source: GathererSource) -> Callable[[], GathererHour]:
            own = known.filter(pl.col("gatherer") == source.name).drop("gatherer")
            question = HourQuestion(edges, settings.max_out_of_orderness_us, markets, own, settings.rows_per_pass)

            def read() -> GathererHour:
                result = read_gatherer_hour(source, question, files[source.name])
                report_progress("gatherers read", next(finished), len(files))
                return result

            return read

        found = self._gather(task, progress={name: partial(_rows_read, each) for name, each in files.items()})
        for name, each in found.items():
            self._add_incomplete(name, each.incomplete)
        return found, {name: files[name] for name in found}

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
        self,
        task: Callable[[GathererSource], Callable[[], Result]],
        progress: Mapping[str, Callable[[], int]] = MappingProxyType({}),
    ) -> dict[str, Result]:
        """Run a task for every gatherer that is not missed; one without a result is missed.

        `progress`: by gatherer, a number that grows while its task goes on; as long as one does, all are waited for.
        """
        reader: ParallelReader[Result] = ParallelReader(self._clock)
        tasks = {source.name: task(source) for source in self._settings.sources if source.name not in self.missed}
        results: dict[str, Result] = {}
        errors: dict[str, Exception] = {}
        while tasks:
            before = {name: progress[name]() for name in tasks if name in progress}
            done, failed = reader.gather(tasks, self._settings.close_timeout_s)
            results |= done
            tasks = {
                name: tasks[name]
                for name, error in failed.items()
                if isinstance(error, TimeoutError) and name in progress and progress[name]() > before[name]
            }
            errors |= {name: error for name, error in failed.items() if name not in tasks}
        for name, error in errors.items():
            self.missed[name] = describe_read_error(error)
            _log.warning("gatherer_left_out_of_close", gatherer=name, hour=self._hour, error=self.missed[name])
        return results


def _rows_read(files: HourFiles) -> int:
    return files.rows_read


def _read_dropped_tables(source: GathererSource, hour: datetime) -> frozenset[str]:
    with arrow_snapshot(source.timeseries_url) as snapshot:
        found = snapshot.table(_SQL["find_dropped_tables"], (hour,))
    return frozenset(found.column(0).to_pylist())


def _estimate_rows(source: GathererSource, hour: datetime) -> Mapping[str, int]:
    check_source(source)
    with arrow_snapshot(source.timeseries_url) as snapshot:
        return estimate_rows(snapshot, hour, hour + HOUR)
