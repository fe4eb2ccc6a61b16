"""Series, events and markets of all gatherers → production: of each object the newest knowledge, and one history.

Compares instead of remembering where it stopped, so it may run at any time, any number of times, with any gatherer
away, and ends with the same rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import polars as pl

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.catalog_history import HistoryChanges, changes
from kalshi_platform.deduplicator.merge import reason_of
from kalshi_platform.deduplicator.readers import Readers
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.deduplicator.source import check_source
from kalshi_platform.storage.migrate import check
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.read import arrow_snapshot

CATALOG_TABLES = ("series", "events", "markets")
# About 3 MB of payloads.
_ROWS_AT_ONCE = 1_000
_MORE = {
    "series": "",
    "events": "",
    "markets": ", result IS NOT NULL AS has_end, status = 'vanished' AND result IS NULL AS lost_end",
}
_LOCK = "kalshi-platform merge of the catalog"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CatalogTableMerge:
    """One table: objects that were new or known more newly, and versions written, ended otherwise or dropped."""

    updated: int = 0
    versions_written: int = 0
    versions_ended: int = 0
    versions_dropped: int = 0


@dataclass(frozen=True)
class CatalogMergeReport:
    """What a merge of the catalogs did; `missed`: gatherers whose catalog could not be read, and why."""

    started_at: datetime
    finished_at: datetime
    tables: Mapping[str, CatalogTableMerge] = field(default_factory=dict)
    missed: Mapping[str, str] = field(default_factory=dict)
    is_empty: bool = False
    """Whether no gatherer knows a market yet."""

    @property
    def rows_changed(self) -> int:
        return sum(table.updated for table in self.tables.values())


@dataclass(frozen=True)
class _Known:
    """What a catalog knows, without the payloads: by table (ticker, known_at, first_seen_at), and the versions.

    Of markets also whether their result is known (`has_end`), and whether they vanished without it (`lost_end`).
    """

    objects: Mapping[str, pl.DataFrame]
    versions: Mapping[str, pl.DataFrame]


def merge_catalog(settings: DeduplicatorSettings, clock: Clock) -> CatalogMergeReport:
    """Bring production's catalog up to date.

    Raises DatabaseUnavailable when production is away, SchemaMismatch when it is not migrated; such a gatherer is
    missed.
    """
    started_at = clock.now()
    _check_production(settings)
    readers: Readers[_Known] = Readers(clock)
    known, errors = readers.ask(
        {source.name: partial(_known_by, source) for source in settings.sources}, settings.close_timeout_s
    )
    missed = {name: reason_of(error) for name, error in errors.items()}
    for name, reason in missed.items():
        _log.warning("the catalog of %s cannot be read and is skipped: %s", name, reason)
    production = Database(settings.production_url, name="production", pool_size=1)
    sources = {
        source.name: Database(source.catalog_url, name=f"{source.name} catalog", pool_size=1)
        for source in settings.sources
        if source.name in known
    }
    try:
        here = _known(settings.production_url)
        tables = {table: _merge_table(table, known, here, sources, production) for table in CATALOG_TABLES}
    finally:
        production.dispose()
        for database in sources.values():
            database.dispose()
    is_empty = all(found.objects["markets"].is_empty() for found in known.values())
    return CatalogMergeReport(started_at, clock.now(), tables, missed, is_empty)


def newest(by_gatherer: Mapping[str, pl.DataFrame], here: pl.DataFrame) -> pl.DataFrame:
    """Which gatherer knows an object better than production: (ticker, source), for those that one does.

    The frames have ticker and known_at; of equal moments the first gatherer by name is taken. With has_end and
    lost_end: who was away when a market ended, and found it deleted, knows less than anybody who heard of its end.
    """
    frames = [_judged(frame).with_columns(source=pl.lit(name)) for name, frame in by_gatherer.items()]
    if not frames:
        return pl.DataFrame(schema={"ticker": pl.String, "source": pl.String})
    stored = _judged(here).with_columns(source=pl.lit(None, pl.String))
    return (
        pl.concat([*frames, stored])
        .filter(~(pl.col("lost_end") & pl.col("has_end").any().over("ticker")))
        # Of equal moments production's own row is the first.
        .sort(["known_at", "source"], descending=[True, False], nulls_last=False, maintain_order=True)
        .unique("ticker", keep="first", maintain_order=True)
        .filter(pl.col("source").is_not_null())
        .select("ticker", "source")
        .sort("ticker")
    )


def _judged(objects: pl.DataFrame) -> pl.DataFrame:
    names = ("has_end", "lost_end")
    missing = [pl.lit(value=False).alias(name) for name in names if name not in objects.columns]
    return objects.with_columns(*missing).select("ticker", "known_at", *names)


def earlier(by_gatherer: Mapping[str, pl.DataFrame], here: pl.DataFrame) -> pl.DataFrame:
    """Objects of production that a gatherer saw before production says: (ticker, first_seen_at)."""
    if not by_gatherer:
        return here.select("ticker", "first_seen_at").clear()
    first = pl.concat(by_gatherer.values()).group_by("ticker").agg(pl.col("first_seen_at").min())
    stored = here.select("ticker", pl.col("first_seen_at").alias("_stored"))
    return first.join(stored, on="ticker").filter(pl.col("first_seen_at") < pl.col("_stored")).drop("_stored")


def _merge_table(
    table: str, known: Mapping[str, _Known], here: _Known, sources: Mapping[str, Database], production: Database
) -> CatalogTableMerge:
    columns = _columns(production, table)
    better = newest({name: found.objects[table] for name, found in known.items()}, here.objects[table])
    updated = 0
    for (name,), part in better.group_by("source", maintain_order=True):
        for tickers in _chunks(part["ticker"].to_list()):
            rows = _select(sources[str(name)], table, columns, tickers)
            with _writing(production) as transaction:
                updated += _upsert(transaction, table, columns, rows)
    _set_first_seen(
        production, table, earlier({name: found.objects[table] for name, found in known.items()}, here.objects[table])
    )
    versions = changes({name: found.versions[table] for name, found in known.items()}, here.versions[table])
    _write_history(f"{table}_history", versions, sources, production)
    return CatalogTableMerge(updated, versions.write.height, versions.end.height, versions.drop.height)


def _check_production(settings: DeduplicatorSettings) -> None:
    production = Database(settings.production_url, name="production", pool_size=1)
    try:
        check(production, "production")
    finally:
        production.dispose()


def _known_by(source: GathererSource) -> _Known:
    check_source(source, "catalog")
    return _known(source.catalog_url)


def _known(url: str) -> _Known:
    with arrow_snapshot(url) as snapshot:
        objects = {
            table: _frame(snapshot.table(f"SELECT ticker, known_at, first_seen_at{_MORE[table]} FROM {table}"))  # noqa: S608 - our own names
            for table in CATALOG_TABLES
        }
        versions = {
            table: _frame(
                snapshot.table(f"SELECT ticker, valid_from, valid_to, fingerprint FROM {table}_history")  # noqa: S608
            )
            for table in CATALOG_TABLES
        }
    return _Known(objects, versions)


def _write_history(table: str, versions: HistoryChanges, sources: Mapping[str, Database], production: Database) -> None:
    columns = [name for name in _columns(production, table) if name != "valid_to"]
    for (name,), part in versions.write.group_by("source", maintain_order=True):
        for chunk in _chunks(part.rows()):
            ends = {(ticker, valid_from): valid_to for ticker, valid_from, valid_to, _ in chunk}
            rows = _select(sources[str(name)], table, columns, sorted({ticker for ticker, *_ in chunk}))
            place = columns.index("ticker"), columns.index("valid_from")
            taken = [(*row, ends[key]) for row in rows if (key := (row[place[0]], row[place[1]])) in ends]
            with _writing(production) as transaction:
                names = [*columns, "valid_to"]
                updates = ", ".join(
                    f"{name} = excluded.{name}" for name in names if name not in ("ticker", "valid_from")
                )
                transaction.execute_values(
                    f"INSERT INTO {table} ({', '.join(names)}) VALUES %s"  # noqa: S608 - names of our own schema
                    f" ON CONFLICT (ticker, valid_from) DO UPDATE SET {updates}",
                    taken,
                )
    for chunk in _chunks(versions.end.rows()):
        with _writing(production) as transaction:
            transaction.execute_values(
                f"UPDATE {table} h SET valid_to = v.valid_to FROM (VALUES %s) AS v (ticker, valid_from, valid_to)"  # noqa: S608
                " WHERE h.ticker = v.ticker AND h.valid_from = v.valid_from",
                chunk,
                "(%s::text, %s::timestamptz, %s::timestamptz)",
            )
    for chunk in _chunks(versions.drop.rows()):
        with _writing(production) as transaction:
            transaction.execute_values(
                f"DELETE FROM {table} h USING (VALUES %s) AS v (ticker, valid_from)"  # noqa: S608
                " WHERE h.ticker = v.ticker AND h.valid_from = v.valid_from",
                chunk,
                "(%s::text, %s::timestamptz)",
            )


def _upsert(transaction: Transaction, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> int:
    """Write rows that are known more newly; an object keeps the earliest moment at which anybody saw it."""
    updates = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in ("ticker", "first_seen_at"))
    newer = "t.known_at < excluded.known_at"
    if table == "markets":  # as `newest` has it
        lost = "{0}.status = 'vanished' AND {0}.result IS NULL AND {1}.result IS NOT NULL"
        newer = (
            f"CASE WHEN {lost.format('t', 'excluded')} THEN true WHEN {lost.format('excluded', 't')} THEN false"
            f" ELSE {newer} END"
        )
    return transaction.execute_values(
        f"INSERT INTO {table} AS t ({', '.join(columns)}) VALUES %s ON CONFLICT (ticker) DO UPDATE SET {updates},"  # noqa: S608
        f" first_seen_at = least(t.first_seen_at, excluded.first_seen_at) WHERE {newer}",
        rows,
    )


def _set_first_seen(production: Database, table: str, moments: pl.DataFrame) -> None:
    for chunk in _chunks(moments.rows()):
        with _writing(production) as transaction:
            transaction.execute_values(
                f"UPDATE {table} t SET first_seen_at = v.at FROM (VALUES %s) AS v (ticker, at)"  # noqa: S608
                " WHERE t.ticker = v.ticker",
                chunk,
                "(%s::text, %s::timestamptz)",
            )


def _columns(database: Database, table: str) -> list[str]:
    """The columns of a table of the catalog: the same in gatherers and production, made by the same SQL."""
    with database.transaction() as transaction:
        rows = transaction.fetch_all(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
            " ORDER BY attnum",
            (table,),
        )
    return [str(row[0]) for row in rows]


def _select(database: Database, table: str, columns: Sequence[str], tickers: Sequence[str]) -> list[tuple[Any, ...]]:
    values = ", ".join(f"{name}::text" if name == "payload" else name for name in columns)
    with database.transaction() as transaction:
        return transaction.fetch_all(
            f"SELECT {values} FROM {table} WHERE ticker = ANY (%s) ORDER BY ticker",  # noqa: S608 - our own names
            (list(tickers),),
        )


@contextmanager
def _writing(production: Database) -> Iterator[Transaction]:
    """A transaction in which nobody else merges catalogs: two merges at once would wait for each other's rows."""
    with production.transaction() as transaction:
        transaction.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (_LOCK,))
        yield transaction


def _chunks(rows: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield list(rows[start : start + _ROWS_AT_ONCE])


def _frame(table: Any) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table))
