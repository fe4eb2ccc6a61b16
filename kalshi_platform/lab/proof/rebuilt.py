"""Makes a finished run again from the gatherers' journals, in empty databases, and compares it with what was recorded.

Each gatherer's rows and ledger must come out the same, and so must production, merged again from the rebuilt ones.
Batch numbers are not compared: where one commit ends and the next begins is chance.
"""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from kalshi_platform.clock import Clock
from kalshi_platform.config import PlatformSettings
from kalshi_platform.deduplicator.merge.merge_pass import Merger
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.gatherer.ingest.fence import Fence
from kalshi_platform.gatherer.ingest.ingest import Ingest
from kalshi_platform.gatherer.journal.segments import FOLDER
from kalshi_platform.gatherer.journal.writer import JournalLimits, open_journal
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.lab.proof.errors import ProofFailed
from kalshi_platform.local.postgres.server import PostgresServer
from kalshi_platform.market.tables import GATHERER_TABLES, PRODUCTION_TABLES, Table
from kalshi_platform.market.tables.ledger import LEDGER
from kalshi_platform.storage.migrate import migrate
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database, Transaction

REBUILD_S = 600.0
_NAME = "rebuilt"
_LEDGER = (
    "sessions", "streams", "book_subscriptions", "sequence_gaps", "unknown_frames", "dead_letter_counts",
)  # fmt: skip
_SEGMENTS = (
    "SELECT (stream_id, range_agg(int8range(seq_from, seq_to, '[]')))::text FROM stream_segments GROUP BY stream_id"
)
"""Numbers of a stream, wherever its segments touch."""
_BY_KEY = ("orderbook_deltas", "tickers", "orderbook_snapshots")
"""Tables of production whose key names a row, whichever gatherer it was merged from first."""
_BY_CONTENT: Mapping[str, tuple[str, ...]] = {
    "trades": ("ticker", "trade_id"), "market_lifecycle": ("ticker", "event_type", "fingerprint"),
}  # fmt: skip
_FROM_STREAM = {"trades": "WHERE source = 'ws'"}
"""Rows that come from gatherers; others were read from REST when the hour was closed."""


@dataclass(frozen=True)
class RebuiltTable:
    """Rows of one table as recorded and as rebuilt; `missing` are in the recorded one alone, `extra` in the other."""

    of: str
    name: str
    recorded: int
    missing: int
    extra: int
    example: str = ""


@dataclass(frozen=True)
class RebuiltRun:
    """All tables that were compared."""

    tables: Sequence[RebuiltTable] = ()

    @property
    def rows(self) -> int:
        """Rows that were compared."""
        return sum(table.recorded for table in self.tables)

    @property
    def problems(self) -> list[str]:
        """Return a clause for each table that differs."""
        return [
            f"{each.of}: {each.name} rebuilt from the journal lacks {each.missing:,} of {each.recorded:,} rows and has"
            f" {each.extra:,} others, as {each.example}"
            for each in self.tables
            if each.missing or each.extra
        ]


def rebuild_run(
    settings: PlatformSettings, server: Callable[[str], PostgresServer], folder: Path, clock: Clock
) -> RebuiltRun:
    """Ingest a copy of each journal into an empty database beside the gatherer's, merge these again, and compare.

    `server` returns the server of a gatherer or of production. Raises ProofFailed, DatabaseUnavailable.
    """
    tables: list[RebuiltTable] = []
    sources: list[GathererSource] = []
    for name, gatherer in settings.gatherers.items():
        url = _empty_database(server(name), "timeseries")
        shutil.copytree(gatherer.folder / FOLDER, folder / name / FOLDER)
        ingest_journal(replace(gatherer, timeseries_url=url, state_dir=folder), settings.bounds, clock)
        tables += compare_gatherer(name, gatherer.timeseries_url, url)
        sources.append(GathererSource(name, url, gatherer.catalog_url))
    production = _empty_database(server("production"), "production")
    _merge(replace(settings.deduplicator, production_url=production, sources=tuple(sources)), clock, settings.bounds)
    tables += compare_production(settings.deduplicator.production_url, production)
    return RebuiltRun(tables)


def ingest_journal(settings: GathererSettings, bounds: PartitionBounds, clock: Clock) -> None:
    """Ingest the whole journal in the gatherer's folder. Raises ProofFailed where it does not come to its end."""
    database = Database(settings.timeseries_url, name=f"{settings.name} rebuilt", pool_size=2)
    journal = open_journal(settings.folder / FOLDER, settings.name, clock, limits=JournalLimits(min_free_bytes=0))
    ingest = Ingest(settings, database, bounds, clock, journal, Fence(journal.journal_id))
    try:
        ingest.start()
        stop = threading.Event()
        deadline = clock.monotonic() + REBUILD_S
        while not ingest.is_settled and clock.monotonic() < deadline:
            clock.wait(stop, 0.05)
        if not ingest.stop(5.0):
            raise ProofFailed(f"the journal of {settings.name} was not ingested within {REBUILD_S:.0f} s")
    finally:
        journal.close()
        database.dispose()


def compare_gatherer(name: str, recorded_url: str, rebuilt_url: str) -> list[RebuiltTable]:
    """Compare all rows, and the ledger, of two timeseries databases; hours that one of them dropped are left out."""
    ledger = {table.name: table for table in LEDGER}
    with _opened(recorded_url) as recorded, _opened(rebuilt_url) as rebuilt:
        compared = [_compare_timed(name, _rows_of(table), recorded, rebuilt) for table in GATHERER_TABLES.values()]
        statements = {table: _rows_of(ledger[table]).statement for table in _LEDGER}
        statements["stream_segments"] = _SEGMENTS
        compared += [
            _difference(name, table, _fetch(recorded, statement), _fetch(rebuilt, statement))
            for table, statement in statements.items()
        ]
    return compared


def compare_production(recorded_url: str, rebuilt_url: str) -> list[RebuiltTable]:
    """Compare two production databases by what names their rows."""
    with _opened(recorded_url) as recorded, _opened(rebuilt_url) as rebuilt:
        compared = [
            _compare_timed(
                "production", _rows_of(PRODUCTION_TABLES[name], PRODUCTION_TABLES[name].key), recorded, rebuilt
            )
            for name in _BY_KEY
        ]
        for name, key in _BY_CONTENT.items():
            statement = f"SELECT DISTINCT ({', '.join(key)})::text FROM {name}"  # noqa: S608 - names of our own
            where = _FROM_STREAM.get(name, "")
            found = _fetch(recorded, f"{statement} {where}"), _fetch(rebuilt, statement)
            compared.append(_difference("production", name, *found))
    return compared


@dataclass(frozen=True)
class _Rows:
    """How the rows of a table are read as texts: all of them, or by minute."""

    table: str
    columns: str
    time_column: str
    where: str

    @property
    def statement(self) -> str:
        return f"SELECT ({self.columns})::text FROM {self.table} {self.where}"  # noqa: S608 - names of our own

    @property
    def sums(self) -> str:
        """Per minute: how many rows, and the sum of their hashes."""
        hashed = f"hashtextextended(({self.columns})::text, 0)::numeric"
        return f"SELECT {self._minute}, count(*), sum({hashed}) FROM {self.table} {self.where} GROUP BY 1"  # noqa: S608

    @property
    def of_minute(self) -> str:
        return f"{self.statement} {'AND' if self.where else 'WHERE'} {self._minute} = %s"

    @property
    def _minute(self) -> str:
        return f"date_trunc('minute', {self.time_column})"


def _rows_of(table: Table, columns: Sequence[str] = ()) -> _Rows:
    names = columns or [column.name for column in table.columns if column.name != "batch_no"]
    where = ""
    if table.time_column:
        dropped = f"SELECT hour FROM dropped_hours WHERE table_name = '{table.name}'"  # noqa: S608 - likewise
        where = f"WHERE date_trunc('hour', {table.time_column}) NOT IN ({dropped})"
    return _Rows(table.name, ", ".join(names), table.time_column, where)


def _compare_timed(of: str, rows: _Rows, recorded: Transaction, rebuilt: Transaction) -> RebuiltTable:
    """Compare minute by minute: rows are only read of those that differ."""
    sums = [{row[0]: row[1:] for row in each.fetch_all(rows.sums)} for each in (recorded, rebuilt)]
    different = sorted(
        minute for minute in sums[0].keys() | sums[1].keys() if sums[0].get(minute) != sums[1].get(minute)
    )
    found: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for minute in different:
        of_minute = [_fetch(each, rows.of_minute, (minute,)) for each in (recorded, rebuilt)]
        found[0].update(of_minute[0] - of_minute[1])
        found[1].update(of_minute[1] - of_minute[0])
    return replace(_difference(of, rows.table, *found), recorded=sum(count for count, _ in sums[0].values()))


def _difference(of: str, name: str, recorded: Counter[str], rebuilt: Counter[str]) -> RebuiltTable:
    missing, extra = recorded - rebuilt, rebuilt - recorded
    example = next(iter([*missing, *extra]), "")
    return RebuiltTable(of, name, recorded.total(), missing.total(), extra.total(), example[:300])


def _fetch(transaction: Transaction, statement: str, params: Sequence[object] = ()) -> Counter[str]:
    return Counter(row[0] for row in transaction.fetch_all(statement, params or None))


@contextmanager
def _opened(url: str) -> Iterator[Transaction]:
    database = Database(url, name="proof", pool_size=1)
    try:
        with database.transaction() as transaction:
            yield transaction
    finally:
        database.dispose()


def _empty_database(server: PostgresServer, kind: str) -> str:
    name = f"{_NAME}_{kind}"
    server.create_database(name)
    url = server.url(name)
    database = Database(url, name=name)
    try:
        migrate(database, "production" if kind == "production" else "timeseries")
    finally:
        database.dispose()
    return url


def _merge(settings: DeduplicatorSettings, clock: Clock, bounds: PartitionBounds) -> None:
    merger = Merger(settings, clock, bounds)
    try:
        while merger.merge_new().behind:
            pass
    finally:
        merger.dispose()
