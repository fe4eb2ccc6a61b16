"""Rows of several gatherers → rows of production."""

from __future__ import annotations

import random
from typing import Any

import polars as pl
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.deduplicator.merge.deduplicate import deduplicate, insert_rounds
from kalshi_platform.market.tables import GATHERER_TABLES, PRODUCTION_TABLES
from kalshi_platform.market.times import US_PER_S
from kalshi_platform.storage.arrow import arrow_schema
from kalshi_platform_tests.fixtures.hand_filled_gatherer import (
    delta_row,
    lifecycle_row,
    snapshot_row,
    ticker_row,
    trade_row,
)

T0 = 1_795_000_000_000_000


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    schema = arrow_schema(GATHERER_TABLES[name], "batch_no")
    return pa.table([pa.array([row.get(field.name) for row in rows], field.type) for field in schema], schema=schema)


def test_the_first_received_row_is_kept_and_names_decide_between_equals() -> None:
    late, early = delta_row("A", ts_us=T0, seq=1, received_at=9), delta_row("A", ts_us=T0, seq=2, received_at=5)
    united = deduplicate(
        "orderbook_deltas", {"g1": table("orderbook_deltas", [late]), "g2": table("orderbook_deltas", [early])}
    )
    assert united.select("gatherer", "seq").rows() == [("g2", 2)]
    same = deduplicate(
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
        united = deduplicate(name, {"g1": table(name, [row]), "g2": table(name, [row])})
        assert set(PRODUCTION_TABLES[name].names) <= set(united.columns)
        assert united.height == (2 if name == "orderbook_snapshots" else 1)


def test_trades_of_one_moment_come_from_one_stream_and_stand_in_its_order() -> None:
    # g2 received the second first; its numbers say nothing about g1's, so all that g1 has are g1's.
    complete = [trade_row("A", name, ts_us=T0, stream_id=11, seq=seq, received_at=T0 + 9 + seq)
                for seq, name in enumerate(("zz", "aa", "mm"), 1)]  # fmt: skip
    partial = [trade_row("A", "aa", ts_us=T0, stream_id=22, seq=700, received_at=T0 + 1)]
    partial += [trade_row("A", "only", ts_us=T0 + 1_000, stream_id=22, seq=701, received_at=T0 + 2)]
    for parts in ({"g1": complete, "g2": partial}, {"g2": partial, "g1": complete[::-1]}):
        united = deduplicate("trades", {name: table("trades", rows) for name, rows in parts.items()})
        found = united.sort("exchange_ts", "gatherer", "stream_id", "seq").select("trade_id", "gatherer", "seq").rows()
        assert found == [("zz", "g1", 1), ("aa", "g1", 2), ("mm", "g1", 3), ("only", "g2", 701)]


@given(st.permutations(range(12)), st.lists(st.booleans(), min_size=12, max_size=12), st.integers(0, 99))
def test_tickers_of_one_moment_keep_the_order_of_a_stream_that_has_them_all(
    received: list[int], lost: list[bool], seed: int
) -> None:
    whole = [ticker_row("A", ts_us=T0, fingerprint=(7 * n) % 12, seq=n, received_at=T0 + 50 + n, stream_id=5)
             for n in range(12)]  # fmt: skip
    other = [
        ticker_row("A", ts_us=T0, fingerprint=(7 * n) % 12, seq=100 + n, received_at=T0 + received[n], stream_id=6)
        for n in range(12)
        if not lost[n]
    ]
    rows = {"g1": whole, "g2": other}
    random.Random(seed).shuffle(whole)
    united = deduplicate("tickers", {name: table("tickers", part) for name, part in rows.items() if part})
    ordered = united.sort("gatherer", "stream_id", "seq")["fingerprint"].to_list()
    assert ordered == [(7 * n) % 12 for n in range(12)]


@given(
    st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from("tu"), st.integers(0, 200)), min_size=1, max_size=12),
    st.integers(0, 99),
)
def test_trades_of_one_id_are_a_minute_apart_and_none_vanishes(drawn: list[tuple[str, str, int]], seed: int) -> None:
    rows = [trade_row(ticker, trade, ts_us=T0 + second * US_PER_S) for ticker, trade, second in drawn]
    random.Random(seed).shuffle(rows)
    parts = {"g1": table("trades", rows[::2]), "g2": table("trades", rows[1::2])}
    kept = deduplicate("trades", {name: part for name, part in parts.items() if part.num_rows})
    times = [(row["ticker"], row["trade_id"], row["exchange_ts"].timestamp()) for row in kept.to_dicts()]
    for ticker, trade, moment in times:
        assert sum((ticker, trade) == other[:2] and abs(moment - other[2]) <= 60 for other in times) == 1
    for row in rows:
        near = [abs(other[2] - row["exchange_ts"] / US_PER_S) for other in times if other[0] == row["ticker"]]
        assert min(near) <= 60


def test_lifecycle_rows_of_one_content_are_inserted_in_rounds() -> None:
    rows = [lifecycle_row("A", received_us=T0 + second * US_PER_S) for second in (301, 0, 299)]
    rows.append(lifecycle_row("B", received_us=T0 + 7))
    united = deduplicate("market_lifecycle", {"g1": table("market_lifecycle", rows)})
    parts = [part.select("ticker", pl.col("received_at").dt.epoch("s") - T0 // US_PER_S).rows()
             for part in insert_rounds("market_lifecycle", united)]  # fmt: skip
    assert parts == [[("A", 0), ("B", 0)], [("A", 299)], [("A", 301)]]
