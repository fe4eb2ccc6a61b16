"""The asset lake/tables: the Iceberg tables of a lake, registered in production."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.layout import partition_at
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.lake.store import open_store
from kalshi_platform.market.times import hour_of
from kalshi_platform.orchestration.assets.lake_tables import lake_tables
from kalshi_platform.orchestration.resources import LakeResource, ProductionDatabase
from kalshi_platform_tests.fixtures.lake import batch, put_partition, row
from kalshi_platform_tests.fixtures.production import (  # noqa: F401 - fixtures
    Production,
    production,
    production_template,
)


def test_the_asset_names_the_files_of_the_last_week(
    production: Production,  # noqa: F811 - the fixture
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trades = DATASETS["raw/trades"]
    monkeypatch.setenv("KALSHI_PRODUCTION_DATABASE_URL", production.url)
    monkeypatch.setenv("KALSHI_LAKE_ROOT", f"file://{tmp_path}/lake")
    monkeypatch.setattr("kalshi_platform.orchestration.assets.lake_tables.DATASETS", {trades.key: trades})
    store = open_store(LakeSettings(f"file://{tmp_path}/lake"))
    at = hour_of(SYSTEM_CLOCK.now()) - timedelta(days=2)
    put_partition(store, partition_at(trades, at), [batch(trades, [row(trades, at), row(trades, at, ticker="B")])])
    result = dg.materialize(
        [lake_tables], resources={"lake": LakeResource(), "production_database": ProductionDatabase()}
    )
    (made,) = result.asset_materializations_for_node("lake__tables")
    assert (made.metadata["dagster/row_count"].value, made.metadata["commits"].value) == (2, 1)
    assert made.metadata["not_registered"].value == "none"
