"""Closes an hour: all that gatherers hold of it is merged into production, with checkpoints, coverage and proofs.

Idempotent, and also the backfill. The hour is merged again by time, whatever the cursors say: what a restored or
renumbered gatherer has, comes too. What gatherers claim is read before their rows are merged, so that production holds
all that the claims speak of.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.close import close_store
from kalshi_platform.deduplicator.close.close_record import HourClose, record_close
from kalshi_platform.deduplicator.close.hour_gatherers import HourGatherers
from kalshi_platform.deduplicator.close.hour_summary import read_coverage_share, read_proofs_within
from kalshi_platform.deduplicator.close.hours import MAY_GROW_FOR, RETRY_MISSING_GATHERER_FOR
from kalshi_platform.deduplicator.close.overlap import compare_gatherers, find_disagreements, sum_statistics
from kalshi_platform.deduplicator.close.previous_close import read_previous_close, replace_dropped_tables
from kalshi_platform.deduplicator.close.verify_hour import HourVerification, verify_hour
from kalshi_platform.deduplicator.coverage.gatherer_hour import GathererHour
from kalshi_platform.deduplicator.merge import production
from kalshi_platform.deduplicator.merge.deduplicate import deduplicate_tables
from kalshi_platform.deduplicator.merge.insert_parts import insert_in_parts
from kalshi_platform.deduplicator.merge.source_identity import refuse_shared_databases
from kalshi_platform.deduplicator.settings import DeduplicatorSettings
from kalshi_platform.deduplicator.trades.reconcile_trades import reconcile_trades
from kalshi_platform.deduplicator.trades.rest_trades import TradeLister
from kalshi_platform.errors import DatabaseUnavailable, HourDropped
from kalshi_platform.market.tables import CLOSE_TABLES, MERGED_TABLES
from kalshi_platform.market.times import HOUR, hour_of, us_from_datetime
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.migrate import check
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

# Checkpoints of snapshots that got theirs longer ago than this are made again, which costs time and changes nothing.
_LOOK_BACK = timedelta(days=14)
_log = event_logger(__name__)


def close_hour(
    settings: DeduplicatorSettings,
    hour: datetime,
    clock: Clock,
    bounds: PartitionBounds,
    final: bool = True,
    rest: TradeLister | None = None,
) -> HourClose:
    """Merge the hour again, make its checkpoints, record it as closed (unless it still runs, or `final` is False).

    `rest` lists the hour's trades, of which production gets those that no gatherer has; without it, or when the
    exchange does not answer, the hour is closed all the same and its trades are `not checked`.

    Raises ValueError when `hour` is not a whole hour, DatabaseUnavailable when production, or every gatherer, is away,
    SchemaMismatch when production is not migrated (a gatherer that is not is missed), ConfigurationError when two
    gatherers have one database, HourDropped when rows were dropped meanwhile. Hours older than
    hours.RETRY_MISSING_GATHERER_FOR need no gatherer: their trades still come from the exchange's listing.
    """
    if hour.tzinfo is None or hour_of(hour) != hour:
        raise ValueError(f"{hour.isoformat()} is not a whole UTC hour")
    database = Database(settings.production_url, name="production")
    try:
        check(database, "production")
        refuse_shared_databases(settings.sources, clock)
        final = final and hour + HOUR <= clock.now()
        return _Close(settings, hour, clock, bounds, database).run(final=final, rest=rest)
    finally:
        database.dispose()


class _Close:
    def __init__(
        self, settings: DeduplicatorSettings, hour: datetime, clock: Clock, bounds: PartitionBounds, database: Database
    ) -> None:
        self._settings = settings
        self._hour = hour
        self._clock = clock
        self._database = database
        self._keeper = PartitionKeeper(database, bounds, clock)
        self._gatherers = HourGatherers(settings, hour, clock)
        self._statistics: list[pl.DataFrame] = []
        self._quarantined: dict[tuple[str, str], tuple[int, str]] = {}

    def run(self, *, final: bool, rest: TradeLister | None) -> HourClose:
        gatherers = self._gatherers
        close_no, closed_at = self._begin()
        with self._database.transaction() as transaction:
            previous = read_previous_close(transaction, self._hour)
        claimed = gatherers.read_claims()
        inserted = self._merge_hour(close_no)
        known_streams, checkpoints = self._read_checkpoints()
        gatherers.check_dropped()
        missed = gatherers.missed
        if missed and not gatherers.read and self._clock.now() - self._hour <= RETRY_MISSING_GATHERER_FOR:
            raise DatabaseUnavailable(f"no gatherer could be read: {'; '.join(missed.values())}")
        trades = None
        if final:
            # Rows that it inserts came with this close, which they do not reopen.
            trades = reconcile_trades(self._database, rest, self._hour, self._keeper, self._clock, merge_no=close_no)
        for table in ("book_checkpoints", *CLOSE_TABLES):
            self._keeper.ensure_hours(table, [us_from_datetime(self._hour)])
        with self._database.transaction() as transaction:
            counts = close_store.count_rows(transaction, self._hour)
        lost = previous.find_lost_tables(counts, gatherers.tables_not_shown)
        verified = None
        if previous.keeps_verification(lost):
            claimed = {}
        else:
            claimed = gatherers.filter_trustworthy(claimed, previous)
            with production.merge_transaction(self._database) as transaction:
                # Of other streams production's checkpoints stay: their gatherer was made anew, or its old streams or
                # rows were dropped, and these checkpoints are all that is left of them.
                shown = {
                    name: ids & (claimed[name].streams if name in claimed else frozenset())
                    for name, ids in known_streams.items()
                }
                close_store.replace_checkpoints(transaction, self._hour, shown, _filter_trusted(checkpoints, claimed))
            verified = verify_hour(self._database, self._settings, self._hour, claimed)
        with production.merge_transaction(self._database) as transaction:
            alarms = self._write(transaction, verified, claimed)
            # Counted last: from here to the commit these rows cannot be dropped.
            rows = close_store.count_rows(transaction, self._hour)
            self._check_vanished(counts, rows)
            replace_dropped_tables(transaction, self._hour, lost)
            verdicts = read_proofs_within(transaction, [self._hour])
            closed = HourClose(
                self._hour, rows, rows.pop("book_checkpoints"), gatherers.read, tuple(missed), inserted, final, trades,
                read_coverage_share(transaction, self._hour), close_store.read_failed_markets(transaction, self._hour),
                verdicts.proved, verdicts.unproved, alarms, lost,
                {name: tuple(sorted(each)) for name, each in gatherers.incomplete.items()},
            )  # fmt: skip
            if final:
                # Once quiet streams have had time to show more, the hour is not closed again for that.
                may_grow = self._clock.now() < self._hour + MAY_GROW_FOR
                may_grow = may_grow and any(each.may_grow for each in claimed.values())
                record_close(transaction, closed, close_no, closed_at, previous, may_grow=may_grow)
        for kind, subject, detail in alarms:
            _log.error(kind, hour=self._hour, subject=subject, detail=detail)
        return closed

    def _begin(self) -> tuple[int, datetime]:
        """Return the number of this close, and the moment by production's clock.

        Merges with lower numbers are over, and any with a higher one reopens the hour.
        """
        with production.merge_transaction(self._database) as transaction:
            row = transaction.fetch_one(_SQL["begin_close"])
        assert row is not None  # noqa: S101 - a constant query has one row
        return int(row[0]), row[1]

    def _merge_hour(self, close_no: int) -> dict[str, int]:
        """Merge the hour again, slice by slice; return how many rows were new, by table."""
        inserted: dict[str, int] = {}
        for table, slices in self._gatherers.slice_hour().items():
            for low, high in slices:
                by_gatherer = self._gatherers.read_rows(table, low, high)
                inserted[table] = inserted.get(table, 0) + self._merge_slice(table, by_gatherer, close_no)
        return inserted

    def _merge_slice(self, table: str, by_gatherer: Mapping[str, pa.Table], close_no: int) -> int:
        self._statistics.append(compare_gatherers(table, by_gatherer))
        unique = deduplicate_tables({name: {table: rows} for name, rows in by_gatherer.items()})
        if not unique:
            return 0
        # With the number of the close: its own rows do not reopen the hour.
        result = insert_in_parts(self._database, table, unique[table].rows, self._keeper, close_no)
        for each in result.quarantined:
            count, _ = self._quarantined.get((table, each.reason), (0, ""))
            self._quarantined[table, each.reason] = count + each.rows.height, each.detail
        return result.rows

    def _read_checkpoints(self) -> tuple[dict[str, frozenset[int]], pl.DataFrame]:
        """Return the streams with checkpoints in production that gatherers still know, and the hour's checkpoints."""
        with self._database.transaction() as transaction:
            known = close_store.read_checkpointed_snapshots(transaction, self._hour - _LOOK_BACK, self._hour)
            stream_ids = close_store.read_checkpointed_streams(transaction, self._hour)
        known_streams = self._gatherers.find_known_streams(stream_ids)
        return known_streams, self._gatherers.read_checkpoints(known)

    def _write(
        self, transaction: Transaction, verified: HourVerification | None, claimed: Mapping[str, GathererHour]
    ) -> tuple[close_store.Alarm, ...]:
        """Write the results; without a verification the earlier ones stay. Return the alarms that stand then."""
        if verified is None:
            return close_store.read_alarms(transaction, self._hour)
        alarms = verified.write(transaction)
        close_store.record_streams(transaction, self._hour, {name: each.held for name, each in claimed.items()})
        statistics = sum_statistics(self._statistics).filter(~pl.col("gatherer").is_in(tuple(self._gatherers.missed)))
        standing = close_store.replace_statistics(transaction, self._hour, statistics)
        alarms.extend(find_disagreements(standing, self._settings.least_agreement))
        alarms.extend(
            ("rows_refused", f"{table}, {reason}", f"{count} rows went to dead_letters: {detail}")
            for (table, reason), (count, detail) in self._quarantined.items()
        )
        close_store.replace_alarms(transaction, self._hour, alarms)
        return tuple(alarms)

    def _check_vanished(self, before: Mapping[str, int], now: Mapping[str, int]) -> None:
        fewer = [
            f"{table}: {before[table]:,} → {now[table]:,}" for table in MERGED_TABLES if now[table] < before[table]
        ]
        if fewer:
            raise HourDropped(
                f"rows of {self._hour:%Y-%m-%dT%H} were dropped from production while it was closed"
                f" ({', '.join(fewer)}); what was said of it before stays; close it again"
            )


def _filter_trusted(checkpoints: pl.DataFrame, claimed: Mapping[str, GathererHour]) -> pl.DataFrame:
    """Keep checkpoints of streams that hold what they recorded; drop those of snapshots that failed a check."""
    if checkpoints.height:
        streams = [(name, stream_id) for name, each in claimed.items() for stream_id in each.streams]
        held = pl.DataFrame(streams, schema={"gatherer": pl.String, "stream_id": pl.Int64}, orient="row")
        checkpoints = checkpoints.join(held, on=["gatherer", "stream_id"], how="semi")
    for name, each in claimed.items():
        failed = each.run_checks.filter(~pl.col("passed"))
        for number in ("seq", "next_seq"):
            wrong = failed.select("stream_id", "ticker", pl.col(number).alias("seq"), gatherer=pl.lit(name))
            if checkpoints.height:
                checkpoints = checkpoints.join(wrong, on=["gatherer", "stream_id", "ticker", "seq"], how="anti")
    return checkpoints
