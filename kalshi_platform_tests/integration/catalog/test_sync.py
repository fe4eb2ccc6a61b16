"""Syncs against the simulated exchange and a real database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.catalog.store import CatalogStore, Changed
from kalshi_platform.catalog.sync import refresh_markets, sync_events, sync_markets, sync_series
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import ExchangeUnavailable, UnparsableMessage
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform.market.catalog import EventInfo, MarketInfo
from kalshi_platform.orchestration.schedules.catalog import is_fresh
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.exchange import running_exchange
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.storage import MigratedTemplate

MARKETS = 25


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[ServerThread]:
    with running_exchange(tmp_path, markets=MARKETS, rate=0, combos=2, rest_visible_delay_s=0.5) as running:
        yield running


@pytest.fixture
def rest(exchange: ServerThread) -> RestClient:
    settings = ExchangeSettings(rest_url=exchange.rest_url, reads_per_second=1_000, max_attempts=2, retry_base_s=0.01)
    return RestClient(settings, SYSTEM_CLOCK)


@pytest.fixture
def database(database_factory: DatabaseFactory, migrated_template: MigratedTemplate) -> Iterator[Database]:
    made = Database(database_factory(migrated_template("catalog")), name="catalog")
    yield made
    made.dispose()


@pytest.fixture
def store(database: Database) -> CatalogStore:
    return CatalogStore(database)


def statuses(database: Database, *tickers: str) -> list[str]:
    with database.transaction() as transaction:
        rows: dict[str, str] = dict(transaction.fetch_all("SELECT ticker, status FROM markets"))
    return [rows[ticker] for ticker in tickers] if tickers else list(rows.values())


def count(database: Database, table: str) -> int:
    with database.transaction() as transaction:
        row = transaction.fetch_one(f"SELECT count(*) FROM {table}")
    return int(row[0]) if row else 0


def versions(database: Database) -> list[tuple[object, ...]]:
    """Where each row lies: a row that was written again lies elsewhere."""
    tables = ("series", "events", "markets")
    parts = [f"SELECT '{name}', ticker, ctid::text FROM {name}{end}" for name in tables for end in ("", "_history")]
    with database.transaction() as transaction:
        return sorted(transaction.fetch_all(" UNION ALL ".join(parts)))


def test_a_full_sync_stores_the_universe_without_combos(
    rest: RestClient, store: CatalogStore, database: Database
) -> None:
    for sync in (sync_series, sync_events, sync_markets):
        report = sync(rest, store, SYSTEM_CLOCK, full=True)
        assert (report.scope, report.rows_changed) == ("full", count(database, report.what))
        assert report.started_at <= report.finished_at
    assert count(database, "markets") == MARKETS
    assert set(statuses(database)) == {"active"}
    with database.transaction() as transaction:
        orphans = transaction.fetch_one(
            "SELECT count(*) FROM markets m LEFT JOIN events e ON e.ticker = m.event_ticker"
            " LEFT JOIN series s ON s.ticker = e.series_ticker WHERE s.ticker IS NULL"
        )
    assert orphans == (0,)
    before = versions(database)
    for sync in (sync_series, sync_events, sync_markets):
        again = sync(rest, store, SYSTEM_CLOCK, full=True)
        assert (again.rows_seen, again.rows_changed) == (count(database, again.what), 0)
    assert versions(database) == before


def test_the_first_sync_is_full_and_later_ones_bring_what_changed(
    exchange: ServerThread, rest: RestClient, store: CatalogStore, database: Database
) -> None:
    assert sync_markets(rest, store, SYSTEM_CLOCK, full=False).scope == "full"
    moved, closed = exchange.tickers()[:2]
    exchange.market("change_metadata", ticker=moved, strike=0.77)
    exchange.market("close", ticker=closed)
    report = sync_markets(rest, store, SYSTEM_CLOCK, full=False)
    assert (report.scope, report.rows_changed) == ("incremental", 2)
    assert statuses(database, moved, closed) == ["active", "closed"]
    assert count(database, "markets_history") == MARKETS + 2
    for sync in (sync_series, sync_events):
        sync(rest, store, SYSTEM_CLOCK, full=False)
        assert sync(rest, store, SYSTEM_CLOCK, full=False).scope == "incremental"


def test_a_full_sync_asks_for_held_markets_that_are_not_listed_any_more(
    exchange: ServerThread, rest: RestClient, store: CatalogStore, database: Database
) -> None:
    sync_markets(rest, store, SYSTEM_CLOCK, full=True)
    ended, *_ = exchange.tickers()
    exchange.market("close", ticker=ended)
    exchange.market("determine", ticker=ended, result="no")
    exchange.market("settle", ticker=ended)
    held = store.market(exchange.tickers()[1])
    assert held is not None
    deleted = [held.__class__(**{f: getattr(held, f) for f in held.__struct_fields__} | {"ticker": "KXGONE-1-T1"})]
    store.upsert_markets(deleted, SYSTEM_CLOCK.now())
    report = sync_markets(rest, store, SYSTEM_CLOCK, full=True)
    assert statuses(database, ended, "KXGONE-1-T1") == ["finalized", "vanished"]
    assert report.rows_changed == 2
    assert sync_markets(rest, store, SYSTEM_CLOCK, full=True).rows_changed == 0


def test_markets_that_should_have_opened_by_the_clock_are_requested(
    exchange: ServerThread, rest: RestClient, store: CatalogStore, database: Database
) -> None:
    created = exchange.market("create", open_in_s=2.0, visible_in_s=0.0)["ticker"]
    refresh_markets(rest, store, SYSTEM_CLOCK, [created])
    assert statuses(database, created) == ["initialized"]
    # A last sync of tomorrow: nothing was updated since, so that only the clock speaks for the market.
    tomorrow = SYSTEM_CLOCK.now() + timedelta(days=1)
    store.record_sync(store.begin_sync("markets", "full", tomorrow), Changed(0, 0), tomorrow, tomorrow)
    deadline = SYSTEM_CLOCK.monotonic() + 10
    while statuses(database, created) != ["active"]:
        assert SYSTEM_CLOCK.monotonic() < deadline
        sync_markets(rest, store, SYSTEM_CLOCK, full=False)


def test_parents_that_are_unknown_are_fetched(rest: RestClient, store: CatalogStore, database: Database) -> None:
    sync_markets(rest, store, SYSTEM_CLOCK, full=True)
    with database.transaction() as transaction:
        rows = transaction.fetch_all(
            "SELECT DISTINCT m.event_ticker, e.ticker, s.ticker FROM markets m"
            " LEFT JOIN events e ON e.ticker = m.event_ticker LEFT JOIN series s ON s.ticker = e.series_ticker"
        )
    assert rows
    assert all(None not in row for row in rows)


def test_a_failed_sync_keeps_what_it_stored_and_is_repeated(
    exchange: ServerThread, rest: RestClient, store: CatalogStore, database: Database
) -> None:
    first = sync_markets(rest, store, SYSTEM_CLOCK, full=True)
    exchange.fault("rest_status", status=503, count=100)
    with pytest.raises(ExchangeUnavailable):
        sync_markets(rest, store, SYSTEM_CLOCK, full=False)
    assert store.last_sync("markets") == first
    with database.transaction() as transaction:
        rows = transaction.fetch_all(
            "SELECT scope, finished_at IS NULL, error FROM catalog_syncs ORDER BY sync_id DESC"
        )
    assert rows[0][:2] == ("incremental", True)
    assert rows[0][2].startswith("ExchangeUnavailable")
    exchange.clear_faults()
    assert sync_markets(rest, store, SYSTEM_CLOCK, full=False).scope == "incremental"


def test_a_status_that_cannot_be_listed_costs_no_other(
    exchange: ServerThread, rest: RestClient, store: CatalogStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rest.iter_markets

    def iter_markets(status: str | None = None, **filters: Any) -> Iterator[MarketInfo]:
        if status == "open":
            raise ExchangeUnavailable("GET /markets: HTTP 500", status=500)
        return whole(status=status, **filters)

    exchange.market("deactivate", ticker=exchange.tickers()[0])
    monkeypatch.setattr(rest, "iter_markets", iter_markets)
    with pytest.raises(ExchangeUnavailable):
        sync_markets(rest, store, SYSTEM_CLOCK, full=True)
    assert statuses(database) == ["inactive"]
    assert store.last_sync("markets") is None


def test_a_sync_that_lacks_an_object_is_stored_but_is_not_a_whole_one(
    rest: RestClient, store: CatalogStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rest.iter_markets

    def iter_markets(*args: Any, on_skipped: Any, **filters: Any) -> Iterator[MarketInfo]:
        on_skipped("object KXODD: missing_field: status")
        return whole(*args, on_skipped=on_skipped, **filters)

    monkeypatch.setattr(rest, "iter_markets", iter_markets)
    report = sync_markets(rest, store, SYSTEM_CLOCK, full=True)
    assert (report.is_whole, report.left_out) == (False, 3)
    assert count(database, "markets") == MARKETS
    assert store.last_sync("markets") is None
    with database.transaction() as transaction:
        assert transaction.fetch_all("SELECT error LIKE '3 left out: object KXODD%' FROM catalog_syncs") == [(True,)]
    assert is_fresh(database, SYSTEM_CLOCK.now())  # who lists again at once gets the same
    monkeypatch.undo()
    assert sync_markets(rest, store, SYSTEM_CLOCK, full=False).scope == "full"
    assert store.last_sync("markets") is not None


def test_a_listing_with_names_that_nothing_can_store_is_stored_but_for_these(
    rest: RestClient, store: CatalogStore, database: Database, exchange: ServerThread
) -> None:
    for ticker in ("KXPOISON-\x00\x1b[31m", "KXPOISON-" + "P" * 3_494):
        exchange.market("create", ticker=ticker, visible_in_s=0.0)
    report = sync_markets(rest, store, SYSTEM_CLOCK, full=True)
    assert (report.is_whole, report.left_out, count(database, "markets")) == (False, 2, MARKETS)
    assert "\\x00" in str(report.lacks)
    with database.transaction() as transaction:
        assert transaction.fetch_all("SELECT error FROM catalog_syncs") == [(report.lacks,)]


def test_events_that_cannot_be_read_do_not_cost_their_markets(
    rest: RestClient, store: CatalogStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def event(_ticker: str) -> EventInfo:
        raise ExchangeUnavailable("GET /events: HTTP 500", status=500)

    monkeypatch.setattr(rest, "event", event)
    assert sync_markets(rest, store, SYSTEM_CLOCK, full=True).is_whole
    assert (count(database, "markets"), count(database, "events")) == (MARKETS, 0)
    monkeypatch.setattr(rest, "event", lambda ticker: (_ for _ in ()).throw(UnparsableMessage("shape", ticker)))
    assert sync_markets(rest, store, SYSTEM_CLOCK, full=False).is_whole
