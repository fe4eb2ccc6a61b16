"""Frames of both shapes give the same content; everything else is refused with a stable reason."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.exchange.parse.messages import (
    DeltaBody,
    ErrorBody,
    LifecycleBody,
    SnapshotBody,
    SubscribedBody,
    TickerBody,
    TradeBody,
    parse_frame,
    parse_partial,
)
from kalshi_platform_tests.unit.exchange import frames_of

TRADE = {
    "trade_id": "t-1",
    "market_ticker": "A",
    "yes_price_dollars": "0.5700",
    "no_price_dollars": "0.4300",
    "count_fp": "12.50",
    "taker_side": "no",
    "taker_outcome_side": "yes",
    "is_block_trade": True,
    "ts": 1_795_380_241,
    "ts_ms": 1_795_380_241_123,
}
TICKER = {
    "market_ticker": "A",
    "price_dollars": "0.5700",
    "yes_bid_dollars": "0.5600",
    "yes_ask_dollars": "0.5800",
    "volume_fp": "1830.00",
    "open_interest_fp": "911.00",
    "dollar_volume": -1012,
    "dollar_open_interest": 519,
    "ts_ms": 1_795_380_241_123,
    "time": "2026-11-22T20:44:01.123456Z",
    "ts": 1_795_380_241,
}


def parse(kind: str, msg: Any, **members: Any) -> Any:
    return parse_frame(frames_of.frame(kind, sid=1, seq=7, msg=msg, **members))


def reason_of(payload: bytes | str) -> str:
    with pytest.raises(UnparsableMessage) as caught:
        parse_frame(payload)
    return caught.value.reason


def test_a_delta_in_todays_shape() -> None:
    parsed = parse_frame(frames_of.delta(24))
    assert (parsed.type, parsed.sid, parsed.seq, parsed.id) == ("orderbook_delta", 1, 24, None)
    assert parsed.body == DeltaBody("A", "yes", 5600, -2000, frames_of.TS_US)


def test_a_legacy_delta_equals_its_present_shape() -> None:
    legacy = (
        b'{"type":"orderbook_delta","sid":12345,"seq":100,"msg":{"market_ticker":"INXD-25JAN10-T4600",'
        b'"price":56,"delta":100,"side":"yes","ts":1704067200}}'
    )
    current = frames_of.delta(100, "INXD-25JAN10-T4600", sid=12345, delta_fp="100.00", ts=..., ts_ms=1_704_067_200_000)
    assert parse_frame(legacy) == parse_frame(current)
    assert parse_frame(legacy.decode()) == parse_frame(current)


@pytest.mark.parametrize(
    ("changes", "expected_us"),
    [
        ({"ts_ms": ...}, frames_of.TS_US),
        ({"ts": ...}, frames_of.TS_US // 1000 * 1000),
        ({"ts": None}, frames_of.TS_US // 1000 * 1000),
        ({"ts": ""}, frames_of.TS_US // 1000 * 1000),
        ({"ts": 1_795_380_241, "ts_ms": ...}, 1_795_380_241_000_000),
        ({"ts": 1_795_380_241_123, "ts_ms": None}, 1_795_380_241_123_000),
    ],
)
def test_the_time_of_a_delta_is_the_most_exact_one_sent(changes: dict[str, Any], expected_us: int) -> None:
    body = parse_frame(frames_of.delta(1, **changes)).body
    assert isinstance(body, DeltaBody)
    assert body.exchange_ts_us == expected_us


def test_a_delta_without_any_time_is_refused() -> None:
    assert reason_of(frames_of.delta(1, ts=..., ts_ms=...)) == "no_exchange_time"


def test_unknown_fields_pass() -> None:
    assert parse_frame(frames_of.delta(1, subaccount=3, new_thing={"deep": [1]})).body is not None


SNAPSHOTS = [
    {"yes_dollars_fp": [["0.5600", "120.00"], ["0.5500", "300.00"]], "no_dollars_fp": [["0.4200", "40.00"]]},
    {"yes_dollars": [["0.56", 120], ["0.55", 300]], "no_dollars": [["0.42", 40]]},
    {"yes": [[56, 120], [55, 300]], "no": [[42, 40]]},
]


@pytest.mark.parametrize("sides", SNAPSHOTS)
def test_snapshots_of_three_shapes_are_one_book_ascending(sides: dict[str, Any]) -> None:
    body = parse("orderbook_snapshot", {"market_ticker": "A", **sides}).body
    assert body == SnapshotBody("A", ((5500, 30_000), (5600, 12_000)), ((4200, 4_000),))


@pytest.mark.parametrize(
    ("sides", "yes", "no"),
    [
        ({}, (), ()),
        ({"yes_dollars_fp": [["0.0001", "0.01"]]}, ((1, 1),), ()),
        ({"no_dollars_fp": [["0.9999", "1.00"]], "yes_dollars_fp": None}, (), ((9999, 100),)),
        ({"yes_dollars_fp": [], "no_dollars_fp": [["0.5", "0.00"]]}, (), ()),
    ],
)
def test_one_sided_and_empty_snapshots(sides: dict[str, Any], yes: Any, no: Any) -> None:
    assert parse("orderbook_snapshot", {"market_ticker": "A", **sides}, id=3).body == SnapshotBody("A", yes, no)


def test_a_trade_has_milliseconds_and_the_outcome_side() -> None:
    assert parse("trade", TRADE).body == TradeBody(
        "t-1", "A", 1_795_380_241_123_000, 5700, 4300, 1250, "yes", is_block_trade=True
    )
    old = {key: TRADE[key] for key in ("trade_id", "market_ticker", "taker_side", "ts_ms")}
    body = parse("trade", {**old, "yes_price": 57, "count": 12}).body
    assert body == TradeBody("t-1", "A", 1_795_380_241_123_000, 5700, 4300, 1200, "no", is_block_trade=False)


def test_a_trade_may_lack_seq_and_side() -> None:
    msg = {key: value for key, value in TRADE.items() if not key.startswith("taker")}
    parsed = parse_frame(frames_of.frame("trade", sid=2, msg=msg))
    assert parsed.seq is None
    assert isinstance(parsed.body, TradeBody)
    assert parsed.body.taker_side is None


def test_a_ticker_has_the_same_fingerprint_in_both_shapes_and_another_when_content_differs() -> None:
    body = parse("ticker", TICKER).body
    assert isinstance(body, TickerBody)
    assert (body.price_e4, body.volume_e2, body.dollar_volume) == (5700, 183_000, -1012)
    assert body.exchange_ts_us == 1_795_380_241_123_000
    legacy = {"price": 57, "yes_bid": 56, "yes_ask": 58, "volume": 1830, "open_interest": 911}
    kept = {key: TICKER[key] for key in ("market_ticker", "dollar_volume", "dollar_open_interest")}
    assert parse("ticker", {**kept, **legacy, "ts": 1_795_380_999}).body.fingerprint == body.fingerprint
    assert parse("ticker", {**TICKER, "yes_bid_dollars": "0.5500"}).body.fingerprint != body.fingerprint


def test_empty_strings_of_a_ticker_are_none_even_beside_a_legacy_zero() -> None:
    body = parse("ticker", {**TICKER, "price_dollars": "", "price": 0, "last_trade_size_fp": ""}).body
    assert (body.price_e4, body.last_trade_size_e2) == (None, None)


def test_lifecycle_content_is_canonical_and_its_time_is_the_events_own() -> None:
    msg = {"market_ticker": "A", "event_type": "determined", "result": "yes", "determination_ts": 1_795_380_000}
    body = parse("market_lifecycle_v2", msg).body
    turned = parse("market_lifecycle_v2", dict(reversed(list(msg.items())))).body
    assert isinstance(body, LifecycleBody)
    assert body == turned
    assert body.exchange_ts_us == 1_795_380_000_000_000
    assert json.loads(body.content) == msg
    settled = parse("market_lifecycle_v2", {"market_ticker": "A", "event_type": "settled", "settled_ts": 5}).body
    assert settled.exchange_ts_us == 5_000_000
    created = parse("market_lifecycle_v2", {"market_ticker": "A", "event_type": "created", "open_ts": 5}).body
    assert created.exchange_ts_us is None
    assert len({body.fingerprint, settled.fingerprint, created.fingerprint}) == 3


@pytest.mark.parametrize(
    ("kind", "msg", "ticker", "event_type"),
    [
        ("event_lifecycle", {"event_ticker": "E"}, "E", "event_created"),
        ("event_fee_update", {"event_ticker": "E"}, "E", "event_fee_update"),
        ("market_lifecycle", {"market_ticker": "A", "event_type": "created"}, "A", "created"),
        ("market_lifecycle", {"market_ticker": "A", "event_type": "status_change", "status": "open"}, "A", "activated"),
        ("multivariate_market_lifecycle", {"market_ticker": "A", "event_type": "activated"}, "A", "activated"),
    ],
)
def test_lifecycle_types_old_and_new(kind: str, msg: dict[str, Any], ticker: str, event_type: str) -> None:
    body = parse(kind, msg).body
    assert (body.ticker, body.event_type) == (ticker, event_type)


def test_control_frames() -> None:
    assert parse_frame(frames_of.subscribed(4, "trade")).body == SubscribedBody("trade", 4)
    assert parse_frame(b'{"id":5,"type":"ok","msg":[{"channel":"trade","sid":2}]}').id == 5
    assert parse_frame(b'{"id":0,"type":"unsubscribed","sid":1,"seq":977}')[:4] == ("unsubscribed", 1, 977, None)
    assert parse_frame(b'{"type":"error","msg":{"code":16,"market_ticker":"A"}}').body == ErrorBody(16, "", ("A",))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "json"),
        (b"{", "json"),
        (b"\xff\xfe", "json"),
        (b"[" * 100_000, "json"),
        (b"[]", "shape"),
        (b"{}", "missing_type"),
        (b'{"type":5}', "missing_type"),
        (b'{"type":"orderbook_delta_v3","sid":1,"seq":2,"msg":{}}', "unknown_type"),
        (b'{"type":"orderbook_delta","sid":1,"seq":2}', "missing_field"),
        (b'{"type":"trade","sid":1,"seq":-2,"msg":{}}', "shape"),
        (frames_of.delta(1, price_dollars="0.56000001"), "number"),
        (frames_of.delta(1, price_dollars="1.0100"), "range"),
        (frames_of.delta(1, price_dollars=0.56), "shape"),
        (frames_of.delta(1, price_dollars=...), "missing_field"),
        (frames_of.delta(1, delta_fp=...), "missing_field"),
        (frames_of.delta(1, market_ticker=...), "missing_field"),
        (frames_of.delta(1, side="maybe"), "side"),
        (frames_of.delta(1, ts="yesterday"), "time"),
        (frames_of.delta(None), "missing_field"),  # type: ignore[arg-type]
        (frames_of.snapshot(1, yes=[["0.5", "1"], ["0.50", "2"]]), "levels"),
        (frames_of.snapshot(1, yes=[["0.5", "-1"]]), "range"),
        (frames_of.frame("trade", sid=1, msg={**TRADE, "ts": None, "ts_ms": None}), "no_exchange_time"),
        (frames_of.frame("trade", sid=1, msg={**TRADE, "count_fp": None}), "missing_field"),
        (frames_of.frame("market_lifecycle_v2", sid=1, msg={"event_type": "created"}), "missing_field"),
    ],
)
def test_reasons_are_stable_words(payload: bytes, reason: str) -> None:
    assert reason_of(payload) == reason


def test_readable_fields_of_an_unparsable_frame_are_parsed() -> None:
    assert parse_partial(frames_of.delta(9, side="maybe")) == ("orderbook_delta", 1, 9, "A")
    cut = frames_of.delta(9, "KXTICKER-1")
    assert parse_partial(cut[:-40]) == ("orderbook_delta", 1, 9, "KXTICKER-1")
    assert parse_partial(cut[: cut.index(b"KXTICKER") + 4]) == ("orderbook_delta", 1, 9, None)
    assert parse_partial(b'{"type":"orderbook_delta","sid":1,"seq":12') == ("orderbook_delta", 1, None, None)
    assert parse_partial(b"\x00\xff") == (None, None, None, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
VALID = [
    frames_of.delta(1),
    frames_of.snapshot(2, yes=[["0.5600", "120.00"]]),
    frames_of.frame("trade", sid=1, msg=TRADE),
    frames_of.frame("ticker", sid=1, msg=TICKER),
    frames_of.subscribed(),
    frames_of.error(25),
]


@given(st.sampled_from(VALID), st.data())
def test_no_bytes_crash_the_parser(payload: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(payload)))
    broken = payload[:at] + data.draw(st.binary(max_size=4)) + payload[data.draw(st.integers(at, len(payload))) :]
    parse_partial(broken)
    with contextlib.suppress(UnparsableMessage):
        parse_frame(broken)


@given(st.sampled_from(VALID), st.data())
def test_no_value_of_any_field_crashes_the_parser(payload: bytes, data: st.DataObject) -> None:
    value = json.loads(payload)
    part = value["msg"] if data.draw(st.booleans()) else value
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(JSON)
    broken = json.dumps(value).encode()
    parse_partial(broken)
    with contextlib.suppress(UnparsableMessage):
        parse_frame(broken)


NO_NAMES = ["T" * 201, "A" * 3_503, "", "A\x00B", "A\nB", "A\x1b[31m", "A\u2028B"]
NAMED = [
    ("orderbook_delta", "market_ticker", json.loads(frames_of.delta(7))["msg"]),
    ("orderbook_snapshot", "market_ticker", {"market_ticker": "A"}),
    ("trade", "market_ticker", TRADE),
    ("trade", "trade_id", TRADE),
    ("ticker", "market_ticker", TICKER),
    ("market_lifecycle_v2", "market_ticker", {"market_ticker": "A", "event_type": "settled"}),
    ("market_lifecycle_v2", "event_type", {"market_ticker": "A", "event_type": "settled"}),
    ("event_lifecycle", "event_ticker", {"event_ticker": "A"}),
    ("subscribed", "channel", {"channel": "trade", "sid": 1}),
]


@pytest.mark.parametrize(("kind", "field", "msg"), NAMED, ids=[f"{kind} {field}" for kind, field, _ in NAMED])
def test_names_that_no_key_can_hold_are_refused(kind: str, field: str, msg: dict[str, Any]) -> None:
    parse(kind, {**msg, field: "K" * 200})
    for text in NO_NAMES:
        reason = reason_of(frames_of.frame(kind, sid=1, seq=7, msg={**msg, field: text}))
        assert reason == ("missing_field" if text == "" and "lifecycle" in kind else "name")


def test_a_frame_with_a_broken_text_beside_its_names_is_read() -> None:
    lifecycle = (
        b'{"type":"market_lifecycle_v2","sid":3,"seq":7,"msg":{"market_ticker":"KXA-1","event_type":"created",'
        b'"additional_metadata":{"title":"Cheers \\ud83c","name":"caf\xe9"}}}'
    )
    frame = parse_frame(lifecycle)
    assert (frame.type, frame.sid, frame.seq) == ("market_lifecycle_v2", 3, 7)
    assert isinstance(frame.body, LifecycleBody)
    assert "Cheers \ufffd" in frame.body.content


@pytest.mark.parametrize("name", [b"KXA-\\ud83c", b"KX\xe9"])
def test_a_frame_whose_market_cannot_be_named_stays_refused(name: bytes) -> None:
    delta = (
        b'{"type":"orderbook_delta","sid":1,"seq":2,"msg":{"market_ticker":"' + name + b'","price_dollars":"0.5",'
        b'"delta_fp":"1.00","side":"yes","ts":"2026-11-30T00:00:00Z"}}'
    )
    with pytest.raises(UnparsableMessage) as caught:
        parse_frame(delta)
    assert caught.value.reason == "json"
