"""Clears what databases keep about rows that are gone: ledgers of gatherers, production's records of hours.

A gatherer's ledger speaks of rows, and without it they claim nothing. So it goes by whole streams, and only below the
oldest rows that are left; production's records of what was claimed go the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from kalshi_platform.lake.retention.drop import count_rows, drop_records, find_old_partitions
from kalshi_platform.lake.retention.gate import HourRefused
from kalshi_platform.lake.retention.gatherers import GathererCursor
from kalshi_platform.lake.retention.report import Cleared, Outcome
from kalshi_platform.market.tables import CLOSE_TABLES
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("ledger.sql"))

MARGIN = timedelta(days=1)
"""Lines of a ledger stay that much longer than the rows: claims of an hour look around it."""
_VERIFICATIONS_STAY = timedelta(days=60)
_OF_STREAMS = ("stream_segments", "book_subscriptions", "sequence_gaps", "unknown_frames", "streams")
_BATCHES_AT_ONCE = 50_000
# Of what was claimed and held of an hour: no use once its deltas are gone.
_OF_CLAIMS = ("closed_streams", "time_regressions", "misdated_deltas")
_BY_TIME = {
    "merge_alarms": "not_raised_again",
    "dead_letters": "old_letters",
    "heartbeats": "not_heard_of",
    "catalog_syncs": "old_syncs",
}
_OF_HOURS = ("merge_statistics", "close_alarms", "trade_checks", "trade_parity")


def oldest_left(outcomes: Iterable[Outcome], before: datetime) -> datetime:
    """Return the start of the oldest partition that stays although it is old enough, else `before`."""
    return min((each.low for each in outcomes if each.refused is not None), default=before)


class Clearer:
    """Clears lines of one database; with `dry_run` it counts them."""

    def __init__(self, name: str, database: Database, *, dry_run: bool) -> None:
        self._name = name
        self._database = database
        self._dry_run = dry_run

    def clear(self, table: str, clause: str, **parameters: object) -> Cleared:
        """Clear the lines of a table that a clause of ledger.sql selects."""
        with self._database.transaction() as transaction:
            return Cleared(self._name, table, self._run(transaction, table, clause, parameters))

    def clear_streams(self, before: datetime) -> Iterator[Cleared]:
        """Clear the streams that ended, and all of whose rows lie, before a moment; one stream in a transaction."""
        with self._database.transaction() as transaction:
            rows = transaction.fetch_all(_SQL["find_old_streams"], {"before": before})
        counts = dict.fromkeys(_OF_STREAMS, 0)
        for (stream_id,) in rows:
            with self._database.transaction() as transaction:
                for table in _OF_STREAMS:
                    counts[table] += self._run(transaction, table, "of_stream", {"stream_id": stream_id})
        yield from (Cleared(self._name, table, count) for table, count in counts.items())

    def clear_batches(self, before: datetime, cursor: GathererCursor) -> Cleared:
        """Clear the lines of batches that production has read and all of whose rows lie before a moment."""
        parameters = {"before": before, "cursor": cursor.batch_no}
        with self._database.transaction() as transaction:
            row = transaction.fetch_one(_SQL["find_first_batch_to_keep"], parameters)
            oldest = transaction.fetch_one(_SQL["find_oldest_batch"])
        first_kept = 0 if row is None else int(row[0])
        if oldest is None or oldest[0] is None or self._dry_run:
            return self.clear("batches", "batches_below", batch_no=first_kept)
        cleared = 0
        for below in range(int(oldest[0]), first_kept, _BATCHES_AT_ONCE):
            step = min(below + _BATCHES_AT_ONCE, first_kept)
            cleared += self.clear("batches", "batches_below", batch_no=step).rows
        return Cleared(self._name, "batches", cleared)

    def drop_partitions(self, table: str, before: datetime) -> Cleared:
        """Drop the partitions of a table of records that end by a moment."""
        rows = 0
        for old in find_old_partitions(self._database, table, CLOSE_TABLES[table].time_column, before):
            with suppress(HourRefused):  # in use: the next run clears it
                count = sum(count_rows(self._database, old).values())
                if not self._dry_run:
                    drop_records(self._database, old)
                rows += count
        return Cleared(self._name, table, rows)

    def _run(self, transaction: Transaction, table: str, clause: str, parameters: Mapping[str, object]) -> int:
        if not self._dry_run:
            return transaction.execute(_SQL["delete_lines"].format(table=table, clause=_SQL[clause]), parameters)
        counted = transaction.fetch_one(_SQL["count_lines"].format(table=table, clause=_SQL[clause]), parameters)
        return 0 if counted is None else int(counted[0])


def clear_gatherer(
    clearer: Clearer, before: datetime, records_before: datetime | None, cursor: GathererCursor | None
) -> Iterator[Cleared]:
    """Clear a gatherer's ledger below `before`, the oldest rows that it still has, and its records below the other."""
    yield from clearer.clear_streams(before - MARGIN)
    yield clearer.clear("sessions", "closed_sessions", before=before - MARGIN)
    yield clearer.clear("snapshot_polls", "old_polls", before=before - MARGIN)
    if cursor is not None:
        yield clearer.clear_batches(before - MARGIN, cursor)
    if records_before is not None:
        yield clearer.clear("dropped_hours", "of_old_hours", before=records_before)
        yield clearer.clear("heartbeats", "not_heard_of", before=records_before)


def clear_production(clearer: Clearer, before: datetime, records_before: datetime | None) -> Iterator[Cleared]:
    """Clear what was claimed of hours below `before`, the oldest deltas that are left, and records below the other."""
    yield clearer.drop_partitions("stream_claims", before)
    for table in _OF_CLAIMS:
        yield clearer.clear(table, "of_old_hours", before=before)
    yield clearer.clear("lake_verifications", "of_old_partitions", before=before - _VERIFICATIONS_STAY)
    if records_before is None:
        return
    yield clearer.drop_partitions("book_proofs", records_before)
    for table in _OF_HOURS:
        yield clearer.clear(table, "of_old_hours", before=records_before)
    for table, clause in _BY_TIME.items():
        yield clearer.clear(table, clause, before=records_before)
