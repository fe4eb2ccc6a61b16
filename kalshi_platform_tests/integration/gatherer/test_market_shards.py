"""Two gatherers, each with half of the markets, are together one: production is what the exchange published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.close.close_record import HourClose
from kalshi_platform.deduplicator.close.hours import find_active_hours
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.gatherer.settings import GathererSettings, MarketFilter
from kalshi_platform.lab.proof.comparison.compare import compare
from kalshi_platform.lab.proof.comparison.stored_rows import Production
from kalshi_platform.lab.proof.comparison.tables import TIMED_TABLES
from kalshi_platform.lab.proof.comparison.truth import ALL_TIME, Truth, read_truth
from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform.market.parts import MarketPart
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.gatherer_service import BOUNDS, RunningGatherer, running_gatherer
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.stack import rows

MARKETS, RATE = 24, 600.0


def test_two_halves_of_which_one_restarts_are_together_one_gatherer(
    gatherer_settings: SettingsFactory, database_factory: DatabaseFactory, merge_templates: None, tmp_path: Path
) -> None:
    halves = [
        gatherer_settings(name, market_filter=MarketFilter(shard=MarketPart(number, 2)))
        for number, name in enumerate(("g1", "g2"), start=1)
    ]
    production = database_factory("template_production")
    with running_exchange(tmp_path, markets=MARKETS, rate=0, truth=tmp_path / "truth") as exchange:
        tickers = exchange.tickers()
        mine, other = ([t for t in tickers if half.market_filter.shard.holds(t)] for half in halves)
        assert len(mine) + len(other) == MARKETS
        with running_gatherer(halves[0], exchange) as first:
            with running_gatherer(halves[1], exchange) as second:
                first.follows(len(mine))
                second.follows(len(other))
                began_us = exchange.state()["clock_us"]
                trade(exchange)
                caught_up(exchange, first, second)
            # The first alone records its half.
            for price in (4_100, 4_200, 4_300):
                exchange.publish(
                    *({"kind": "delta", "ticker": t, "side": "yes", "price_e4": price, "delta_e2": 500} for t in mine)
                )
            with running_gatherer(halves[1], exchange) as second:
                second.follows(len(other))
                born = exchange.market("create", visible_in_s=0.0)["ticker"]
                keeper = first if halves[0].market_filter.shard.holds(born) else second
                eventually(lambda: born in keeper.service.parts.registry.last_desired_markets, what="the new market")
                eventually(lambda: followed(first) + followed(second) == MARKETS + 1, what="all books")
                trade(exchange)
                caught_up(exchange, first, second)
    truth = read_truth(tmp_path / "truth", began_us)
    for half in halves:
        recorded_only_its_own(half)
    # Claims keep the margin from both ends, and each of the two sessions of the second half is short.
    closed = close_all(DeduplicatorSettings(production, tuple(map(source_of, halves)), max_out_of_orderness_us=200_000))
    assert_production_is(production, truth)
    assert [each.alarms for each in closed] == [()] * len(closed)
    assert rows(production, "SELECT count(*) FROM merge_statistics WHERE table_name <> 'market_lifecycle'"
                " AND (comparable > 0 OR agreement IS NOT NULL)") == [(0,)]  # fmt: skip
    covered = {ticker for (ticker,) in rows(production, "SELECT DISTINCT ticker FROM coverage")}
    assert covered >= set(tickers)


def followed(gatherer: RunningGatherer) -> int:
    return gatherer.status.followed_markets or 0


def trade(exchange: ServerThread) -> None:
    """Let the exchange trade until every kind of message was published some hundred times."""
    before = exchange.state()["published"]["total"]
    exchange.rate(RATE)
    eventually(lambda: exchange.state()["published"]["total"] - before > 900, what="900 messages")
    exchange.rate(0.0)


def caught_up(exchange: ServerThread, *gatherers: RunningGatherer) -> None:
    """Wait until everything that was sent is committed."""

    def is_idle() -> bool:
        sent = all(each["waiting_bytes"] == 0 for each in exchange.state()["connections"])
        return sent and all(each.ingest.behind_bytes == 0 for each in gatherers)

    last = "SELECT max(exchange_ts) FROM orderbook_deltas"
    eventually(is_idle, what="nothing on its way")
    before = [each.rows(last) for each in gatherers]
    eventually(lambda: is_idle() and before == [each.rows(last) for each in gatherers], what="everything committed")


def recorded_only_its_own(half: GathererSettings) -> None:
    """Nothing of the other half but lifecycle, and no gap where the other half's messages were left out."""
    for table in ("orderbook_deltas", "orderbook_snapshots", "trades", "tickers"):
        found = {ticker for (ticker,) in rows(half.timeseries_url, f"SELECT DISTINCT ticker FROM {table}")}
        assert found, table
        assert all(map(half.market_filter.shard.holds, found)), table
    assert rows(half.timeseries_url, "SELECT count(*) FROM sequence_gaps") == [(0,)]
    torn = (
        "SELECT count(*) FROM (SELECT seq_from, lag(seq_to) OVER (PARTITION BY stream_id ORDER BY seq_from) AS before"
        " FROM stream_segments) AS s WHERE seq_from > before + 1"
    )
    assert rows(half.timeseries_url, torn) == [(0,)]


def source_of(half: GathererSettings) -> GathererSource:
    return GathererSource(half.name, half.timeseries_url, half.catalog_url)


def close_all(settings: DeduplicatorSettings) -> Sequence[HourClose]:
    """Merge and close the hours of the run: one, or two where it went over a full hour."""
    now = SYSTEM_CLOCK.now().replace(minute=0, second=0, microsecond=0)
    first = close_hour(settings, now, SYSTEM_CLOCK, BOUNDS)
    database = Database(settings.production_url, name="production")
    try:
        earlier = [hour for hour in find_active_hours(database) if hour < now]
    finally:
        database.dispose()
    return [first, *(close_hour(settings, hour, SYSTEM_CLOCK, BOUNDS) for hour in earlier)]


def assert_production_is(production_url: str, truth: Truth) -> None:
    published = {"orderbook_deltas": truth.deltas, "trades": truth.trades, "tickers": truth.tickers}
    with Production(production_url) as production:
        for table in TIMED_TABLES:
            told = published[table.name](ALL_TIME)
            assert told.height > 20, table.name
            found = compare(table, told, production.rows(table))
            assert found.is_none, (table.name, found)
