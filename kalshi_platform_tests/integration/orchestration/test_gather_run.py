"""A gather run against a simulated exchange: what it reports, and how it ends; the catalog and books on demand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import dagster as dg
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.lab.demo.past import OF_NO_DAY
from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.orchestration import keys
from kalshi_platform.orchestration.partitions import RANGE_END, RANGE_START
from kalshi_platform.orchestration.resources import PlatformResource
from kalshi_platform.orchestration.schedules.catalog import sync_catalog_when_stale
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.stack import rows
from kalshi_platform_tests.integration.orchestration.conftest import Platform

MARKETS = 4


@pytest.fixture
def exchange(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerThread]:
    """An exchange with four markets and some traffic, in the environment of the platform."""
    with running_exchange(tmp_path, markets=MARKETS, rate=100, seed=5) as exchange:
        monkeypatch.setenv("KALSHI_REST_URL", exchange.rest_url)
        monkeypatch.setenv("KALSHI_WS_URL", exchange.ws_url)
        monkeypatch.setenv("KALSHI_API_KEY_ID", exchange.key_id)
        monkeypatch.setenv("KALSHI_PRIVATE_KEY_PATH", str(exchange.key_file))
        yield exchange


def test_an_interrupted_gather_run_writes_what_it_received_and_says_goodbye(
    platform: Platform, exchange: ServerThread
) -> None:
    url = platform.world.gatherers["g1"].url

    def interrupt_when_recording() -> None:
        eventually(lambda: rows(url, "SELECT count(*) FROM orderbook_deltas")[0][0] > 50, within_s=60)
        signal.raise_signal(signal.SIGINT)

    interrupter = threading.Thread(target=interrupt_when_recording, daemon=True)
    interrupter.start()
    job = platform.defs.resolve_job_def("gather")
    with pytest.raises((dg.DagsterExecutionInterruptedError, KeyboardInterrupt)):
        job.execute_in_process(instance=platform.instance, partition_key="g1")
    interrupter.join(timeout=10)
    (run,) = platform.instance.get_runs()
    assert run.tags["kalshi/service"] == "gatherer/g1"
    assert rows(url, "SELECT state, run_id FROM heartbeats WHERE service = 'gatherer/g1'") == [("stopped", run.run_id)]
    assert rows(url, "SELECT count(*) FROM sessions WHERE closed_at IS NULL") == [(0,)]
    assert rows(url, "SELECT count(*) FROM book_subscriptions WHERE seq_to IS NULL") == [(0,)]
    stored = rows(url, "SELECT count(*) FROM orderbook_deltas")[0][0]
    made = platform.instance.fetch_materializations(keys.gatherer("orderbook_deltas"), limit=5).records
    assert [record.partition_key for record in made] == ["g1"]
    assert made[0].asset_materialization is not None
    assert made[0].asset_materialization.metadata["dagster/row_count"].value == stored
    markets = platform.instance.fetch_materializations(keys.gatherer("markets"), limit=5).records
    assert markets, "the run's own sync of the markets is a materialization"


def test_catalog_and_books_on_demand(platform: Platform, exchange: ServerThread) -> None:
    result = platform.defs.resolve_job_def("sync_catalog").execute_in_process(
        instance=platform.instance, partition_key="g2"
    )
    assert result.success
    assert rows(platform.world.catalog_urls["g2"], "SELECT count(*) FROM markets") == [(MARKETS,)]
    status = platform.instance.get_latest_materialization_event(keys.EXCHANGE_STATUS)
    assert status is not None
    assert status.asset_materialization is not None
    assert status.asset_materialization.metadata["exchange_active"].value is True
    books = platform.defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=platform.instance, partition_key="g2", asset_selection=[keys.REST_SNAPSHOTS]
    )
    assert books.success
    url = platform.world.gatherers["g2"].url
    assert rows(url, "SELECT source, count(*) FROM orderbook_snapshots GROUP BY source") == [("rest", MARKETS)]
    merged = platform.defs.resolve_job_def("merge_catalog").execute_in_process(instance=platform.instance)
    assert merged.success
    assert platform.world.rows("SELECT count(*) FROM markets") == [(MARKETS,)]
    made = platform.instance.get_latest_materialization_event(keys.production("markets"))
    assert made is not None
    assert made.asset_materialization is not None
    assert made.asset_materialization.metadata["dagster/row_count"].value == MARKETS


def test_what_belongs_to_no_day_is_made_by_one_run(
    platform: Platform, exchange: ServerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = dict(list(DATASETS.items())[:1])  # of all of them it is proven elsewhere, and each takes half a second
    monkeypatch.setattr("kalshi_platform.orchestration.assets.lake_tables.DATASETS", one)
    done = platform.defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=platform.instance,
        asset_selection=[dg.AssetKey(key.split("/")) for key in OF_NO_DAY],
        tags={RANGE_START: "g1", RANGE_END: "g2"},
    )
    assert done.success
    assert platform.instance.get_materialized_partitions(keys.EXCHANGE_STATUS) == {"g1", "g2"}
    assert all(check.passed for check in done.get_asset_check_evaluations())
    assert exchange.state()["exchange_active"]


def test_only_stale_catalogs_are_synced(platform: Platform, exchange: ServerThread) -> None:
    def asked() -> list[str | None]:
        context = dg.build_schedule_context(instance=platform.instance, scheduled_execution_time=SYSTEM_CLOCK.now())
        answer = sync_catalog_when_stale(context, platform=PlatformResource())
        assert not isinstance(answer, dg.SkipReason), answer.skip_message
        return [request.partition_key for request in cast(Iterable[dg.RunRequest], answer)]

    assert asked() == ["g1", "g2"]
    job = platform.defs.resolve_job_def("sync_catalog")
    assert job.execute_in_process(instance=platform.instance, partition_key="g2").success
    assert asked() == ["g1"]
