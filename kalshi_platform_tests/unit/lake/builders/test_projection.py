"""Data sets that have one row for each raw row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from kalshi_platform.lake.builders.builder import HourRows
from kalshi_platform.lake.datasets import DATASETS

START = datetime(2026, 11, 20, 4, tzinfo=UTC)
START_US = round(START.timestamp() * 1e6)


def built(key: str, rows: pl.DataFrame, *, in_day: bool = True) -> pl.DataFrame:
    data = DATASETS[key]
    assert data.builder is not None
    builder = data.builder()
    (source,) = data.inputs
    frames = [builder.add(HourRows(START_US, START_US + 3_600_000_000, in_day, {source: rows})), builder.finish()]
    return pl.concat([frame for frame in frames if frame.width])


def lifecycle(*contents: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "ticker": ["KXA-1"] * len(contents),
            "received_at": [START + timedelta(seconds=n) for n in range(len(contents))],
            "exchange_ts": [None] * len(contents),
            "event_type": ["determined"] * len(contents),
            "content": contents,
        },
        schema_overrides={"exchange_ts": pl.Datetime("us", "UTC")},
    )


def test_a_determination_has_its_result_and_value_as_columns() -> None:
    found = built(
        "processed/lifecycle",
        lifecycle(
            '{"result": "yes", "settlement_value": "1.0000"}',
            '{"result": "scalar", "settlement_value": "0.5625"}',
            '{"settled_ts": 1}',
            '{"settlement_value": "much"}',
        ),
    )
    assert found["result"].to_list() == ["yes", "scalar", None, None]
    assert found["settlement_value_dollars"].to_list() == [1_000_000, 562_500, None, None]


@pytest.mark.parametrize("key", ["processed/tickers", "processed/lifecycle"])
def test_every_row_of_the_day_stands_once_in_the_columns_of_the_data_set(key: str) -> None:
    data = DATASETS[key]
    ((source, columns),) = data.inputs.items()
    types = pl.DataFrame(DATASETS[source].schema.empty_table()).schema
    rows = pl.DataFrame({name: [None] * 3 for name in columns}, schema={name: types[name] for name in columns})
    found = built(key, rows)
    assert found.height == 3
    assert set(data.schema.names) <= set(found.columns)
    assert not built_outside(key, rows)


def built_outside(key: str, rows: pl.DataFrame) -> int:
    data = DATASETS[key]
    assert data.builder is not None
    (source,) = data.inputs
    return data.builder().add(HourRows(START_US, START_US + 3_600_000_000, in_day=False, rows={source: rows})).height
