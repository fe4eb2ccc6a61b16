"""Makes a finished run again from the gatherers' journals, in empty databases, and compares it with what was recorded.

Each gatherer's rows and ledger must come out the same, and so must production, merged again from the rebuilt ones.
Batch numbers are not compared: where one commit ends and the next begins is chance.
"""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from kalshi_platform.storage.pool import Database

REBUILD_S = 600.0
_NAME = "rebuilt"
_LEDGER = (
    "sessions", "streams", "book_subscriptions", "sequence_gaps", "unknown_frames", "dead_letter_counts",
)  # fmt: skip
_SEGMENTS = (
    "SELECT (stream_id, range_agg(int8range(seq_from, seq_to, '[]')))::text FROM stream_segments GROUP BY stream_id"
)
"""Numbers of a stream, wherever its segments touch."""
_PRODUCTION: Mapping[str, tuple[str, ...]] = {
    "orderbook_deltas": PRODUCTION_TABLES["orderbook_deltas"].key,
    "trades": ("ticker", "trade_id"),
    "tickers": PRODUCTION_TABLES["tickers"].key,
    "orderbook_snapshots": PRODUCTION_TABLES["orderbook_snapshots"].key,
    "market_lifecycle": ("ticker", "event_type", "fingerprint"),
}
"""What names a row in production, whichever gatherer it was merged from first."""
_FROM_STREAM = {"trades": "source = 'ws'"}
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
    statements = {
        table.name: _select(table) for table in (*GATHERER_TABLES.values(), *map(ledger.__getitem__, _LEDGER))
    }
    statements["stream_segments"] = _SEGMENTS
    return [
        _compare(name, table, _rows(recorded_url, statement), _rows(rebuilt_url, statement))
        for table, statement in statements.items()
    ]


def compare_production(recorded_url: str, rebuilt_url: str) -> list[RebuiltTable]:
    """Compare two production databases by what names their rows."""
    compared = []
    for name, key in _PRODUCTION.items():
        statement = f"SELECT DISTINCT ({', '.join(key)})::text FROM {name}"  # noqa: S608 - names of our own
        where = _FROM_STREAM.get(name)
        recorded = _rows(recorded_url, statement if where is None else f"{statement} WHERE {where}")
        compared.append(_compare("production", name, recorded, _rows(rebuilt_url, statement)))
    return compared


def _select(table: Table) -> str:
    columns = ", ".join(column.name for column in table.columns if column.name != "batch_no")
    statement = f"SELECT ({columns})::text FROM {table.name}"  # noqa: S608 - names of our own
    if not table.time_column:
        return statement
    dropped = f"SELECT hour FROM dropped_hours WHERE table_name = '{table.name}'"  # noqa: S608 - likewise
    return f"{statement} WHERE date_trunc('hour', {table.time_column}) NOT IN ({dropped})"


def _compare(of: str, name: str, recorded: Counter[str], rebuilt: Counter[str]) -> RebuiltTable:
    missing, extra = recorded - rebuilt, rebuilt - recorded
    example = next(iter([*missing, *extra]), "")
    return RebuiltTable(of, name, recorded.total(), missing.total(), extra.total(), example[:300])


def _rows(url: str, statement: str) -> Counter[str]:
    database = Database(url, name="proof", pool_size=1)
    try:
        with database.transaction() as transaction:
            return Counter(row[0] for row in transaction.fetch_all(statement))
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
