"""Which markets a gatherer follows, as they come, open, close, settle and get lost on the way."""

from __future__ import annotations

from pathlib import Path

import psycopg2

from kalshi_platform.gatherer.settings import MarketFilter
from kalshi_platform.gatherer.status.reports import CatalogSynced
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.gatherer_service import running_gatherer


def write(url: str, statement: str) -> None:
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


def test_all_active_markets_but_combos_are_followed(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    with running_exchange(tmp_path, markets=12, rate=0, combos=3) as exchange:
        with running_gatherer(gatherer_settings(), exchange) as gatherer:
            gatherer.follows(len(exchange.tickers()))
            assert not [t for t in gatherer.service.parts.registry.last_desired_markets if t.startswith("KXMVE")]

            def synced() -> list[str]:
                return [report.what for report in gatherer.reports if isinstance(report, CatalogSynced)]

            eventually(lambda: len(synced()) >= 3, what="three syncs")
            assert synced()[:3] == ["markets", "series", "events"]
            assert all(report.scope == "full" for report in gatherer.reports if isinstance(report, CatalogSynced))
        stored = {ticker for (ticker,) in gatherer.catalog("SELECT ticker FROM markets WHERE status = 'active'")}
        assert set(exchange.tickers()) <= stored


def test_a_filter_admits_only_what_it_names(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    with running_exchange(tmp_path, markets=12, rate=0) as exchange:
        chosen = sorted(exchange.tickers())[:2]
        settings = gatherer_settings(market_filter=MarketFilter(tickers=tuple(chosen)))
        with running_gatherer(settings, exchange) as gatherer:
            gatherer.follows(2)
            assert set(gatherer.service.parts.registry.last_desired_markets) == set(chosen)


def test_a_created_market_is_fetched_after_404s_and_followed(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with running_exchange(tmp_path, markets=4, rate=0) as exchange:
        with running_gatherer(gatherer_settings(), exchange) as gatherer:
            gatherer.follows(4)
            ticker = exchange.market("create", visible_in_s=0.8)["ticker"]
            gatherer.follows(5)
            eventually(lambda: gatherer.catalog_status.not_visible >= 1, what="a 404 before REST shows it")
            eventually(lambda: gatherer.catalog(f"SELECT status FROM markets WHERE ticker = '{ticker}'"))
            exchange.publish({"kind": "delta", "ticker": ticker, "side": "yes", "price_e4": 4200, "delta_e2": 100})
            query = f"SELECT price_e4, delta_e2 FROM orderbook_deltas WHERE ticker = '{ticker}'"
            eventually(lambda: gatherer.rows(query) == [(4200, 100)], what="the new market's delta")
        kinds = gatherer.rows(f"SELECT event_type FROM market_lifecycle WHERE ticker = '{ticker}'")
        assert kinds == [("created",)]


def test_a_determined_and_settled_market_is_left_and_its_result_stored(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with (
        running_exchange(tmp_path, markets=4, rate=0) as exchange,
        running_gatherer(gatherer_settings(), exchange) as gatherer,
    ):
        gatherer.follows(4)
        ticker = min(exchange.tickers())
        exchange.market("close", ticker=ticker)
        exchange.market("determine", ticker=ticker, result="yes")
        gatherer.follows(3)
        exchange.market("settle", ticker=ticker)
        query = f"SELECT status, result FROM markets WHERE ticker = '{ticker}'"
        eventually(lambda: gatherer.catalog(query) == [("finalized", "yes")], what="the result in the catalog")
        query = f"SELECT end_reason FROM book_subscriptions WHERE ticker = '{ticker}'"
        eventually(lambda: gatherer.rows(query) == [("unsubscribed",)], what="the end of the book_subscription")


def test_a_market_that_closes_by_the_clock_is_left_without_any_announcement(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with running_exchange(tmp_path, markets=3, rate=0) as exchange:
        with running_gatherer(gatherer_settings(), exchange) as gatherer:
            gatherer.follows(3)
            ticker = exchange.market("create", visible_in_s=0.0, close_in_s=2.5)["ticker"]
            gatherer.follows(4)
            gatherer.follows(3)
            assert ticker not in gatherer.service.parts.registry.last_desired_markets
            query = f"SELECT status FROM markets WHERE ticker = '{ticker}'"
            eventually(lambda: gatherer.catalog(query) == [("closed",)], what="closed in the catalog")
        kinds = gatherer.rows(f"SELECT event_type FROM market_lifecycle WHERE ticker = '{ticker}'")
        assert kinds == [("created",)]


def test_a_market_that_is_closed_early_but_lives_on_by_rest_is_kept(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with running_exchange(tmp_path, markets=3, rate=0) as exchange:
        ticker = exchange.market("create", visible_in_s=0.0, close_in_s=8.0)["ticker"]
        with running_gatherer(gatherer_settings(), exchange) as gatherer:
            gatherer.follows(4)
            # Its close moves, and nobody hears of it: REST is asked when the known close has passed.
            exchange.fault("suppress_lifecycle", count=1)
            exchange.market("move_close", ticker=ticker, close_in_s=3600)
            known = f"SELECT close_time > now() + interval '30 minutes' FROM markets WHERE ticker = '{ticker}'"
            eventually(lambda: gatherer.catalog(known) == [(True,)], what="the new close in the catalog")
            gatherer.follows(4)


def test_what_was_announced_while_the_line_was_down_is_requested_when_it_is_back(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with (
        running_exchange(tmp_path, markets=3, rate=0) as exchange,
        running_gatherer(gatherer_settings(), exchange) as gatherer,
    ):
        gatherer.follows(3)
        exchange.fault("refuse_handshake", user_agent=" feed)", seconds=1.5)
        exchange.fault("cut", user_agent=" feed)")
        exchange.market("create", visible_in_s=0.0)
        eventually(lambda: gatherer.status.connections["feed"].reconnects == 1, what="the feed to be back")
        gatherer.follows(4)
        assert gatherer.value("SELECT count(*) FROM market_lifecycle") == 0


def test_reconciliation_finds_a_market_whose_announcement_was_lost(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with (
        running_exchange(tmp_path, markets=3, rate=0) as exchange,
        running_gatherer(gatherer_settings(reconcile_interval_s=0.5), exchange) as gatherer,
    ):
        gatherer.follows(3)
        exchange.fault("suppress_lifecycle", count=100)
        exchange.market("create", visible_in_s=0.2)
        gatherer.follows(4)
        assert gatherer.value("SELECT count(*) FROM market_lifecycle WHERE event_type = 'created'") == 0


def test_a_sync_by_another_process_takes_effect_within_seconds(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with (
        running_exchange(tmp_path, markets=3, rate=0) as exchange,
        running_gatherer(gatherer_settings(), exchange) as gatherer,
    ):
        gatherer.follows(3)
        ticker = min(exchange.tickers())
        write(
            gatherer.settings.catalog_url,
            f"WITH h AS (UPDATE markets_history SET valid_to = now() WHERE ticker = '{ticker}'),"
            f" n AS (INSERT INTO markets_history (ticker, valid_from, fingerprint, payload, status)"
            f"       VALUES ('{ticker}', now(), 1, '{{}}', 'closed'))"
            f" UPDATE markets SET status = 'closed', known_at = now() WHERE ticker = '{ticker}' RETURNING 1",
        )
        gatherer.follows(2)
