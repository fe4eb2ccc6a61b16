"""The registry of data sets, and what follows from it."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from kalshi_platform.lake.datasets import DATASETS, LAYERS, Dataset
from kalshi_platform.lake.dictionary import data_dictionary
from kalshi_platform.market.tables import DATABASES, PRODUCTION_TABLES, Column

EACH = [pytest.param(data, id=key) for key, data in DATASETS.items()]


@pytest.mark.parametrize("data", EACH)
def test_every_data_set_says_what_it_is_and_how_it_is_made(data: Dataset) -> None:
    names = {column.name for column in data.columns}
    assert data.layer in LAYERS
    assert data.description.endswith(".")
    assert {data.time_column, *data.identity, *data.order, *data.plain} <= names
    assert data.time_column in data.order
    # An identifier of a trade stands in one of two columns.
    assert not any(data.schema.field(name).nullable for name in data.identity if name != "trade_id")
    assert (data.source in DATABASES["production"]) == (data.builder is None)
    assert [bool(data.statement), data.builder is not None].count(True) == (data.layer != "raw")
    assert bool(data.inputs) == (data.builder is not None)


@pytest.mark.parametrize("data", EACH)
def test_inputs_of_a_builder_are_columns_of_raw_data_sets(data: Dataset) -> None:
    for key, columns in data.inputs.items():
        raw = DATASETS[key]
        assert raw.layer == "raw"
        assert columns[0] == "ticker"
        assert raw.time_column in columns
        assert set(columns) <= set(raw.schema.names)


@pytest.mark.parametrize("data", EACH)
def test_fields_carry_unit_and_meaning_into_the_files(data: Dataset) -> None:
    for column in data.columns:
        metadata = data.schema.field(column.name).metadata
        assert metadata == {
            b"unit": column.unit.encode(),
            b"description": column.meaning.encode(),
            b"PARQUET:field_id": str(data.field_ids[column.name].column).encode(),
        }


@pytest.mark.parametrize("data", EACH)
def test_a_column_that_is_added_takes_no_other_id(data: Dataset) -> None:
    of_list = replace(data.columns[0], name="added_list", type="bigint[]", since=data.version + 1, formerly=None)
    added = replace(data.columns[0], name="added", since=data.version + 1, formerly=None)
    grown = replace(data, columns=(of_list, *data.columns, added))
    assert {name: grown.field_ids[name] for name in data.field_ids} == data.field_ids
    ids = [number for each in grown.field_ids.values() for number in each if number is not None]
    assert sorted(ids) == list(range(1, len(ids) + 1))
    assert data.schema.metadata[b"kalshi.schema_version"] == str(data.version).encode()


@pytest.mark.parametrize("data", EACH)
def test_columns_that_came_later_can_be_read_from_older_files(data: Dataset) -> None:
    for column in data.columns:
        assert column.since <= data.readable_since or column.formerly is not None or column.nullable, column.name
    assert data.names_in(data.readable_since - 1) is None
    assert data.names_in(data.version + 1) is None


def test_older_files_have_former_names_and_lack_new_columns() -> None:
    trades = DATASETS["processed/trades"]
    newer = replace(
        trades,
        columns=(
            *trades.columns,
            Column("fee_dollars", "numeric(9,4)", "Fee.", nullable=True, since=2),
            Column("observer", "text", "Gatherer.", since=3, formerly="witness"),
        ),
    )
    assert newer.version == 3
    versions = {version: newer.names_in(version) or {} for version in (1, 2, 3)}
    assert [(versions[each]["fee_dollars"], versions[each]["observer"]) for each in (1, 2, 3)] == [
        (None, "witness"),
        ("fee_dollars", "witness"),
        ("fee_dollars", "observer"),
    ]
    assert newer.schema.field("fee_dollars").type == pa.decimal128(9, 4)


def test_raw_data_sets_are_the_tables_of_production() -> None:
    raw = {data.name: data for data in DATASETS.values() if data.layer == "raw"}
    assert set(raw) == {*PRODUCTION_TABLES, "coverage"}
    for name, data in raw.items():
        assert [each for each in data.schema.names if each != "trade_id_text"] == list(
            DATABASES["production"][name].names
        )


def test_the_data_dictionary_has_every_table_and_data_set() -> None:
    lines = set(data_dictionary())
    assert {f"### lake: `{key}`" for key in DATASETS} <= lines
    assert {f"### timeseries: `{name}`" for name in DATABASES["timeseries"]} <= lines
    own = (
        set(DATABASES["production"].values())
        - set(DATABASES["catalog"].values())
        - set(DATABASES["timeseries"].values())
    )
    assert {f"### production: `{table.name}`" for table in own} <= lines
