"""The definition of tables is whole: units, keys, meanings."""

from __future__ import annotations

import pytest

from kalshi_platform.market.tables import DATABASES, MERGED_TABLES, TIME_UNIT, Column, Table

TABLES = [
    pytest.param(table, id=f"{kind}.{name}") for kind, tables in DATABASES.items() for name, table in tables.items()
]


@pytest.mark.parametrize("table", TABLES)
def test_every_table_and_column_has_a_meaning_and_a_known_key(table: Table) -> None:
    names = [column.name for column in table.columns]
    assert len(set(names)) == len(names)
    assert set(table.key) <= set(names)
    assert not any(table[name].nullable for name in table.key)
    assert table.time_column in ("", *names)
    for text in (table.meaning, *(column.meaning for column in table.columns)):
        assert text.endswith("."), text


def test_units_follow_from_names_and_types() -> None:
    units = {
        "price_e4": "1/10,000 dollar",
        "yes_count_e2": "1/100 contract",
        "settlement_value_e6": "1/1,000,000 dollar",
        "largest_us": "microseconds",
        "oldest_age_s": "seconds",
        "volume_contracts": "contracts",
        "open_dollars": "dollars",
        "ticker": "",
    }
    assert {name: Column(name, "bigint", "It is.").unit for name in units} == units
    assert Column("closed_at", "timestamptz", "It is.").unit == TIME_UNIT
    assert Column("price_e4", "integer", "It is.").comment == "It is. In 1/10,000 dollar."
    assert Column("closed_at", "timestamptz", "It is.").comment == "It is."


def test_a_column_is_filled_by_the_field_of_its_name_or_with_its_unit() -> None:
    assert Column("received_at", "timestamptz", "It is.").struct_field(["received_at_ns"]) == "received_at_ns"
    assert Column("exchange_ts", "timestamptz", "It is.").struct_field(["exchange_ts_us"]) == "exchange_ts_us"
    assert Column("seq", "bigint", "It is.").struct_field(["seq", "seq_us"]) == "seq"
    assert Column("seq", "bigint", "It is.").struct_field(["sid"]) is None


def test_merged_tables_have_every_column_of_the_gatherer_in_production() -> None:
    for name in MERGED_TABLES:
        recorded, merged = (DATABASES[kind][name] for kind in ("timeseries", "production"))
        assert set(recorded.names) - {"batch_no"} <= set(merged.names)
        assert set(merged.names) - set(recorded.names) <= {"gatherer", "source_gatherer"}
