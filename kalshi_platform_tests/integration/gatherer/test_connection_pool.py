"""Connections that grow, move markets, are replaced and are cut: without a hole where none must be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from kalshi_platform.deduplicator.coverage.gatherer_hour import read_claims
from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.market.intervals import Interval, subtract
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.gatherer_service import running_gatherer

MARGIN_US = 700_000
"""A claim begins up to so long after its snapshot and ends so long before the last delta of its stream."""
OVERLAP_S = 1.7
"""More than twice that."""
BEGINNING = timedelta(seconds=1.5)
"""By then every market is claimed that was followed before."""


def now() -> datetime:
    return datetime.now(UTC)


def holes(settings: GathererSettings, low: datetime, high: datetime, tickers: list[str]) -> dict[str, list[Interval]]:
    """What is not claimed of [low, high), by market."""
    source = GathererSource(settings.name, settings.timeseries_url, settings.catalog_url)
    claimed = read_claims(source, low, high, MARGIN_US)
    window = [(int(low.timestamp() * 1_000_000), int(high.timestamp() * 1_000_000))]
    missing = {ticker: subtract(window, claimed.get(ticker, [])) for ticker in tickers}
    return {ticker: intervals for ticker, intervals in missing.items() if intervals}


def test_replacing_every_connection_declares_no_hole(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    settings = gatherer_settings(
        connections=1, rotate_connections_s=3.0, handover_overlap_s=OVERLAP_S, handover_patience_s=60.0
    )
    # Most markets are quiet: what is claimed of them hangs on the margins.
    with running_exchange(tmp_path, markets=40, rate=120) as exchange:
        tickers = exchange.tickers()
        with running_gatherer(settings, exchange) as gatherer:
            gatherer.follows(len(tickers))
            low = now() + BEGINNING
            sessions = (
                "SELECT connection FROM sessions WHERE starts_with(close_reason, 'replaced')"
                f" AND closed_at > '{low.isoformat()}' GROUP BY 1 ORDER BY 1"
            )
            eventually(
                lambda: gatherer.rows(sessions) == [("books-0",), ("feed",)],
                within_s=60.0,
                what="each connection replaced",
            )
            high = now()
            assert gatherer.status.followed_markets == len(tickers)
            # Later frames extend what is claimed; a hole would stay.
            eventually(lambda: holes(settings, low, high, tickers) == {}, within_s=45, what="no hole")
            assert gatherer.pool_status.rotations >= 2
            assert gatherer.pool_status.rotations_given_up == 0
            assert gatherer.status.suspect_markets == 0
        assert gatherer.value("SELECT count(*) FROM sequence_gaps") == 0


def test_more_markets_open_connections_and_move_without_a_hole(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    settings = gatherer_settings(
        markets_per_connection=10,
        rebalance_after_s=1.0,
        rotate_connections_s=0.0,
        handover_overlap_s=OVERLAP_S,
        handover_patience_s=60.0,
    )
    with running_exchange(tmp_path, markets=10, rate=300) as exchange:
        tickers = exchange.tickers()
        with running_gatherer(settings, exchange) as gatherer:
            gatherer.follows(10)
            assert list(gatherer.status.connections) == ["feed", "books-0"]
            low = now() + BEGINNING
            eventually(lambda: now() > low, what="a claim of every market")
            for _ in range(2):
                exchange.market("create", open_in_s=0.0, close_in_s=3_600.0)
            gatherer.follows(12)
            assert list(gatherer.status.connections) == ["feed", "books-0", "books-1"]
            eventually(lambda: gatherer.pool_status.moved_markets == 4, within_s=60.0, what="4 markets moved")
            query = "SELECT ticker FROM book_subscriptions WHERE end_reason = 'unsubscribed'"
            eventually(lambda: len(gatherer.rows(query)) == 4, what="left on the old connection")
            high = now()
            gatherer.follows(12)
            eventually(lambda: holes(settings, low, high, tickers) == {}, within_s=45, what="no hole")
        assert gatherer.value("SELECT count(*) FROM sessions") == 3


def test_a_limit_of_the_exchange_is_found_and_the_rest_goes_to_another_connection(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with (
        running_exchange(tmp_path, markets=12, rate=0, max_markets_per_subscription=7) as exchange,
        running_gatherer(gatherer_settings(), exchange) as gatherer,
    ):
        gatherer.follows(12)
        assert gatherer.status.alarms.get("market_limit", 0) >= 1
        query = (
            "SELECT connection FROM book_subscriptions JOIN streams USING (stream_id) JOIN sessions USING (session_id)"
        )
        eventually(
            lambda: sorted(gatherer.rows(query)) == [("books-0",)] * 7 + [("books-1",)] * 5, what="seven and five"
        )


def test_connections_cut_at_once_do_not_come_back_at_once(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    with running_exchange(tmp_path, markets=8, rate=20) as exchange:
        settings = gatherer_settings(connections=4, reconnect_spacing_s=1.0)
        with running_gatherer(settings, exchange) as gatherer:
            gatherer.follows(8)
            exchange.fault("cut")
            eventually(lambda: gatherer.value("SELECT count(*) FROM sessions") == 10, what="five new sessions")
            gatherer.follows(8)
        opened = [at for (at,) in gatherer.rows("SELECT opened_at FROM sessions ORDER BY opened_at")][5:]
        assert min((later - earlier).total_seconds() for earlier, later in pairwise(opened)) > 0.1
