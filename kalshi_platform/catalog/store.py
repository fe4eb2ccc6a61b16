"""Stores series, events and markets in the catalog database: current versions and history.

Every write carries `known_at`, the moment of the request to the exchange: an older version never replaces a newer one,
in whatever order several writers write. A history row is written only when the fingerprint of the object's description
changed. Lists of structs leave `payload` empty; single reads have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from kalshi_platform.catalog.fingerprints import vanished_fingerprint
from kalshi_platform.catalog.rows import EVENTS, MARKETS, SERIES, CatalogTable, InfoT, Row
from kalshi_platform.errors import StatementRejected
from kalshi_platform.market.catalog import EventInfo, MarketInfo, SeriesInfo
from kalshi_platform.market.clock_offset import Correction, Offset
from kalshi_platform.market.names import readable
from kalshi_platform.market.times import us_from_datetime
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.quarantine import write_in_parts
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.sqlstate import is_about_a_row

# About 3 MB of payloads.
_ROWS_PER_STATEMENT = 1_000
_LISTED_AT_ONCE = 5_000
_LONGEST_ERROR = 500
_NONE = timedelta(0)
_log = event_logger(__name__)


class Changed(NamedTuple):
    """Counts the objects of a write, and those of them that were new or described differently."""

    seen: int
    changed: int


class SyncReport(NamedTuple):
    """Reports one sync of series, events or markets; `scope` is full or incremental.

    `left_out` counts what the listing lacked (objects that could not be read, an end that never came), `lacks` is the
    same in words. A sync that lacks anything is not a whole one, and the next one lists the same again.
    """

    what: str
    scope: str
    rows_seen: int
    rows_changed: int
    started_at: datetime
    finished_at: datetime
    left_out: int = 0
    lacks: str | None = None

    @property
    def is_whole(self) -> bool:
        """Return whether everything that the exchange listed is in the catalog."""
        return not self.left_out


class Listing(NamedTuple):
    """Holds the fields of a market that following it needs."""

    ticker: str
    event_ticker: str
    series_ticker: str | None
    status: str
    open_time_us: int | None
    close_time_us: int | None
    exchange_index: int
    mve_collection_ticker: str | None


class Change(NamedTuple):
    """Identifies a change of one catalog; the token distinguishes it from another one with the same number."""

    change_no: int
    token: str | None


class CatalogStore:
    """Reads and writes one catalog: a gatherer's catalog database, or production.

    Versions are dated by the exchange's clock, as far as that is known. Otherwise versions of a host whose clock is
    ahead would count as the newest for as long as it is ahead.
    """

    def __init__(self, database: Database, clock_offset: Callable[[], Offset | None] = lambda: None) -> None:
        """Set up the store; `clock_offset` returns our clock against the exchange's, by its last answers."""
        self.refused = 0
        """Objects that the database refused and that were left out, since the start."""
        self._database = database
        self._clock_offset = clock_offset
        self._correction = Correction()
        self._queries = load("catalog")

    # -- writing

    # `patience`: an object whose description has not changed keeps its row, with its date, for so long; a listing of
    # everything then writes only what changed.

    def upsert_series(self, infos: Iterable[SeriesInfo], known_at: datetime, patience: timedelta = _NONE) -> Changed:
        """Store series as known at `known_at`."""
        return self._upsert(SERIES, infos, known_at, patience)

    def upsert_events(self, infos: Iterable[EventInfo], known_at: datetime, patience: timedelta = _NONE) -> Changed:
        """Store events as known at `known_at`."""
        return self._upsert(EVENTS, infos, known_at, patience)

    def upsert_markets(self, infos: Iterable[MarketInfo], known_at: datetime, patience: timedelta = _NONE) -> Changed:
        """Store markets as known at `known_at`."""
        return self._upsert(MARKETS, infos, known_at, patience)

    def mark_vanished(self, tickers: Sequence[str], at: datetime) -> int:
        """Mark markets that the exchange no longer has; return how many were not marked already."""
        if not tickers:
            return 0
        fingerprints = [vanished_fingerprint(ticker) for ticker in tickers]
        with self._database.transaction() as transaction:
            _serialise(transaction, MARKETS.name)
            params = {"tickers": list(tickers), "fingerprints": fingerprints, "at": self._dated(at)}
            return transaction.execute(self._queries["vanish"], params)

    # -- reading

    def market(self, ticker: str) -> MarketInfo | None:
        """Return one market with its payload, or None."""
        return self._one(MARKETS, ticker)

    def markets_to_subscribe(self) -> Iterator[Listing]:
        """Yield the markets that trade or will (initialized, inactive, active), by ticker; 5,000 in a statement."""
        return self._listings("markets_to_subscribe")

    def newest_change(self) -> Change:
        """Return the catalog's newest change; changes that become visible later have a higher number."""
        with self._database.transaction() as transaction:
            row = transaction.fetch_one(self._queries["newest_change"])
        return Change(0, None) if row is None else Change(int(row[0]), row[1])

    def contains_change(self, change: Change) -> bool:
        """Return whether the catalog still contains a change: it was neither restored nor recreated since."""
        with self._database.transaction() as transaction:
            row = transaction.fetch_one(self._queries["went_through"], change._asdict())
        return row is not None and bool(row[0])

    def changed_since(self, change: Change) -> Iterator[Listing]:
        """Yield the markets of which a version was written after `change`."""
        return self._listings("changed_since", since=change.change_no)

    def categories(self) -> dict[str, str]:
        """Return the category of each series that has one."""
        return self._pairs("categories")

    def series_of_events(self) -> dict[str, str]:
        """Return the series of each event that names one."""
        return self._pairs("series_of_events")

    def unsettled_before(self, before: datetime, batch: int) -> Iterator[list[str]]:
        """Yield, in batches, the tickers of unsettled markets whose row is older than `before`."""
        after = ""
        while tickers := self._tickers("unsettled_before", before=before, after=after, limit=batch):
            yield tickers
            after = tickers[-1]

    def overdue(self, at: datetime, limit: int) -> list[str]:
        """Return the markets that should have opened or closed by the clock."""
        return self._tickers("overdue", at=at, limit=limit)

    def unknown_events(self, limit: int) -> list[str]:
        """Return the events that unsettled markets name and the catalog lacks."""
        return self._tickers("unknown_events", limit=limit)

    def unknown_series(self, limit: int) -> list[str]:
        """Return the series that such events name and the catalog lacks."""
        return self._tickers("unknown_series", limit=limit)

    # -- syncs

    def begin_sync(self, what: str, scope: str, started_at: datetime) -> int:
        """Record that a sync began; return its number for `record_sync`."""
        with self._database.transaction() as transaction:
            row = transaction.fetch_one(
                self._queries["begin_sync"], {"what": what, "scope": scope, "started_at": started_at}
            )
        return int(row[0]) if row else 0

    def record_sync(
        self,
        sync_id: int,
        changed: Changed,
        started_at: datetime,
        finished_at: datetime | None,
        error: str | None = None,
    ) -> None:
        """Record how a sync ended: without `finished_at` it broke off, with an `error` it was not a whole one.

        The next one starts where the last whole one did, by the exchange's clock, which its answers have shown by now.
        """
        params = {
            "sync_id": sync_id,
            "started_at": self._dated(started_at),
            "finished_at": finished_at,
            "rows_seen": changed.seen,
            "rows_changed": changed.changed,
            "error": None if error is None else readable(error, _LONGEST_ERROR),
        }
        with self._database.transaction() as transaction:
            transaction.execute(self._queries["end_sync"], params)

    def last_sync(self, what: str) -> SyncReport | None:
        """Return the last whole sync, full or incremental, of series, events or markets."""
        with self._database.transaction() as transaction:
            row = transaction.fetch_one(self._queries["last_sync"], {"what": what})
        return None if row is None else SyncReport(*row)

    # -- statements

    def _upsert(
        self, table: CatalogTable[InfoT], infos: Iterable[InfoT], known_at: datetime, patience: timedelta
    ) -> Changed:
        # Pages overlap while listings change: of one object the last answer counts. All writers use one order.
        unique: dict[str, InfoT] = {getattr(info, table.ticker): info for info in infos}
        rows: list[Row] = []
        for ticker, info in sorted(unique.items()):
            try:
                rows.append(table.row(info))
            except (ValueError, OverflowError) as error:
                self._leave_out(table.name, ticker, error)
        # After the answer that is stored here, which has shown the exchange's clock, too.
        known_at = self._dated(known_at)
        is_markets = table.name == MARKETS.name
        statement = self._queries["upsert"].format(
            table=table.name,
            stage="{stage}",
            columns=", ".join(table.names),
            updates=", ".join(f"{name} = excluded.{name}" for name in table.names if name != "ticker"),
            updated=table.updated,
            status=", status" if is_markets else "",
            status_update=", status = excluded.status" if is_markets else "",
        )
        changed = 0
        for start in range(0, len(rows), _ROWS_PER_STATEMENT):
            changed += self._write(table, statement, rows[start : start + _ROWS_PER_STATEMENT], known_at, patience)
        return Changed(len(unique), changed)

    def _write(
        self,
        table: CatalogTable[InfoT],
        statement: str,
        rows: Sequence[Row],
        known_at: datetime,
        patience: timedelta,
    ) -> int:
        """Write rows without those that the database refuses for their values; return the number of changes."""
        changed: list[int] = []

        def write(part: Sequence[Row]) -> None:
            data = table.arrow(part, known_at)
            with self._database.transaction() as transaction:
                _serialise(transaction, table.name)
                stage = transaction.stage(table.staged, data)
                changed.append(transaction.execute(statement.format(stage=stage), {"patience": patience}))

        write_in_parts(rows, write, lambda row, error: self._leave_out(table.name, row[0][0], error), _blames_a_row)
        return sum(changed)

    def _dated(self, moment: datetime) -> datetime:
        return moment - timedelta(seconds=self._correction.update(self._clock_offset()))

    def _leave_out(self, table: str, ticker: object, error: Exception) -> None:
        self.refused += 1
        _log.warning("catalog_row_skipped", table=table, ticker=str(ticker)[:100], error=error)

    def _one(self, table: CatalogTable[InfoT], ticker: str) -> InfoT | None:
        columns = ", ".join(column.name for column in table.columns)
        statement = self._queries["object"].format(columns=columns, table=table.name)
        with self._database.transaction() as transaction:
            row = transaction.fetch_one(statement, {"ticker": ticker})
        return None if row is None else table.struct(row[:-1], row[-1])

    def _listings(self, query: str, **params: object) -> Iterator[Listing]:
        statement, after = self._queries[query], ""
        while True:
            with self._database.transaction() as transaction:
                rows = transaction.fetch_all(statement, {**params, "after": after, "limit": _LISTED_AT_ONCE})
            for ticker, event, series, status, opens, closes, index, collection in rows:
                yield Listing(ticker, event, series, status, _us(opens), _us(closes), index, collection)
            if len(rows) < _LISTED_AT_ONCE:
                return
            after = rows[-1][0]

    def _pairs(self, query: str) -> dict[str, str]:
        with self._database.transaction() as transaction:
            return {str(one): str(other) for one, other in transaction.fetch_all(self._queries[query])}

    def _tickers(self, query: str, **params: object) -> list[str]:
        with self._database.transaction() as transaction:
            return [str(ticker) for (ticker,) in transaction.fetch_all(self._queries[query], params)]


def _us(moment: datetime | None) -> int | None:
    return None if moment is None else us_from_datetime(moment)


def _blames_a_row(error: Exception) -> bool:
    """Return whether a value is at fault: the server refuses it, or it does not fit its column's type."""
    if isinstance(error, StatementRejected):
        return is_about_a_row(error.sqlstate)
    return isinstance(error, ValueError | OverflowError)


def _serialise(transaction: Transaction, table: str) -> None:
    # Two syncs at once would both read the same old version and write its successor twice.
    transaction.lock(f"catalog {table}")
