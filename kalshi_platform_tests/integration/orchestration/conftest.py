"""A configured platform for tests: seeded gatherers, production, a lake in a folder, and a Dagster instance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import cast

import dagster as dg
import pytest
from dagster._core.storage.defs_state import DefsStateStorage

from kalshi_platform import config
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.market.times import US_PER_HOUR, US_PER_S, datetime_from_us, us_from_datetime
from kalshi_platform.orchestration.build import build, load_code_location
from kalshi_platform_tests.fixtures.hand_filled_gatherer import delta_row, snapshot_row, ticker_row, trade_row
from kalshi_platform_tests.fixtures.keys import key_file
from kalshi_platform_tests.fixtures.merge_world import MergeWorld
from kalshi_platform_tests.fixtures.s3 import (  # noqa: F401 - fixtures
    s3_bucket,
    s3_client,
    s3_endpoint,
    s3_settings,
)

HOUR0_US = us_from_datetime(SYSTEM_CLOCK.now()) // US_PER_HOUR * US_PER_HOUR - 4 * US_PER_HOUR


def hour(number: int) -> datetime:
    """Hour 0 … 3: four hours that have ended."""
    return datetime_from_us(HOUR0_US + number * US_PER_HOUR)


@dataclass
class Platform:
    """What a test works with."""

    world: MergeWorld
    instance: dg.DagsterInstance
    defs: dg.Definitions
    lake: Path
    state_dir: Path

    def seed(self, number: int, rows: int = 5) -> None:
        """Rows of hour `number` in both gatherers: `rows` deltas and trades, a ticker, a snapshot."""
        start = HOUR0_US + number * US_PER_HOUR + US_PER_S
        for index, gatherer in enumerate(self.world.gatherers.values()):
            stream = 100 * (number + 1) + index
            deltas = [
                delta_row("A", ts_us=start + n * US_PER_S, seq=n + 2, stream_id=stream, delta_e2=100 + n)
                for n in range(rows)
            ]
            gatherer.commit(
                orderbook_deltas=deltas,
                trades=[trade_row("A", f"t{number}-{n}", ts_us=start + n * US_PER_S) for n in range(rows)],
                tickers=[ticker_row("A", ts_us=start + number)],
                orderbook_snapshots=[snapshot_row("A", received_us=start, stream_id=stream, seq=1)],
                segments=[(stream, 1, rows + 1)],
                book_subscriptions=[(stream, "A", 1, None)],
            )

    def evaluate(self, schedule: str, at: datetime | None = None, **resources: object) -> list[dg.RunRequest] | str:
        """Evaluate a schedule, as of now or of `at`: its requests, or why there are none."""
        moment = at or SYSTEM_CLOCK.now()
        context = dg.build_schedule_context(instance=self.instance, scheduled_execution_time=moment)
        result = self.defs.resolve_schedule_def(schedule)(context, **resources)
        if isinstance(result, dg.SkipReason):
            return str(result.skip_message)
        return [result] if isinstance(result, dg.RunRequest) else list(cast(Iterable[dg.RunRequest], result))

    def run(self, request: dg.RunRequest, job: str = "close_hours") -> dg.ExecuteInProcessResult:
        """Do what a request asks for, in this process."""
        return self.defs.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key,
            tags=dict(request.tags),
            asset_selection=None if request.asset_selection is None else list(request.asset_selection),
            raise_on_error=False,
        )


@pytest.fixture(autouse=True)
def no_storage_of_earlier_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the current storage of Dagster, which contexts of earlier tests put back when they are collected."""
    monkeypatch.setattr(DefsStateStorage, "get", lambda: None)


@pytest.fixture
def platform(
    merge_world: Callable[..., MergeWorld],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Platform]:
    """Two gatherers, all settings in the environment, an instance of its own."""
    world = merge_world(2, catalogs=True)
    settings = {
        "KALSHI_GATHERERS": "g1,g2",
        "KALSHI_PRODUCTION_DATABASE_URL": world.production_url,
        "KALSHI_LAKE_ROOT": f"file://{tmp_path / 'lake'}",
        "KALSHI_STATE_DIR": str(tmp_path / "state"),
        "KALSHI_CHECK_TRADES": "no",
        "KALSHI_API_KEY_ID": "a-key",
        "KALSHI_PRIVATE_KEY_PATH": str(key_file(tmp_path)),
    }
    for name, gatherer in world.gatherers.items():
        settings[config.timeseries_variable(name)] = gatherer.url
        settings[config.catalog_variable(name)] = world.catalog_urls[name]
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    # One file for the events of all runs: a file for each, which is the default, takes longer than the runs themselves.
    events = {
        "module": "dagster._core.storage.event_log",
        "class": "ConsolidatedSqliteEventLogStorage",
        "config": {"base_dir": str(tmp_path)},
    }
    # What is launched is done at once, in this process.
    launcher = {
        "module": "dagster._core.launcher.sync_in_memory_run_launcher",
        "class": "SyncInMemoryRunLauncher",
    }
    coordinator = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}
    overrides = {"event_log_storage": events, "run_launcher": launcher, "run_coordinator": coordinator}
    with dg.instance_for_test(overrides=overrides, temp_dir=str(tmp_path)) as instance:
        monkeypatch.setattr(DefsStateStorage, "get", lambda: instance.defs_state_storage)
        yield Platform(world, instance, build(load_code_location()), tmp_path / "lake", tmp_path / "state")
