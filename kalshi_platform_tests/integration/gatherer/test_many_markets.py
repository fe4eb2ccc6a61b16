"""A gatherer with more markets than one connection and one request carry: sync, subscription, the minute's books."""

from __future__ import annotations

from pathlib import Path

from kalshi_platform.gatherer.status.reports import BooksPolled, CatalogSynced
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.gatherer_service import running_gatherer

MARKETS = 1_500


def test_1500_markets_are_synced_followed_and_polled(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    settings = gatherer_settings(markets_per_connection=800, snapshot_interval_s=2.0, poll_share=1.0)
    with running_exchange(tmp_path, markets=MARKETS, rate=100) as exchange:
        with running_gatherer(settings, exchange) as gatherer:
            gatherer.follows(MARKETS, within_s=60.0)
            # A poll of all of them, and each book really stored under the poll's moment.
            eventually(
                lambda: any(r.stored == MARKETS for r in gatherer.reports if isinstance(r, BooksPolled)),
                within_s=60.0,
                what="a poll of every market",
            )
            status = gatherer.status
            assert sorted(status.connections) == ["books-0", "books-1", "feed"]
            assert all(each.sessions == 1 for each in status.connections.values())
            assert status.alarms == {}
        [full] = [r for r in gatherer.reports if isinstance(r, CatalogSynced) and r.what == "markets"]
        assert (full.scope, full.rows_seen, full.rows_changed) == ("full", MARKETS, MARKETS)
        assert gatherer.catalog("SELECT count(*) FROM markets WHERE status = 'active'") == [(MARKETS,)]
        assert gatherer.value("SELECT count(DISTINCT ticker) FROM book_subscriptions") == MARKETS
        assert gatherer.value("SELECT count(*) FROM orderbook_snapshots WHERE source = 'ws'") == MARKETS
        polls = [r for r in gatherer.reports if isinstance(r, BooksPolled) and r.stored == MARKETS]
        assert {(poll.requests, poll.tokens, poll.skipped) for poll in polls} == {(15, 150.0, 0)}
        moment = polls[0].minute.isoformat()
        of_poll = f"source = 'rest' AND snapshot_ts = '{moment}'"
        query = f"SELECT count(DISTINCT ticker), count(*) FROM orderbook_snapshots WHERE {of_poll}"
        assert gatherer.rows(query) == [(MARKETS, MARKETS)]
        # The same, market by market.
        achieved = gatherer.rows(
            f"SELECT ticker, books FROM book_resolution('{moment}', '{moment}'::timestamptz + '1 s')"
        )
        assert len(achieved) == MARKETS
        assert {books for _, books in achieved} == {1}
        ticker = achieved[0][0]
        stored = gatherer.value(
            f"SELECT count(*) FROM orderbook_snapshots WHERE source = 'rest' AND ticker = '{ticker}'"
        )
        of_market = f"SELECT sum(books) FROM book_resolution('-infinity', 'infinity', '{ticker}')"
        assert gatherer.value(of_market) == stored >= len(polls)
