"""What a gatherer recorded is played from its journal to three others: production has the same rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.merge.merge_pass import Merger
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.lab.proof.rebuilt import compare_production
from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform.lab.simulator.settings import ReplaySettings
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.gatherer_service import BOUNDS, running_gatherer
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.stack import rows
from kalshi_platform_tests.fixtures.storage import MigratedTemplate

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180), pytest.mark.xdist_group("recordings")]
Merge = Callable[..., str]
MARKETS, RECORDED_S = 12, 3.0


@pytest.fixture
def merged_from(database_factory: DatabaseFactory, migrated_template: MigratedTemplate) -> Merge:
    """Merge gatherers into a new production database, and return its URL."""

    def merge(*gatherers: GathererSettings) -> str:
        url = database_factory(migrated_template("production"))
        sources = tuple(GathererSource(each.name, each.timeseries_url, each.catalog_url) for each in gatherers)
        merger = Merger(DeduplicatorSettings(production_url=url, sources=sources), SYSTEM_CLOCK, BOUNDS)
        try:
            while merger.merge_new().behind:
                pass
        finally:
            merger.dispose()
        return url

    return merge


def record(exchange: ServerThread, settings: GathererSettings) -> None:
    """Record for some seconds; one line is cut meanwhile."""
    with running_gatherer(settings, exchange) as gatherer:
        gatherer.follows(MARKETS)
        exchange.rate(400)
        time.sleep(RECORDED_S / 2)
        exchange.fault("cut", user_agent="books")
        eventually(lambda: gatherer.value("SELECT count(*) FROM sessions") == 3)  # books, feed, and books again
        gatherer.follows(MARKETS)
        time.sleep(RECORDED_S / 2)
        exchange.market("change_metadata", ticker=exchange.tickers()[0], strike=7.5)
        exchange.rate(0)


def holds(gatherer: GathererSettings, deltas: int) -> bool:
    return rows(gatherer.timeseries_url, "SELECT count(*) FROM orderbook_deltas") == [(deltas,)]


def test_three_gatherers_record_from_a_journal_what_is_in_it(
    gatherer_settings: SettingsFactory, merged_from: Merge, tmp_path: Path
) -> None:
    recorded = gatherer_settings("g0")
    with running_exchange(tmp_path, markets=MARKETS, combos=0, rate=0) as exchange:
        record(exchange, recorded)
    journal = recorded.folder / "journal"
    ((deltas,),) = rows(recorded.timeseries_url, "SELECT count(*) FROM orderbook_deltas")
    assert deltas > 500
    settings = [gatherer_settings(f"g{number}") for number in (1, 2, 3)]
    replay = ReplaySettings(capture=journal, speed=0, wait_subscribers=3)
    with running_exchange(tmp_path, replay=replay) as exchange, ExitStack() as stack:
        for each in settings:
            stack.enter_context(running_gatherer(each, exchange))
        eventually(lambda: exchange.state()["replay"]["finished"], within_s=90)
        eventually(lambda: all(not line["waiting_bytes"] for line in exchange.state()["connections"]))
        for each in settings:
            eventually(partial(holds, each, deltas), within_s=60, what=f"all deltas at {each.name}")
    original, replayed = merged_from(recorded), merged_from(*settings)
    compared = {table.name: table for table in compare_production(original, replayed)}
    # A book is a row for each gatherer that was sent it.
    del compared["orderbook_snapshots"]
    assert [(table.name, table.missing, table.extra, table.example) for table in compared.values()] == [
        (name, 0, 0, "") for name in compared
    ]
    assert all(table.recorded for table in compared.values())
