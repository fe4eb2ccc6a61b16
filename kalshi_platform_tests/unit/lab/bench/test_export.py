"""What `bench export` measures with: deltas as an exchange makes them, and sizes of a lake's files."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from kalshi_platform.lab.bench.export.export_data import ExportData
from kalshi_platform.lab.bench.export.sizes import measure_sizes, shown_sizes
from kalshi_platform.lake.layout import Partition, find_dataset
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform.market.tables import PRODUCTION_TABLES
from kalshi_platform.storage.arrow import arrow_schema
from kalshi_platform_tests.fixtures.lake import HOUR, put_partition

DELTAS = find_dataset("orderbook_deltas")


def test_the_generated_hour_is_one_that_an_exchange_could_have_sent() -> None:
    data = ExportData(5_000, HOUR, markets=50)
    content = pa.concat_tables(data.batches(700))
    assert content.schema.equals(arrow_schema(PRODUCTION_TABLES["orderbook_deltas"]))
    assert content.equals(pa.concat_tables(ExportData(5_000, HOUR, markets=50).batches()).combine_chunks())
    frame = pl.DataFrame(pl.from_arrow(content))
    assert frame.height == pytest.approx(5_000, rel=0.05)
    assert frame.select(DELTAS.identity).n_unique() == frame.height
    assert frame["exchange_ts"].dt.truncate("1h").n_unique() == 1
    moments = frame.group_by("ticker", "side", "price_e4", "exchange_ts").agg(pl.col("delta_e2").sum())
    sizes = moments.sort("exchange_ts").select(pl.col("delta_e2").cum_sum().over("ticker", "side", "price_e4"))
    assert sizes.filter(pl.col("delta_e2") < 0).is_empty()
    busiest = frame["ticker"].value_counts(sort=True)["count"][0]
    assert busiest > frame.height / 20


def test_sizes_are_those_of_each_data_set_that_has_rows(tmp_path: Path) -> None:
    store = FolderStore(FolderRoot(tmp_path / "lake"))
    content = pa.concat_tables(ExportData(3_000, HOUR, markets=20).batches())
    ordered = content.sort_by([(name, "ascending") for name in DELTAS.order]).cast(DELTAS.schema).combine_chunks()
    put_partition(store, Partition(DELTAS, HOUR), ordered.to_batches())
    put_partition(store, Partition(find_dataset("trades"), HOUR), [])
    (sizes,) = measure_sizes(store)
    assert (sizes.dataset, sizes.rows) == (DELTAS.key, content.num_rows)
    assert 0 < sizes.lake < sizes.pyarrow
    assert set(sizes.columns) == set(DELTAS.schema.names)
    assert DELTAS.key in shown_sizes([sizes])
