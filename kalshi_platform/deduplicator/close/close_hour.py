"""The close of an hour: everything that gatherers hold of it is in production, with checkpoints, coverage and proofs.

Idempotent, and also the backfill. The hour is merged again by time, whatever the cursors say: what a restored or
renumbered gatherer has, comes too. What gatherers claim is read before their rows are merged, so that production holds
all that the claims speak of.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import TypeVar

import polars as pl
import pyarrow as pa

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.close import close_store
from kalshi_platform.deduplicator.close.former_close import FormerClose, put_lost, read_former
from kalshi_platform.deduplicator.close.hour_summary import NOTHING_OPEN, CoverageShare, coverage_share, proofs_of
from kalshi_platform.deduplicator.close.hours import MISSED_FOR, SETTLED_AFTER
from kalshi_platform.deduplicator.close.overlap import added_up, disagreements, statistics_of
from kalshi_platform.deduplicator.close.verify_hour import HourProof, prove_hour
from kalshi_platform.deduplicator.coverage.checkpoint_reader import read_checkpoints, streams_still_known
from kalshi_platform.deduplicator.coverage.gatherer_hour import BOOK_TABLES, GathererHour, read_hour
from kalshi_platform.deduplicator.merge import parts, production
from kalshi_platform.deduplicator.merge.merge_pass import reason_of, unite
from kalshi_platform.deduplicator.merge.parallel_read import Readers
from kalshi_platform.deduplicator.merge.source import check_source, estimated_rows, rows_between
from kalshi_platform.deduplicator.merge.source_identity import refuse_twins
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.deduplicator.trades.reconcile_trades import TradeCheck, reconcile_trades
from kalshi_platform.deduplicator.trades.rest_trades import TradeLister
from kalshi_platform.errors import DatabaseUnavailable, HourDropped
from kalshi_platform.market.names import LONGEST_NAME
from kalshi_platform.market.tables import CLOSE_TABLES, MERGED_TABLES, PRODUCTION_TABLES
from kalshi_platform.market.times import HOUR, hour_of, us_from_datetime
from kalshi_platform.storage.migrate import check
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.read import arrow_snapshot

Answer = TypeVar("Answer")
# A slice of an hour is at least a second long.
_MOST_SLICES = 3_600
# A snapshot that was checkpointed longer ago than this is looked at again, which costs time and changes nothing.
_LOOK_BACK = timedelta(days=14)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HourClose:
    """What a close did. `rows`: rows of the hour in production now; `inserted`: those that this close brought.

    `final`: whether the hour is marked as closed. `trades`: how its trades compare with the exchange's listing.
    `coverage`: how much of the markets' open time is covered, as everything else that tells the coverage share has it.
    `dropped`: tables of which production no longer has all rows that were counted before; where books rest on them,
    everything said of the hour stays as it was. `gatherers_incomplete`: tables of which a gatherer no longer has all
    that it recorded of the hour; what it claimed stays.
    `failed`: markets whose books or claims did not come out; `proved`: how many were checked and did; `unproved`: of
    how many nothing could be checked. `alarms`: (kind, subject, detail), also in production.
    """

    hour: datetime
    rows: Mapping[str, int]
    checkpoints: int
    gatherers_read: tuple[str, ...]
    gatherers_missed: tuple[str, ...]
    inserted: Mapping[str, int] = field(default_factory=dict)
    final: bool = True
    trades: TradeCheck | None = None
    coverage: CoverageShare = NOTHING_OPEN
    failed: tuple[str, ...] = ()
    proved: int = 0
    unproved: int = 0
    alarms: tuple[close_store.Alarm, ...] = ()
    dropped: tuple[str, ...] = ()
    gatherers_incomplete: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def close_hour(
    settings: DeduplicatorSettings,
    hour: datetime,
    clock: Clock,
    bounds: PartitionBounds,
    final: bool = True,
    rest: TradeLister | None = None,
) -> HourClose:
    """Merge the hour again, make its checkpoints, mark it closed (unless it still runs, or `final` is False).

    `rest` is asked for the hour's trades, of which production gets those that no gatherer has; without it, or when the
    exchange does not answer, the hour is closed all the same and its trades are `not checked`.
    Raises ValueError when `hour` is not a whole hour, DatabaseUnavailable when production, or every gatherer, is away,
    SchemaMismatch when production is not migrated (a gatherer that is not is missed), ConfigurationError when two
    gatherers have one database, HourDropped when rows went meanwhile. Hours older than hours.MISSED_FOR need no
    gatherer: nobody waits for one any more, and trades come from the exchange's listing.
    """
    if hour.tzinfo is None or hour_of(hour) != hour:
        raise ValueError(f"{hour.isoformat()} is not a whole UTC hour")
    database = Database(settings.production_url, name="production")
    try:
        check(database, "production")
        refuse_twins(settings.sources, clock)
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
        self._missed: dict[str, str] = {}
        self._incomplete: dict[str, frozenset[str]] = {}
        self._known_streams: Mapping[str, frozenset[int]] = {}
        self._statistics: list[pl.DataFrame] = []
        self._put_aside: dict[tuple[str, str], tuple[int, str]] = {}

    def run(self, *, final: bool, rest: TradeLister | None) -> HourClose:
        close_no, closed_at = self._started()
        with self._database.transaction() as transaction:
            former = read_former(transaction, self._hour)
        claimed = self._claims()
        inserted: dict[str, int] = {}
        for table, slices in self._slices().items():
            for low, high in slices:
                count = self._merge_again(table, low, high, close_no)
                inserted[table] = inserted.get(table, 0) + count
        checkpoints = self._checkpoints()
        self._look_for_drops()
        read = tuple(source.name for source in self._settings.sources if source.name not in self._missed)
        if self._missed and not read and self._clock.now() - self._hour <= MISSED_FOR:
            raise DatabaseUnavailable(f"no gatherer could be read: {'; '.join(self._missed.values())}")
        trades = None
        if final:
            # What it inserts came with this close, which it does not reopen.
            trades = reconcile_trades(self._database, rest, self._hour, self._keeper, self._clock, merge_no=close_no)
        for table in ("book_checkpoints", *CLOSE_TABLES):
            self._keeper.ensure_hours(table, [us_from_datetime(self._hour)])
        with self._database.transaction() as transaction:
            counts = self._count(transaction)
        lost = former.lost(counts, self._not_shown())
        proved = None
        if former.keeps_judgement(lost):
            claimed = {}
        else:
            claimed = self._trustworthy(claimed, former)
            with production.merging(self._database) as transaction:
                self._put_checkpoints(transaction, _trusted(checkpoints, claimed), claimed)
            proved = prove_hour(self._database, self._settings, self._hour, claimed)
        with production.merging(self._database) as transaction:
            alarms = self._put(transaction, proved, claimed)
            # Counted last: from here to the commit nobody can drop these rows.
            rows = self._count(transaction)
            self._refuse_vanished(counts, rows)
            put_lost(transaction, self._hour, lost)
            verdicts = proofs_of(transaction, [self._hour])
            closed = HourClose(
                self._hour, rows, rows.pop("book_checkpoints"), read, tuple(self._missed), inserted, final, trades,
                coverage_share(transaction, self._hour), close_store.failed_markets(transaction, self._hour),
                verdicts.proved, verdicts.unproved, alarms, lost,
                {name: tuple(sorted(each)) for name, each in self._incomplete.items()},
            )  # fmt: skip
            if final:
                # Once it has had time to settle, it is not closed again for that.
                may_grow = self._clock.now() < self._hour + SETTLED_AFTER
                may_grow = may_grow and any(each.may_grow for each in claimed.values())
                _mark(transaction, closed, close_no, closed_at, former, may_grow=may_grow)
        for kind, subject, detail in alarms:
            _log.error("%s: %s: %s: %s", self._hour.isoformat(), kind, subject, detail)
        return closed

    def _put(
        self, transaction: Transaction, proved: HourProof | None, claimed: Mapping[str, GathererHour]
    ) -> tuple[close_store.Alarm, ...]:
        """Write what came out; without a proof what was said before stays. Return the alarms that stand then."""
        if proved is None:
            return close_store.alarms_of(transaction, self._hour)
        alarms = proved.put(transaction)
        close_store.put_streams(transaction, self._hour, {name: each.held for name, each in claimed.items()})
        statistics = added_up(self._statistics).filter(~pl.col("gatherer").is_in(tuple(self._missed)))
        standing = close_store.put_statistics(transaction, self._hour, statistics)
        alarms.extend(disagreements(standing, self._settings.least_agreement))
        alarms.extend(
            ("rows_refused", f"{table}, {reason}", f"{count} rows were put aside in dead_letters: {detail}")
            for (table, reason), (count, detail) in self._put_aside.items()
        )
        close_store.put_alarms(transaction, self._hour, alarms)
        return tuple(alarms)

    def _look_for_drops(self) -> None:
        """Note what gatherers dropped while they were read: some of it may be missing from what was read of them."""
        found = self._ask(lambda source: partial(_dropped, source, self._hour))
        for name, tables in found.items():
            self._note_incomplete(name, tables)

    def _note_incomplete(self, name: str, tables: frozenset[str]) -> None:
        before = self._incomplete.get(name, frozenset())
        if tables - before:
            self._incomplete[name] = before | tables
            _log.warning(
                "%s no longer holds all %s that it recorded in %s: what it claimed then stays as it was",
                name, ", ".join(sorted(tables)), self._hour.isoformat(),
            )  # fmt: skip

    def _not_shown(self) -> frozenset[str]:
        """Tables of which not every gatherer could show all that it recorded."""
        if self._missed:
            return frozenset(MERGED_TABLES)
        return frozenset().union(*self._incomplete.values())

    def _trustworthy(self, claimed: Mapping[str, GathererHour], former: FormerClose) -> dict[str, GathererHour]:
        """Without gatherers and streams that hold less than they did: what they claimed then stays."""
        # Whoever fell silent meanwhile may claim rows that were not merged.
        asked = {
            name: each
            for name, each in claimed.items()
            if name not in self._missed and not self._incomplete.get(name, frozenset()) & BOOK_TABLES
        }
        return {name: each.without(former.streams_to_keep(name, each)) for name, each in asked.items()}

    def _refuse_vanished(self, before: Mapping[str, int], now: Mapping[str, int]) -> None:
        fewer = [
            f"{table}: {before[table]:,} → {now[table]:,}" for table in MERGED_TABLES if now[table] < before[table]
        ]
        if fewer:
            raise HourDropped(
                f"rows of {self._hour:%Y-%m-%dT%H} were dropped from production while it was closed"
                f" ({', '.join(fewer)}); what was said of it before stays; close it again"
            )

    def _claims(self) -> dict[str, GathererHour]:
        """What each gatherer claims of the hour; one after the other: each holds a stream's rows of it."""
        low, high = us_from_datetime(self._hour), us_from_datetime(self._hour + HOUR)
        found: dict[str, GathererHour] = {}
        for source in self._settings.sources:
            found |= self._ask(lambda each: partial(_checked_hour, each, low, high, self._settings.margin_us), [source])
        for name, each in found.items():
            self._note_incomplete(name, each.incomplete)
        return found

    def _started(self) -> tuple[int, datetime]:
        """The number of this close, and the moment by production's clock: merges with lower numbers are over, and any
        with a higher one reopens the hour."""
        with production.merging(self._database) as transaction:
            row = transaction.fetch_one("SELECT next_merge_no(), clock_timestamp()")
        assert row is not None  # noqa: S101 - a constant query has one row
        return int(row[0]), row[1]

    def _slices(self) -> dict[str, list[tuple[datetime, datetime]]]:
        """Cut the hour so that a slice of a table holds about `rows_per_pass` rows of all gatherers together."""
        counted = self._ask(lambda source: partial(_estimate, source, self._hour))
        slices: dict[str, list[tuple[datetime, datetime]]] = {}
        for table in MERGED_TABLES:
            most = max((counts[table] for counts in counted.values()), default=0)
            parts = max(1, min(_MOST_SLICES, math.ceil(most / self._settings.rows_of_each)))
            edges = [self._hour + HOUR * part / parts for part in range(parts + 1)]
            slices[table] = list(pairwise(edges))
        return slices

    def _merge_again(self, table: str, low: datetime, high: datetime, close_no: int) -> int:
        answers = self._ask(lambda source: partial(_rows, source, table, low, high))
        self._statistics.append(statistics_of(table, answers))
        united = unite({name: {table: rows} for name, rows in answers.items()})
        if not united:
            return 0
        rows, _ = united[table]
        # With the number of the close: its own rows do not reopen the hour.
        carried = parts.carry(self._database, table, rows, self._keeper, close_no)
        for each in carried.asides:
            count, _ = self._put_aside.get((table, each.reason), (0, ""))
            self._put_aside[table, each.reason] = count + each.rows.height, each.detail
        return carried.rows

    def _checkpoints(self) -> pl.DataFrame:
        with self._database.transaction() as transaction:
            rows = transaction.fetch_all(
                "SELECT gatherer, stream_id, seq, ticker FROM book_checkpoints"
                " WHERE checkpoint_ts < %s AND checkpoint_ts >= %s AND gatherer <> ''",
                (self._hour, self._hour - _LOOK_BACK),
            )
        schema = {"gatherer": pl.String, "stream_id": pl.Int64, "seq": pl.Int64, "ticker": pl.String}
        known = pl.DataFrame(rows, schema=schema, orient="row")

        def question(source: GathererSource) -> Callable[[], pl.DataFrame]:
            mine = known.filter(pl.col("gatherer") == source.name).drop("gatherer")
            return partial(
                read_checkpoints, source, self._hour, mine, self._settings.margin_us, self._settings.rows_per_pass
            )

        with self._database.transaction() as transaction:
            checkpointed = transaction.fetch_all(
                "SELECT DISTINCT gatherer, stream_id FROM book_checkpoints"
                " WHERE checkpoint_ts >= %s AND checkpoint_ts < %s",
                (self._hour, self._hour + HOUR),
            )
        self._known_streams = self._ask(
            lambda source: partial(
                streams_still_known, source, {stream_id for name, stream_id in checkpointed if name == source.name}
            )
        )
        found = self._ask(question)
        if not found:
            return pl.DataFrame()
        return pl.concat(found.values()).filter(pl.col("ticker").str.len_chars() <= LONGEST_NAME)

    def _put_checkpoints(
        self, transaction: Transaction, checkpoints: pl.DataFrame, claimed: Mapping[str, GathererHour]
    ) -> None:
        """Replace the checkpoints of the streams that gatherers still know, and hold as they did.

        Those of other streams stay: their gatherer was made anew, or its old streams or rows were dropped, and
        production's checkpoints are all that is left of them.
        """
        for name, stream_ids in self._known_streams.items():
            held = claimed[name].streams if name in claimed else frozenset()
            transaction.execute(
                "DELETE FROM book_checkpoints WHERE checkpoint_ts >= %s AND checkpoint_ts < %s AND gatherer = %s"
                " AND stream_id = ANY (%s)",
                (self._hour, self._hour + HOUR, name, sorted(stream_ids & held)),
            )
        if checkpoints.height:
            data = checkpoints.to_arrow(compat_level=pl.CompatLevel.oldest())
            transaction.insert_new(PRODUCTION_TABLES["book_checkpoints"], data)

    def _count(self, transaction: Transaction) -> dict[str, int]:
        counts = {}
        for table in (*MERGED_TABLES, "book_checkpoints"):
            time = PRODUCTION_TABLES[table].time_column
            row = transaction.fetch_one(
                f"SELECT count(*) FROM {table} WHERE {time} >= %s AND {time} < %s",  # noqa: S608 - our own names
                (self._hour, self._hour + HOUR),
            )
            counts[table] = int(row[0]) if row else 0
        return counts

    def _ask(
        self,
        question: Callable[[GathererSource], Callable[[], Answer]],
        of: Sequence[GathererSource] | None = None,
    ) -> dict[str, Answer]:
        """Ask every gatherer (or those `of`) that has answered so far; who does not is missed from here on."""
        readers: Readers[Answer] = Readers(self._clock)
        asked = self._settings.sources if of is None else of
        sources = [source for source in asked if source.name not in self._missed]
        answers, errors = readers.ask(
            {source.name: question(source) for source in sources}, self._settings.close_timeout_s
        )
        for name, error in errors.items():
            self._missed[name] = reason_of(error)
            _log.warning("%s is left out of the close of %s: %s", name, self._hour.isoformat(), self._missed[name])
        return answers


def _trusted(checkpoints: pl.DataFrame, claimed: Mapping[str, GathererHour]) -> pl.DataFrame:
    """Those of streams that hold what they recorded, without two snapshots of one that contradict each other."""
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


def _checked_hour(source: GathererSource, low_us: int, high_us: int, margin_us: int) -> GathererHour:
    check_source(source)
    return read_hour(source, low_us, high_us, margin_us)


def _dropped(source: GathererSource, hour: datetime) -> frozenset[str]:
    with arrow_snapshot(source.timeseries_url) as snapshot:
        found = snapshot.table("SELECT table_name FROM dropped_hours WHERE hour = $1", (hour,))
    return frozenset(found.column(0).to_pylist())


def _estimate(source: GathererSource, hour: datetime) -> Mapping[str, int]:
    with arrow_snapshot(source.timeseries_url) as snapshot:
        return estimated_rows(snapshot, hour, hour + HOUR)


def _rows(source: GathererSource, table: str, low: datetime, high: datetime) -> pa.Table:
    with arrow_snapshot(source.timeseries_url) as snapshot:
        return rows_between(snapshot, table, low, high)


def _mark(
    transaction: Transaction,
    closed: HourClose,
    close_no: int,
    closed_at: datetime,
    former: FormerClose,
    *,
    may_grow: bool,
) -> None:
    # What was counted before rows were dropped stays: it tells how many there should be.
    counted = {table: count for table, count in closed.rows.items() if table not in closed.dropped}
    rows = {table: count for table, count in (former.rows or {}).items() if table in closed.dropped} | counted
    kept = former.keeps_judgement(closed.dropped)
    # Nothing of the hour is another than before, so that what was exported of it is not out of date.
    brought = any(closed.inserted.values()) or (closed.trades is not None and closed.trades.inserted > 0)
    transaction.execute(
        "INSERT INTO hour_closes AS t (hour, close_no, closed_at, rows, checkpoints, gatherers_read,"
        " gatherers_missed, gatherers_incomplete, may_grow, markets, open_us, covered_us)"
        " VALUES (%(hour)s, %(close_no)s, %(closed_at)s, %(rows)s,"
        " %(checkpoints)s, %(read)s, %(missed)s, %(incomplete)s, %(may_grow)s, %(markets)s, %(open_us)s,"
        " %(covered_us)s)"
        " ON CONFLICT (hour) DO UPDATE SET close_no = excluded.close_no,"
        " close_id = CASE WHEN %(unchanged)s THEN t.close_id ELSE excluded.close_id END,"
        " closed_at = excluded.closed_at, rows = excluded.rows,"
        " checkpoints = CASE WHEN %(kept)s THEN t.checkpoints ELSE excluded.checkpoints END,"
        " gatherers_read = excluded.gatherers_read, gatherers_missed = excluded.gatherers_missed,"
        " gatherers_incomplete = excluded.gatherers_incomplete, may_grow = excluded.may_grow,"
        " markets = CASE WHEN %(kept)s THEN t.markets ELSE excluded.markets END,"
        " open_us = CASE WHEN %(kept)s THEN t.open_us ELSE excluded.open_us END,"
        " covered_us = CASE WHEN %(kept)s THEN t.covered_us ELSE excluded.covered_us END",
        {
            "hour": closed.hour,
            "close_no": close_no,
            "closed_at": closed_at,
            "rows": json.dumps(rows),
            "checkpoints": closed.checkpoints,
            "read": list(closed.gatherers_read),
            "missed": list(closed.gatherers_missed),
            "incomplete": sorted(closed.gatherers_incomplete),
            "may_grow": may_grow,
            "markets": closed.coverage.markets,
            "open_us": closed.coverage.open_us,
            "covered_us": closed.coverage.covered_us,
            "kept": kept,
            "unchanged": kept and not brought,
        },
    )
