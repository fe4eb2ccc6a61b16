"""Merges series, events and markets of all gatherers into production: the newest knowledge of each, one history.

Each catalog numbers its changes, and production remembers up to which number it was read: what did not change since is
not read again. What changed anywhere is compared between all gatherers and production, a thousand objects at a time. So
a merge may run at any time, any number of times, with any gatherer away, and ends with the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.catalog import source as catalog_source
from kalshi_platform.deduplicator.catalog.history import HistoryChanges, compare_histories
from kalshi_platform.deduplicator.catalog.source import NAMES_AT_ONCE, ChangeRange, Position
from kalshi_platform.deduplicator.merge.parallel_read import ParallelReader, describe_read_error
from kalshi_platform.deduplicator.settings import DeduplicatorSettings
from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.migrate import check
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

CATALOG_TABLES = ("series", "events", "markets")
# About 3 MB of payloads.
_ROWS_AT_ONCE = 1_000
_LOCK = "kalshi-platform merge of the catalog"
Result = TypeVar("Result")
_log = event_logger(__name__)


@dataclass(frozen=True)
class CatalogTableMerge:
    """What was merged of one table.

    Objects compared because they changed somewhere, of these objects that were new or known more newly, and versions
    written, ended otherwise or dropped.
    """

    compared: int = 0
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
        """Rows of all tables that are new or carry newer knowledge."""
        return sum(table.updated for table in self.tables.values())


def merge_catalog(settings: DeduplicatorSettings, clock: Clock) -> CatalogMergeReport:
    """Bring production's catalog up to date.

    Raises DatabaseUnavailable when production is away, SchemaMismatch when it is not migrated; such a gatherer is
    missed.
    """
    started_at = clock.now()
    production = Database(settings.production_url, name="production", pool_size=1)
    try:
        check(production, "production")
        with production.transaction() as transaction:
            positions = _load_positions(transaction)
        reader: ParallelReader[ChangeRange] = ParallelReader(clock)
        found, errors = reader.gather(
            {
                source.name: partial(catalog_source.read_change_range, source, positions.get(source.name))
                for source in settings.sources
            },
            settings.close_timeout_s,
        )
        merge = _Merge(settings, production, positions, found)
        for name, error in errors.items():
            merge.skip(name, error)
        try:
            tables = {table: merge.table(table) for table in CATALOG_TABLES}
            merge.advance_cursors()
        finally:
            merge.close()
    finally:
        production.dispose()
    is_empty = not any(each.has_markets for each in found.values())
    return CatalogMergeReport(started_at, clock.now(), tables, merge.missed, is_empty)


def find_newest(by_gatherer: Mapping[str, pl.DataFrame], here: pl.DataFrame) -> pl.DataFrame:
    """Find which gatherer knows an object better than production: (ticker, source), for those that one does.

    The frames have ticker and known_at; of equal moments the first gatherer by name is taken. With has_end and
    lost_end: a gatherer that was away when a market ended, and found it deleted, knows less than one that saw its end.
    """
    frames = [_with_ends(frame).with_columns(source=pl.lit(name)) for name, frame in by_gatherer.items()]
    if not frames:
        return pl.DataFrame(schema={"ticker": pl.String, "source": pl.String})
    stored = _with_ends(here).with_columns(source=pl.lit(None, pl.String))
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


def _with_ends(objects: pl.DataFrame) -> pl.DataFrame:
    names = ("has_end", "lost_end")
    missing = [pl.lit(value=False).alias(name) for name in names if name not in objects.columns]
    return objects.with_columns(*missing).select("ticker", "known_at", *names)


def find_seen_earlier(by_gatherer: Mapping[str, pl.DataFrame], here: pl.DataFrame) -> pl.DataFrame:
    """Find objects of production that a gatherer saw before production says: (ticker, first_seen_at)."""
    if not by_gatherer:
        return here.select("ticker", "first_seen_at").clear()
    first = pl.concat(by_gatherer.values()).group_by("ticker").agg(pl.col("first_seen_at").min())
    stored = here.select("ticker", pl.col("first_seen_at").alias("_stored"))
    return first.join(stored, on="ticker").filter(pl.col("first_seen_at") < pl.col("_stored")).drop("_stored")


class _GathererUnavailable(Exception):
    """A gatherer could not be read in the middle of a chunk, which is begun again without it."""

    def __init__(self, name: str, error: KalshiPlatformError) -> None:
        super().__init__(name)
        self.name = name
        self.error = error


class _Merge:
    """One merge. Production's transactions hold a lock that other merges of catalogs wait for, chunk by chunk."""

    def __init__(
        self,
        settings: DeduplicatorSettings,
        production: Database,
        positions: Mapping[str, Position],
        found: Mapping[str, ChangeRange],
    ) -> None:
        self.missed: dict[str, str] = {}
        self._production = production
        self._positions = positions
        self._news = dict(found)
        self._sources = {
            source.name: Database(
                source.catalog_url, name=f"{source.name} catalog", pool_size=1,
                statement_timeout_s=settings.close_timeout_s,
            )
            for source in settings.sources
            if source.name in found
        }  # fmt: skip

    def skip(self, name: str, error: Exception) -> None:
        """Go on without a gatherer."""
        self.missed[name] = describe_read_error(error)
        self._news.pop(name, None)
        _log.warning("catalog_skipped", gatherer=name, error=self.missed[name])

    def close(self) -> None:
        for database in self._sources.values():
            database.dispose()

    def table(self, table: str) -> CatalogTableMerge:
        """Merge one of the three tables and its history."""
        with self._production.transaction() as transaction:
            columns = catalog_source.read_columns(transaction, table)
            history_columns = catalog_source.read_columns(transaction, f"{table}_history")
        total = CatalogTableMerge()
        for names in self._changed(table):
            for tickers in _chunks(names):
                done = self._retry_without_unavailable(partial(self._chunk, table, tickers, columns, history_columns))
                total = CatalogTableMerge(
                    *(a + b for a, b in zip(vars(total).values(), vars(done).values(), strict=True))
                )
        return total

    def advance_cursors(self) -> None:
        """Record how far those gatherers were read that were readable to the end."""
        with _merge_transaction(self._production) as transaction:
            for name, news in self._news.items():
                was = self._positions.get(name)
                if was != news.until:
                    _advance_cursor(transaction, name, was, news.until)

    def _changed(self, table: str) -> Iterator[list[str]]:
        """Yield tickers, ascending, of objects that changed somewhere or that some gatherer is yet to be read for."""
        beyond = ""
        while True:
            pages = self._retry_without_unavailable(partial(self._pages, table, beyond))
            # Beyond the end of a page that is full, more may follow of its catalog.
            ends = [page[-1] for page in pages if len(page) == NAMES_AT_ONCE]
            end = min(ends) if ends else None
            yield sorted({ticker for page in pages for ticker in page if end is None or ticker <= end})
            if end is None:
                return
            beyond = end

    def _pages(self, table: str, beyond: str) -> list[list[str]]:
        pages = [
            self._read(name, partial(catalog_source.read_changed_tickers, table=table, after=news.after, beyond=beyond))
            for name, news in self._news.items()
        ]
        with self._production.transaction() as transaction:
            rows = transaction.fetch_all(_SQL["find_pending_tickers"], (list(self._news), table, beyond, NAMES_AT_ONCE))
        return [*pages, [ticker for (ticker,) in rows]]

    def _chunk(
        self, table: str, tickers: Sequence[str], columns: Sequence[str], history_columns: Sequence[str]
    ) -> CatalogTableMerge:
        """Compare some objects between all gatherers and production, and write what differs."""
        known = {
            name: self._read(name, partial(catalog_source.read_objects, table=table, tickers=tickers))
            for name in self._news
        }
        learned = {
            name: self._read(name, partial(catalog_source.read_versions, table=table, tickers=tickers))
            for name in self._news
        }
        with _merge_transaction(self._production) as transaction:
            here = catalog_source.read_objects(transaction, table, tickers)
            updated = 0
            for (name,), part in find_newest(known, here).group_by("source", maintain_order=True):
                names = part["ticker"].to_list()
                rows = self._read(
                    str(name), partial(catalog_source.read_object_rows, table=table, columns=columns, tickers=names)
                )
                updated += _upsert(transaction, table, columns, rows)
            _set_first_seen(transaction, table, find_seen_earlier(known, here))
            versions = compare_histories(learned, catalog_source.read_versions(transaction, table, tickers))
            self._write_history(transaction, table, history_columns, versions)
            self._record_pending(transaction, table, tickers)
        return CatalogTableMerge(
            len(tickers), updated, versions.write.height, versions.end.height, versions.drop.height
        )

    def _write_history(
        self, transaction: Transaction, table: str, columns: Sequence[str], versions: HistoryChanges
    ) -> None:
        taken = [name for name in columns if name != "valid_to"]
        place = taken.index("ticker"), taken.index("valid_from")
        updates = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in ("ticker", "valid_from"))
        for (name,), part in versions.write.group_by("source", maintain_order=True):
            for chunk in _chunks(part.rows()):
                ends = {(ticker, valid_from): valid_to for ticker, valid_from, valid_to, _ in chunk}
                rows = self._read(
                    str(name), partial(catalog_source.read_version_rows, table=table, columns=taken, keys=list(ends))
                )
                transaction.execute_values(
                    _SQL["upsert_versions"].format(table=table, columns=", ".join(taken), updates=updates),
                    [(*row, ends[row[place[0]], row[place[1]]]) for row in rows],
                )
        transaction.execute_values(
            _SQL["end_versions"].format(table=table),
            versions.end.rows(),
            "(%s::text, %s::timestamptz, %s::timestamptz)",
        )
        transaction.execute_values(
            _SQL["delete_versions"].format(table=table), versions.drop.rows(), "(%s::text, %s::timestamptz)"
        )

    def _record_pending(self, transaction: Transaction, table: str, tickers: Sequence[str]) -> None:
        """Record for which gatherers these objects were read, and for which they are still pending.

        A version that was left out because another one said the same may count once others change: so a
        gatherer that was missed is read again. One that was never read will be read from its beginning anyway.
        """
        transaction.execute(_SQL["delete_pending"], (list(self._news), table, list(tickers)))
        transaction.execute(
            _SQL["insert_pending"], (table, [name for name in self.missed if name in self._positions], list(tickers))
        )

    def _read(self, name: str, task: Callable[[Transaction], Result]) -> Result:
        try:
            with self._sources[name].transaction() as transaction:
                return task(transaction)
        except KalshiPlatformError as error:
            raise _GathererUnavailable(name, error) from error

    def _retry_without_unavailable(self, step: Callable[[], Result]) -> Result:
        while True:
            try:
                return step()
            except _GathererUnavailable as away:
                self.skip(away.name, away.error)


def _upsert(transaction: Transaction, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> int:
    """Write rows that are known more newly; an object keeps the earliest moment at which a gatherer saw it."""
    updates = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in ("ticker", "first_seen_at"))
    statement = _SQL["upsert_markets" if table == "markets" else "upsert_objects"]
    return transaction.execute_values(statement.format(table=table, columns=", ".join(columns), updates=updates), rows)


def _set_first_seen(transaction: Transaction, table: str, moments: pl.DataFrame) -> None:
    transaction.execute_values(
        _SQL["set_first_seen"].format(table=table), moments.rows(), "(%s::text, %s::timestamptz)"
    )


def _load_positions(transaction: Transaction) -> dict[str, Position]:
    rows = transaction.fetch_all(_SQL["read_cursors"])
    return {name: Position(change_no, token) for name, change_no, token in rows}


def _advance_cursor(transaction: Transaction, gatherer: str, was: Position | None, until: Position) -> None:
    """Move a cursor, unless another merge moved it meanwhile (then its progress stays)."""
    transaction.execute(
        _SQL["advance_cursor"],
        {
            "gatherer": gatherer,
            "until": until.change_no,
            "token": until.token,
            "was": None if was is None else was.change_no,
            "was_token": None if was is None else was.token,
        },
    )


@contextmanager
def _merge_transaction(production: Database) -> Iterator[Transaction]:
    """A transaction in which no other merge of catalogs writes: two merges at once would wait for each other's rows."""
    with production.transaction() as transaction:
        transaction.execute(_SQL["lock_merge"], (_LOCK,))
        yield transaction


def _chunks(rows: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield list(rows[start : start + _ROWS_AT_ONCE])
