"""Records become the columns that the tables have."""

from __future__ import annotations

import pyarrow as pa

from kalshi_platform.gatherer.ingest.columns import tables_of, times_us, with_batch_no
from kalshi_platform.market.records import BookDelta
from kalshi_platform.market.tables import GATHERER_TABLES
from kalshi_platform.market.times import US_PER_HOUR
from kalshi_platform.storage.arrow import arrow_schema
from kalshi_platform_tests.fixtures.gathered import BASE_US, STEPS, Stream


def test_every_kind_of_row_fits_its_table_exactly() -> None:
    stream = Stream()
    for step in STEPS:
        stream.step(step)
    tables = tables_of(stream.records)
    assert set(tables) == set(GATHERER_TABLES)
    for name, table in tables.items():
        assert with_batch_no(name, table, 7).schema == arrow_schema(GATHERER_TABLES[name])
        assert with_batch_no(name, table, 7)["batch_no"].to_pylist() == [7] * table.num_rows


def test_values_keep_their_units() -> None:
    stream = Stream()
    stream.snapshot()
    stream.delta()
    tables = tables_of(stream.records)
    delta = tables["orderbook_deltas"].to_pylist()[0]
    assert (delta["price_e4"], delta["delta_e2"], delta["seq"]) == (5600, -200, 2)
    assert tables["orderbook_deltas"]["exchange_ts"].cast(pa.int64()).to_pylist() == [stream.now_us]
    snapshot = tables["orderbook_snapshots"].to_pylist()[0]
    assert (snapshot["yes_price_e4"], snapshot["yes_count_e2"]) == ([100], [5])
    assert snapshot["requested_at"] is None


def test_ledger_entries_are_no_rows() -> None:
    assert tables_of(Stream().records) == {}


def test_times_name_every_hour_between_the_first_and_the_last() -> None:
    hours = (5, 0, 2)
    rows = [
        BookDelta("A", "yes", 1, 1, BASE_US + hour * US_PER_HOUR + 3, BASE_US * 1_000, 1, seq, 0)
        for seq, hour in enumerate(hours, start=1)
    ]
    times = times_us("orderbook_deltas", tables_of(rows)["orderbook_deltas"])
    assert times[0] == BASE_US + 3
    assert times[-1] == BASE_US + 5 * US_PER_HOUR + 3
    assert {time // US_PER_HOUR for time in times} == {(BASE_US + hour * US_PER_HOUR) // US_PER_HOUR for hour in hours}
