"""Staged COPY: every type, every duplicate, every odd text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import StatementRejected
from kalshi_platform.market.tables import GATHERER_TABLES, Table
from kalshi_platform.market.times import us_from_datetime
from kalshi_platform.storage.arrow import arrow_schema
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database

AT = datetime(2026, 11, 22, 20, 44, 1, 123_456, tzinfo=UTC)
PLACE = {"stream_id": 7, "received_at": AT, "batch_no": 1}


@pytest.fixture
def database(timeseries_database: Database) -> Database:
    keeper = PartitionKeeper(timeseries_database, PartitionBounds(ahead=timedelta(days=36_500)), SYSTEM_CLOCK)
    for table in GATHERER_TABLES:
        keeper.ensure_hours(table, [us_from_datetime(AT)])
    return timeseries_database


def rows_of(table: Table, *rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([PLACE | row for row in rows], schema=arrow_schema(table))


def trade(trade_id: str, **values: Any) -> dict[str, Any]:
    return {
        "exchange_ts": AT,
        "ticker": "KXA-1",
        "trade_id": trade_id,
        "yes_price_e4": 5700,
        "no_price_e4": 4300,
        "count_e2": 1250,
        "taker_side": None,
        "is_block_trade": False,
        "created_time": None,
        "source": "ws",
        "seq": 1,
    } | values


def letter(**values: Any) -> dict[str, Any]:
    return {"received_at": AT, "seq": 1, "channel": None, "ticker": None, "reason": "shape", "detail": "d"} | values


def insert(database: Database, table: Table, data: pa.Table, where: str = "") -> int:
    with database.transaction() as transaction:
        return transaction.insert_new(table, data, where=where)


def read(database: Database, query: str) -> list[tuple[Any, ...]]:
    with database.transaction() as transaction:
        return transaction.fetch_all(query)


def test_duplicates_within_and_across_batches_count_once(database: Database) -> None:
    trades = GATHERER_TABLES["trades"]
    first = rows_of(trades, trade("a"), trade("b"), trade("a", count_e2=9))
    assert insert(database, trades, first) == 2
    assert insert(database, trades, rows_of(trades, trade("b"), trade("c"))) == 1
    assert read(database, "SELECT trade_id, count_e2 FROM trades ORDER BY 1") == [
        ("a", 1250),
        ("b", 1250),
        ("c", 1250),
    ]


def test_likely_new_rows_count_once_also_when_some_are_there_already(database: Database) -> None:
    trades = GATHERER_TABLES["trades"]

    def likely_new(*rows: dict[str, Any]) -> int:
        with database.transaction() as transaction:
            assert transaction.insert_new(trades, rows_of(trades, trade("before", seq=9))) in (0, 1)
            return transaction.insert_new(trades, rows_of(trades, *rows), likely_new=True)

    assert likely_new(trade("a"), trade("b")) == 2
    assert likely_new(trade("b", count_e2=9), trade("c"), trade("c")) == 1
    assert read(database, "SELECT trade_id, count_e2 FROM trades ORDER BY 1") == [
        ("a", 1250),
        ("b", 1250),
        ("before", 1250),
        ("c", 1250),
    ]


def test_two_inserts_of_one_transaction_do_not_see_each_others_rows(database: Database) -> None:
    letters = GATHERER_TABLES["dead_letters"]  # has no key: a row staged twice would be stored twice
    with database.transaction() as transaction:
        assert transaction.insert_new(letters, rows_of(letters, letter(payload=b"a"))) == 1
        assert transaction.insert_new(letters, rows_of(letters, letter(payload=b"b"))) == 1
        assert transaction.insert_new(letters, rows_of(letters)) == 0
    assert insert(database, letters, rows_of(letters, letter(payload=b"c"))) == 1
    assert len(read(database, "SELECT 1 FROM dead_letters")) == 3


def test_a_rolled_back_batch_leaves_neither_rows_nor_staged_rows(database: Database) -> None:
    trades = GATHERER_TABLES["trades"]

    def fail() -> None:
        with database.transaction() as transaction:
            transaction.insert_new(trades, rows_of(trades, trade("a")))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert insert(database, trades, rows_of(trades, trade("b"))) == 1
    assert read(database, "SELECT trade_id FROM trades") == [("b",)]


def test_nulls_and_extreme_numbers_arrive_as_they_are(database: Database) -> None:
    trades = GATHERER_TABLES["trades"]
    data = rows_of(
        trades,
        trade("a", count_e2=2**63 - 1, created_time=AT, taker_side="no", is_block_trade=True),
        trade("b", count_e2=-(2**63), yes_price_e4=-(2**31)),
    )
    assert insert(database, trades, data) == 2
    query = "SELECT count_e2, yes_price_e4, created_time, taker_side, is_block_trade FROM trades ORDER BY trade_id"
    assert read(database, query) == [(2**63 - 1, 5700, AT, "no", True), (-(2**63), -(2**31), None, None, False)]


def test_arrays_may_be_empty(database: Database) -> None:
    snapshots = GATHERER_TABLES["orderbook_snapshots"]
    row = {
        "snapshot_ts": AT,
        "ticker": "KXA-1",
        "source": "ws",
        "seq": 1,
        "yes_price_e4": [100, 5600],
        "yes_count_e2": [1, 2**62],
        "no_price_e4": [],
        "no_count_e2": [],
        "requested_at": None,
    }
    assert insert(database, snapshots, rows_of(snapshots, row, row | {"seq": 2, "yes_price_e4": [1]})) == 2
    query = "SELECT yes_price_e4, yes_count_e2, no_price_e4, requested_at FROM orderbook_snapshots ORDER BY seq"
    assert read(database, query) == [([100, 5600], [1, 2**62], [], None), ([1], [1, 2**62], [], None)]


def test_json_is_stored_as_jsonb(database: Database) -> None:
    lifecycle = GATHERER_TABLES["market_lifecycle"]
    row = {"ticker": "KXA", "seq": 1, "event_type": "created", "exchange_ts": None, "fingerprint": -5}
    text = '{"title":"Zürich \\"x\\" \\\\ 🌧","n":1.50,"gone":"\\u0000!","kept":"\\\\u0000"}'
    assert insert(database, lifecycle, rows_of(lifecycle, row | {"content": text})) == 1
    (stored,) = read(database, "SELECT content, jsonb_typeof(content) FROM market_lifecycle")
    assert stored == (
        {"title": 'Zürich "x" \\ 🌧', "n": 1.50, "gone": "\ufffd!", "kept": "\\u0000"},
        "object",
    )


def test_bytes_and_odd_texts_survive(database: Database) -> None:
    letters = GATHERER_TABLES["dead_letters"]
    payloads = [b"", bytes(range(256)), b"\x00" * 3]
    texts = ["", "tab\t newline\n backslash\\ \\N 'quote'", "nul\x00 🌧"]
    data = rows_of(
        letters, *(letter(payload=payload, detail=text) for payload, text in zip(payloads, texts, strict=True))
    )
    assert insert(database, letters, data) == 3
    stored = read(database, "SELECT payload, detail FROM dead_letters ORDER BY dead_letter_id")
    assert [bytes(payload) for payload, _ in stored] == payloads
    assert [text for _, text in stored] == [*texts[:2], "nul\ufffd 🌧"]


def test_slices_and_chunks_are_copied_right(database: Database) -> None:
    letters = GATHERER_TABLES["dead_letters"]
    numbers = range(50)
    data = rows_of(letters, *(letter(seq=n, ticker=None if n % 3 else f"T{n}", payload=b"x" * n) for n in numbers))
    assert insert(database, letters, pa.concat_tables([data.slice(9, 10), data.slice(33, 4)])) == 14
    stored = read(database, "SELECT seq, ticker, length(payload) FROM dead_letters ORDER BY seq")
    expected = [*range(9, 19), *range(33, 37)]
    assert stored == [(n, None if n % 3 else f"T{n}", n) for n in expected]


def test_other_column_orders_and_integer_times_are_fine(database: Database) -> None:
    trades = GATHERER_TABLES["trades"]
    data = rows_of(trades, trade("a"))
    moment = pa.array([us_from_datetime(AT)], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    data = data.set_column(0, "exchange_ts", moment).select(list(reversed(trades.names)))
    assert insert(database, trades, data.append_column("more", pa.array([1]))) == 1
    assert read(database, "SELECT exchange_ts, ticker FROM trades") == [(AT, "KXA-1")]


def test_an_anti_join_keeps_known_rows_out(database: Database) -> None:
    trades = GATHERER_TABLES["trades"]
    insert(database, trades, rows_of(trades, trade("a")))
    later = rows_of(
        trades, trade("a", exchange_ts=AT + timedelta(milliseconds=1)), trade("b"), trade("a", ticker="KXA-2")
    )
    where = (
        "WHERE NOT EXISTS (SELECT 1 FROM trades o WHERE o.ticker = s.ticker AND o.trade_id = s.trade_id"
        " AND o.exchange_ts BETWEEN s.exchange_ts - INTERVAL '1 minute' AND s.exchange_ts + INTERVAL '1 minute')"
    )
    assert insert(database, trades, later, where) == 2
    assert read(database, "SELECT ticker, trade_id FROM trades ORDER BY 1, 2") == [
        ("KXA-1", "a"),
        ("KXA-1", "b"),
        ("KXA-2", "a"),
    ]


def test_a_row_that_breaks_the_table_is_rejected_with_its_state(database: Database) -> None:
    trades = GATHERER_TABLES["trades"]
    with pytest.raises(StatementRejected, match="null value in column") as caught:
        insert(database, trades, rows_of(trades, trade("a"), trade("b", source=None)))
    assert caught.value.sqlstate == "23502"
    # An index cannot hold this key: the server calls it an operational error, but it never gets better.
    oversized = trade("x" * 5_000 + "".join(chr(200 + n % 5_000) for n in range(9_000)))
    with pytest.raises(StatementRejected) as caught:
        insert(database, trades, rows_of(trades, oversized))
    assert caught.value.sqlstate == "54000"
    assert read(database, "SELECT count(*) FROM trades") == [(0,)]
