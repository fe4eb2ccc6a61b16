"""Works on one hour, or on a part of its markets: reads, merges and verifies; nothing but merged rows is written.

Each gatherer is read once, and its rows are kept in temporary files by bucket of markets. Buckets are then merged and
verified, a few side by side, so that memory does not grow with the hour. What comes out is written by close_hour.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import polars as pl
import pyarrow as pa

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.close import close_store
from kalshi_platform.deduplicator.close.hour_gatherers import HourGatherers
from kalshi_platform.deduplicator.close.hours import RETRY_MISSING_GATHERER_FOR
from kalshi_platform.deduplicator.close.merge_bucket import BucketMerge, BucketMerger
from kalshi_platform.deduplicator.close.overlap import sum_statistics
from kalshi_platform.deduplicator.close.previous_close import PreviousClose
from kalshi_platform.deduplicator.close.verify_hour import HourParts, HourVerification, verify_hour
from kalshi_platform.deduplicator.coverage.gatherer_hour import GathererHour
from kalshi_platform.deduplicator.coverage.verification.production_hour import Clocks, ProductionFiles
from kalshi_platform.deduplicator.merge.hour_files import DELTA_TABLE, HourFiles
from kalshi_platform.deduplicator.merge.insert_parts import InsertResult, insert_in_parts
from kalshi_platform.deduplicator.merge.market_buckets import MarketBuckets
from kalshi_platform.deduplicator.settings import DeduplicatorSettings
from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.market.parts import MarketPart
from kalshi_platform.market.times import HOUR, us_from_datetime
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.progress import report_progress
from kalshi_platform.storage.partitions import PartitionKeeper
from kalshi_platform.storage.pool import Database

Result = TypeVar("Result")

# Checkpoints of snapshots that got theirs longer ago than this are made again, which costs time and changes nothing.
_LOOK_BACK = HOUR * 24 * 14
_log = event_logger(__name__)


@dataclass(frozen=True)
class HourWork:
    """What was found of the markets of a part. `verified`: None where claims and proofs stay as they are.

    `gatherers_read`, `missed` (name → why), `incomplete`, `not_shown`: as HourGatherers has them. `held`: by gatherer
    that can speak for it, what its streams hold. `rows`: at least so many rows of each table production had then;
    `held_deltas`: deltas of the part in production, with those that came. `quarantined`: by table and reason.
    """

    gatherers_read: tuple[str, ...]
    missed: Mapping[str, str]
    incomplete: Mapping[str, frozenset[str]]
    not_shown: frozenset[str]
    rows: Mapping[str, int]
    held_deltas: int
    inserted: Mapping[str, int]
    quarantined: Mapping[tuple[str, str], tuple[int, str]]
    statistics: pl.DataFrame
    verified: HourVerification
    held: Mapping[str, pl.DataFrame]
    may_grow: bool


class HourWorker:
    """Works on one hour. `close_no`: the number of the close, with which its rows come."""

    def __init__(
        self,
        settings: DeduplicatorSettings,
        hour: datetime,
        clock: Clock,
        database: Database,
        keeper: PartitionKeeper,
        close_no: int,
    ) -> None:
        self._settings = settings
        self._hour = hour
        self._clock = clock
        self._database = database
        self._keeper = keeper
        self._close_no = close_no
        self._gatherers = HourGatherers(settings, hour, clock)

    def work(self, part: MarketPart, previous: PreviousClose, files: ExitStack) -> HourWork:
        """Read, merge and verify a part. Temporary files live as long as `files`: the result reads from them."""
        gatherers = self._gatherers
        with self._database.transaction() as transaction:
            known = close_store.read_checkpointed_snapshots(transaction, self._hour - _LOOK_BACK, self._hour)
            checkpointed = close_store.read_checkpointed_streams(transaction, self._hour)
            before = close_store.count_rows(transaction, self._hour)
        weight = gatherers.weigh_hour() / part.total
        markets = MarketBuckets(max(1, math.ceil(weight / self._settings.close_bucket_rows)), part)
        folder = Path(files.enter_context(TemporaryDirectory(prefix="kalshi-close-")))
        claimed, rows = gatherers.read_hour(markets, folder, known, files)
        production = self._open_production(folder, markets)
        files.callback(production.close)
        production.read_rows()
        _log.info(
            "close_hour_read", hour=self._hour, part=str(part), buckets=markets.count,
            rows={name: each.rows_read for name, each in rows.items()}, rows_of_production=production.rows_read,
        )  # fmt: skip
        # What was needed to read is free for the buckets, not kept for another reading.
        pa.default_memory_pool().release_unused()
        merged = self._merge(markets, rows, claimed, production)
        gatherers.check_dropped()
        if gatherers.missed and not gatherers.read and self._clock.now() - self._hour <= RETRY_MISSING_GATHERER_FOR:
            raise DatabaseUnavailable(f"no gatherer could be read: {'; '.join(gatherers.missed.values())}")
        with self._database.transaction() as transaction:
            now = close_store.count_rows(transaction, self._hour)
        trusted = gatherers.filter_trustworthy(claimed, previous)
        if any(each.sent.get(DELTA_TABLE) for each in merged):
            production.read_deltas()
        verified = verify_hour(
            self._database,
            self._settings,
            self._hour,
            HourParts(
                markets, trusted, [each.claims for each in merged], rows, production,
                _find_replaced(checkpointed, claimed, trusted), partial(self._run_buckets, "verified", markets.count),
            ),
        )  # fmt: skip
        return HourWork(
            gatherers.read, dict(gatherers.missed), dict(gatherers.incomplete), gatherers.tables_not_shown,
            {table: max(before[table], count) for table, count in now.items()},
            sum(each.held_deltas + each.inserted.get(DELTA_TABLE, 0) for each in merged),
            sum_counts(each.inserted for each in merged), sum_quarantined(each.quarantined for each in merged),
            sum_statistics(some for each in merged for some in each.statistics),
            verified, {name: each.held for name, each in trusted.items()},
            any(each.may_grow for each in trusted.values()),
        )  # fmt: skip

    def _open_production(self, folder: Path, markets: MarketBuckets) -> ProductionFiles:
        edges = (us_from_datetime(self._hour), us_from_datetime(self._hour + HOUR))
        clocks = Clocks(self._settings.rest_age_us, self._settings.clock_skew_us)
        return ProductionFiles(self._database.url, folder / "production", markets, edges, clocks)

    def _merge(
        self,
        markets: MarketBuckets,
        rows: Mapping[str, HourFiles],
        claimed: Mapping[str, GathererHour],
        production: ProductionFiles,
    ) -> list[BucketMerge]:
        edges = (us_from_datetime(self._hour), us_from_datetime(self._hour + HOUR))
        claims = {name: each.claims for name, each in claimed.items()}

        def insert(table: str, part: pl.DataFrame) -> InsertResult:
            # With the number of the close: its own rows do not reopen the hour.
            return insert_in_parts(self._database, table, part, self._keeper, self._close_no)

        merger = BucketMerger(markets, edges, rows, claims, production, insert, self._settings.rows_per_pass)
        return self._run_buckets("merged", markets.count, merger.merge)

    def _run_buckets(self, what: str, count: int, task: Callable[[int], Result]) -> list[Result]:
        """Run a task for each bucket, a few side by side; the first error stops it."""
        finished = itertools.count(1)

        def run(bucket: int) -> Result:
            result = self._run_bucket(what, count, task, bucket)
            report_progress(f"buckets {what}", next(finished), count)
            return result

        report_progress(f"buckets {what}", 0, count)
        with ThreadPoolExecutor(self._settings.close_parallel, thread_name_prefix="close") as pool:
            futures = [pool.submit(run, bucket) for bucket in range(count)]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for each in futures:
                each.cancel()
            for each in done:
                each.result()
            return [each.result() for each in futures]

    def _run_bucket(self, what: str, count: int, task: Callable[[int], Result], bucket: int) -> Result:
        result = task(bucket)
        rows = result.rows_read if isinstance(result, BucketMerge) else None
        _log.info("close_bucket_done", hour=self._hour, bucket=bucket + 1, buckets=count, step=what, rows=rows)
        return result


def _find_replaced(
    checkpointed: Mapping[str, frozenset[int]],
    claimed: Mapping[str, GathererHour],
    trusted: Mapping[str, GathererHour],
) -> pl.DataFrame:
    """Streams whose checkpoints in production are made anew.

    Of other streams production's stay: their gatherer was made anew, or its old streams or rows were dropped, and these
    checkpoints are all that is left of them.
    """
    return close_store.frame_streams(
        {
            name: ids & claimed[name].ledger_streams & trusted[name].streams
            for name, ids in checkpointed.items()
            if name in trusted
        }
    )


def sum_counts(every: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up counts by table."""
    found: dict[str, int] = {}
    for each in every:
        for table, count in each.items():
            found[table] = found.get(table, 0) + count
    return found


def sum_quarantined(
    every: Iterable[Mapping[tuple[str, str], tuple[int, str]]],
) -> dict[tuple[str, str], tuple[int, str]]:
    """Add up refused rows by table and reason."""
    found: dict[tuple[str, str], tuple[int, str]] = {}
    for each in every:
        for subject, (count, detail) in each.items():
            found[subject] = found.get(subject, (0, ""))[0] + count, detail
    return found
