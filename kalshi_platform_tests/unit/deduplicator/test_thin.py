"""Rows of several gatherers → rows of production."""

from __future__ import annotations

import random
from typing import Any

import polars as pl
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.deduplicator.anchors import range_min
from kalshi_platform.deduplicator.runs import runs, spans
from kalshi_platform.deduplicator.thin import rounds, thin
from kalshi_platform.market.times import US_PER_S
from kalshi_platform.storage.tables import GATHERER_TABLES, PRODUCTION_TABLES
from kalshi_platform_tests.fixtures.hand_filled_gatherer import (
    delta_row,
    lifecycle_row,
    snapshot_row,
    ticker_row,
    trade_row,
)

T0 = 1_795_000_000_000_000


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    schema = pa.schema([field for field in GATHERER_TABLES[name].schema if field.name != "batch_no"])
    return pa.table([pa.array([row.get(field.name) for row in rows], field.type) for field in schema], schema=schema)


def test_the_first_receiver_is_the_witness_and_names_decide_between_equals() -> None:
    late, early = delta_row("A", ts_us=T0, seq=1, received_at=9), delta_row("A", ts_us=T0, seq=2, received_at=5)
    united = thin(
        "orderbook_deltas", {"g1": table("orderbook_deltas", [late]), "g2": table("orderbook_deltas", [early])}
    )
    assert united.select("gatherer", "seq").rows() == [("g2", 2)]
    same = thin(
        "orderbook_deltas", {"g2": table("orderbook_deltas", [early]), "g1": table("orderbook_deltas", [early])}
    )
    assert same["gatherer"].to_list() == ["g1"]


def test_every_table_has_the_columns_of_production() -> None:
    rows = {
        "orderbook_deltas": delta_row("A", ts_us=T0, seq=1),
        "trades": trade_row("A", "t", ts_us=T0),
        "tickers": ticker_row("A", ts_us=T0),
        "orderbook_snapshots": snapshot_row("A", received_us=T0, seq=1, yes={5000: 1}),
        "market_lifecycle": lifecycle_row("A", received_us=T0),
    }
    for name, row in rows.items():
        united = thin(name, {"g1": table(name, [row]), "g2": table(name, [row])})
        assert set(PRODUCTION_TABLES[name].columns) <= set(united.columns)
        assert united.height == (2 if name == "orderbook_snapshots" else 1)


@given(
    st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from("tu"), st.integers(0, 200)), min_size=1, max_size=12),
    st.integers(0, 99),
)
def test_trades_of_one_id_are_a_minute_apart_and_none_vanishes(drawn: list[tuple[str, str, int]], seed: int) -> None:
    rows = [trade_row(ticker, trade, ts_us=T0 + second * US_PER_S) for ticker, trade, second in drawn]
    random.Random(seed).shuffle(rows)
    parts = {"g1": table("trades", rows[::2]), "g2": table("trades", rows[1::2])}
    kept = thin("trades", {name: part for name, part in parts.items() if part.num_rows})
    times = [(row["ticker"], row["trade_id"], row["exchange_ts"].timestamp()) for row in kept.to_dicts()]
    for ticker, trade, moment in times:
        assert sum((ticker, trade) == other[:2] and abs(moment - other[2]) <= 60 for other in times) == 1
    for row in rows:
        near = [abs(other[2] - row["exchange_ts"] / US_PER_S) for other in times if other[0] == row["ticker"]]
        assert min(near) <= 60


def test_lifecycle_rows_of_one_content_are_asked_one_after_the_other() -> None:
    rows = [lifecycle_row("A", received_us=T0 + second * US_PER_S) for second in (301, 0, 299)]
    rows.append(lifecycle_row("B", received_us=T0 + 7))
    united = thin("market_lifecycle", {"g1": table("market_lifecycle", rows)})
    parts = [part.select("ticker", pl.col("received_at").dt.epoch("s") - T0 // US_PER_S).rows()
             for part in rounds("market_lifecycle", united)]  # fmt: skip
    assert parts == [[("A", 0), ("B", 0)], [("A", 299)], [("A", 301)]]


@given(st.lists(st.integers(-50, 50), max_size=40), st.data())
def test_range_min_is_the_least_of_a_range(values: list[int], data: st.DataObject) -> None:
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, len(values)), st.integers(0, len(values))), min_size=1, max_size=10)
    )
    low, high = pl.Series([min(pair) for pair in pairs]), pl.Series([max(pair) for pair in pairs])
    found = range_min(pl.Series(values, dtype=pl.Int64), low, high).to_list()
    assert found == [min(values[a:b], default=None) for a, b in zip(low, high, strict=True)]


def test_touching_segments_are_a_run_and_memberships_end_with_it() -> None:
    segments = pl.DataFrame(
        [(1, 5, 6), (1, 1, 4), (1, 8, 9), (2, 1, 1)], schema=["stream_id", "seq_from", "seq_to"], orient="row"
    )
    found = runs(segments)
    assert found.rows() == [(1, 1, 6), (1, 8, 9), (2, 1, 1)]
    memberships = pl.DataFrame(
        [(1, "A", 0, 2, None), (1, "B", 0, 3, 4), (1, "C", 0, 7, None), (1, "D", 0, 8, 12), (3, "E", 0, 1, None)],
        schema={
            "stream_id": pl.Int64, "ticker": pl.String, "exchange_index": pl.Int64, "seq_from": pl.Int64,
            "seq_to": pl.Int64,
        },
        orient="row",
    )  # fmt: skip
    clipped = spans(memberships, found).select("ticker", "seq", "seq_end").rows()
    assert clipped == [("A", 2, 6), ("B", 3, 4), ("D", 8, 9)]
