"""Commits one batch of records in one transaction: rows, ledger and journal position together, or nothing.

Commits are idempotent: writing the same records again changes nothing, so a commit whose outcome is unknown is
repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from kalshi_platform.gatherer.ingest.columns import tables_of, times_us, with_batch_no
from kalshi_platform.gatherer.ingest.dead_letter_limit import DeadLetterLimit
from kalshi_platform.gatherer.ingest.exchange_times import ExchangeTimes
from kalshi_platform.gatherer.ingest.fence import Fence
from kalshi_platform.gatherer.ingest.ledger import Ledger, Segment, fold
from kalshi_platform.gatherer.ingest.quarantine import PARTITIONS_OF_A_BATCH, Dated, split_out_of_range
from kalshi_platform.gatherer.journal.block_format import Position
from kalshi_platform.market.records import Record
from kalshi_platform.market.tables import GATHERER_TABLES
from kalshi_platform.market.times import datetime_from_us
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage import queries
from kalshi_platform.storage.partitions import PartitionKeeper
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.quarantine import TooManyPartitions

COMMITTED = "batch_committed"
"""Event logged (DEBUG) right after every commit of records."""
_EXCHANGE_TIMED = ("orderbook_deltas", "trades", "tickers")
_log = event_logger(__name__)


@dataclass(frozen=True)
class Commit:
    """Reports a commit: the new rows per table, its ledger, and the rows that became dead letters."""

    batch_no: int
    inserted: Mapping[str, int]
    ledger: Ledger
    out_of_bounds: tuple[Dated, ...] = ()


def commit_records(
    database: Database,
    keeper: PartitionKeeper,
    gatherer: str,
    records: Sequence[Record],
    *,
    repeated: bool = False,
    times: ExchangeTimes | None = None,
    fence: Fence | None = None,
    end: Position | None = None,
    letters: DeadLetterLimit | None = None,
) -> Commit:
    """Write `records`; with `repeated` they may be there already, which changes only the cost.

    `times` decides which exchange times are accepted (without it all within the bounds of `keeper`), `letters` how many
    of the new dead letters are kept (without it all). `fence` is the ingest's, and `end` the position in the journal
    behind these records, None where they are a part of a batch; without a fence no stream's ledger may be written.
    Raises TooManyPartitions or DatabaseUnavailable; nothing is written then, or, if the connection broke during the
    commit, everything.
    """
    low_us, high_us = keeper.bounds_us()
    tables = tables_of(records)
    out_of_range: tuple[Dated, ...] = ()
    dated = {name: tables[name] for name in _EXCHANGE_TIMED if name in tables}
    are_all_near = times is None or times.are_all_near(dated)
    if not are_all_near or any(_is_out_of_range(name, table, low_us, high_us) for name, table in dated.items()):
        records, out_of_range = split_out_of_range(
            records,
            lambda row: (
                low_us <= row.exchange_ts_us < high_us and (are_all_near or times is None or times.accepts(row))
            ),
            letters,
        )
        tables = tables_of(records)
    moments = {name: times_us(name, table) for name, table in tables.items()}
    if sum(map(len, moments.values())) > PARTITIONS_OF_A_BATCH + len(moments):
        raise TooManyPartitions
    for name, each in moments.items():
        keeper.ensure_hours(name, each)
    ledger = fold(records)
    inserted: dict[str, int] = {}
    with database.transaction() as transaction:
        batch_no = _next_batch(transaction) if fence is None else fence.next_batch(transaction, end)
        batches: list[tuple[int, str, int, datetime, datetime, int]] = []
        for name, table in tables.items():
            inserted[name] = transaction.insert_new(
                GATHERER_TABLES[name], with_batch_no(name, table, batch_no), likely_new=not repeated
            )
            if inserted[name]:
                low, high = datetime_from_us(moments[name][0]), datetime_from_us(moments[name][-1])
                batches.append((batch_no, name, inserted[name], low, high, table.nbytes))
        write_ledger(transaction, ledger, gatherer, batch_no)
        if batches:
            transaction.execute_values(queries.load("gatherer")["batches"], batches)
        else:
            transaction.execute(queries.load("gatherer")["batch_without_rows"], {"batch_no": batch_no})
    if fence is not None:
        fence.confirm()
    _log.debug(COMMITTED, batch_no=batch_no, new_rows=sum(inserted.values()))
    return Commit(batch_no, inserted, ledger, out_of_range)


def write_ledger(transaction: Transaction, ledger: Ledger, gatherer: str, batch_no: int) -> None:
    """Write the entries of `ledger`; those that are there already stay as they are."""
    sql = queries.load("gatherer")
    values = transaction.execute_values
    values(
        sql["sessions_opened"],
        [
            (s.session_id, gatherer, s.connection, s.url, s.use_yes_price, _time(s.opened_at_ns // 1_000))
            for s in ledger.sessions_opened
        ],
    )
    values(
        sql["streams_opened"],
        [(s.stream_id, s.session_id, s.sid, s.channel, _time(s.opened_at_ns // 1_000)) for s in ledger.streams_opened],
    )
    values(
        sql["segments"],
        [
            (s.stream_id, s.seq_from, s.seq_to, _time(s.exchange_ts_min_us), _time(s.exchange_ts_max_us), batch_no)
            for s in _longest_segments(ledger)
        ],
        "(%s::bigint, %s::bigint, %s::bigint, %s::timestamptz, %s::timestamptz, %s::bigint)",
    )
    values(
        sql["book_subscriptions"],
        [
            (m.stream_id, m.ticker, m.seq_from, m.seq_to, m.end_reason, m.exchange_index, batch_no)
            for m in {(m.stream_id, m.ticker, m.seq_from): m for m in ledger.book_subscriptions}.values()
        ],
        "(%s::bigint, %s::text, %s::bigint, %s::bigint, %s::text, %s::int, %s::bigint)",
    )
    values(
        sql["endings"],
        [(e.stream_id, e.ticker, e.seq_to, e.end_reason, e.before, batch_no) for e in ledger.endings],
        "(%s::bigint, %s::text, %s::bigint, %s::text, %s::bigint, %s::bigint)",
    )
    values(
        sql["gaps"],
        [(g.stream_id, g.seq_expected, g.seq_seen, _time(g.detected_at_ns // 1_000), batch_no) for g in ledger.gaps],
    )
    values(
        sql["unknown_frames"],
        [(u.stream_id, u.seq, u.frame_type, u.ticker, batch_no) for u in ledger.unknown_frames],
    )
    values(
        sql["letters_counted"],
        [
            (_time(each.minute_us), each.reason, each.counted_by, each.letters)
            for each in {
                (each.minute_us, each.reason, each.counted_by): each
                for each in sorted(ledger.letters_counted, key=lambda each: each.letters)
            }.values()
        ],
    )
    values(
        sql["streams_ended"],
        [(s.stream_id, _time(s.ended_at_ns // 1_000), s.reason) for s in ledger.streams_ended],
        "(%s::bigint, %s::timestamptz, %s::text)",
    )
    values(
        sql["sessions_closed"],
        [(s.session_id, _time(s.closed_at_ns // 1_000), s.reason) for s in ledger.sessions_closed],
        "(%s::bigint, %s::timestamptz, %s::text)",
    )


def end_open_entries(
    transaction: Transaction,
    fence: Fence,
    reason: str,
    statements: Sequence[str] = ("end_all_book_subscriptions", "end_all_streams", "close_all_sessions"),
    end: Position | None = None,
) -> None:
    """End what is open in the ledger, at what its rows support, as a batch of its own; `confirm` of the fence follows.

    `end` is where the journal is continued, None where its position stays.
    """
    sql = queries.load("gatherer")
    batch_no = fence.next_batch(transaction, end)
    for name in statements:
        transaction.execute(sql[name], {"reason": reason})
    transaction.execute(sql["batch_without_rows"], {"batch_no": batch_no})


def _next_batch(transaction: Transaction) -> int:
    row = transaction.fetch_one(queries.load("gatherer")["next_batch"])
    assert row is not None  # noqa: S101 - the migration inserts the counter's only row
    return int(row[0])


def _is_out_of_range(name: str, table: pa.Table, low_us: int, high_us: int) -> bool:
    times = times_us(name, table)
    return times[0] < low_us or times[-1] >= high_us


def _longest_segments(ledger: Ledger) -> list[Segment]:
    # One INSERT must not touch a row twice; of two segments with one start the longer one contains the other.
    best: dict[tuple[int, int], Segment] = {}
    for segment in sorted(ledger.segments, key=lambda each: each.seq_to):
        best[segment.stream_id, segment.seq_from] = segment
    return list(best.values())


def _time(value_us: int | None) -> datetime | None:
    return None if value_us is None else datetime_from_us(value_us)
