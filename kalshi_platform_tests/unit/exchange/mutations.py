"""Broken frames: real ones with bits, keys, values and structure changed. Seeded; knows nothing of the parser."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import Any

from kalshi_platform_tests.unit.exchange import frames_of

TICKERS = ("A", "B", "C", "KXRAINNYC-26NOV23-T0.25")
_UNQUOTED: dict[str, str] = {}


def _raw(text: str) -> str:
    """A stand-in for text that stands in the JSON unquoted, see `encoded`."""
    mark = f"unquoted-{len(_UNQUOTED)}"
    _UNQUOTED[json.dumps(mark)] = text
    return mark


def encoded(frame: Any) -> bytes:
    """JSON of a frame in which odd values may stand."""
    text = json.dumps(frame)
    if '"unquoted-' in text:
        for mark, raw in _UNQUOTED.items():
            text = text.replace(mark, raw)
    return text.encode(errors="surrogatepass")


ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, 0.5, 1e308, "", " ",
    "0", "-0.00", "1e5", "NaN", "Infinity", "0x10", "1_000", "٣", "0." + "0" * 60, "9" * 400, "-" + "9" * 19, "0.00001",
    "1.0001", "\x00", "A\x00B", "\ud800", "\udfff\ud800", "\U0001f9ff", "\u202e", "é" * 300, [], {}, [[]], [["0.5", "1"]],  # noqa: E501
    [["0.5", "1.00"], ["0.50", "2.00"]], [[None, None]], [["0.5"]], {"a": {"b": []}}, "yes", "no", "bid",
    "2026-11-22T20:44:01Z", "2026-13-45T99:99:99Z", "9999-12-31T23:59:59.999999999Z", "0001-01-01T00:00:00Z",
    "2026-11-22T20:44:01+99:99", "9999-12-31T23:59:59-23:59", 10**11, 10**15 - 1, 10**14,
    _raw("NaN"), _raw("Infinity"), _raw("-Infinity"), _raw("1e999"), _raw("-0"), _raw("01"), _raw("1" * 5_000),
    _raw('"\\ud83d"'), _raw("[" * 600 + "]" * 600), _raw("[" * 5_000 + "]" * 5_000), _raw('{"a":' * 3_000 + "1" + "}" * 3_000),  # noqa: E501
    _raw('{"a":1,"a":2}'), _raw("1.0"), _raw("1E0"), _raw("tru"), _raw(""),
)  # fmt: skip

Json = dict[str, Any]


def lifecycle(seq: int, sid: int, event_type: str, **members: Any) -> bytes:
    """A lifecycle frame."""
    msg = {"market_ticker": "A", "event_type": event_type, **members}
    return frames_of.frame("market_lifecycle_v2", sid=sid, seq=seq, msg=msg)


def real_frame(rng: random.Random, seq: int = 2, sid: int = 1) -> bytes:
    """One frame of any kind that the exchange sends, in today's or the former shape."""
    ticker = rng.choice(TICKERS)
    level = [f"0.{rng.randrange(1, 100):02d}00", f"{rng.randrange(1, 500)}.25"]
    builders = (
        lambda: frames_of.delta(seq, ticker, sid, side=rng.choice(("yes", "no")), price_dollars=level[0]),
        lambda: frames_of.delta(seq, ticker, sid),
        lambda: frames_of.delta(
            seq, ticker, sid, price_dollars=..., delta_fp=..., ts_ms=..., price=56, delta=-3, ts=1_704_067_200
        ),
        lambda: frames_of.snapshot(seq, ticker, yes=[level], no=[["0.3000", "1.00"]], sid=sid),
        lambda: frames_of.snapshot(seq, ticker, sid=sid, command_id=rng.randrange(4)),
        lambda: frames_of.frame("orderbook_snapshot", sid=sid, seq=seq, msg={"market_ticker": ticker, "yes": [[5, 7]]}),
        lambda: frames_of.ok(rng.randrange(6), sid, seq),
        lambda: frames_of.ok(rng.randrange(6), None),
        lambda: frames_of.frame("ok", id=5, msg=[{"channel": "orderbook_delta", "sid": sid}]),
        lambda: frames_of.error(rng.randrange(31), rng.choice((None, 1, 2)), rng.choice((None, sid)), None),
        lambda: frames_of.frame("unsubscribed", id=4, sid=sid, seq=seq),
        lambda: frames_of.subscribed(sid, rng.choice(("orderbook_delta", "trade", "ticker")), rng.randrange(4)),
        lambda: lifecycle(seq, sid, "determined", result="yes", determination_ts=1_795_380_000, settlement_value="1.0000"),  # noqa: E501
        lambda: lifecycle(seq, sid, "created", additional_metadata={"event_ticker": "E", "floor_strike": 0.25}),
        lambda: frames_of.frame("event_fee_update", sid=sid, seq=seq, msg={"event_ticker": "E", "fee_type_override": None}),  # noqa: E501
        lambda: frames_of.frame("event_lifecycle", sid=sid, seq=seq, msg={"event_ticker": "E", "title": "t"}),
        lambda: frames_of.frame("trade", sid=sid, seq=seq, msg={
            "trade_id": "t1", "market_ticker": ticker, "yes_price_dollars": level[0], "no_price_dollars": "0.4300",
            "count_fp": "12.50", "taker_outcome_side": "yes", "is_block_trade": False, "ts_ms": frames_of.TS_US // 1000,
        }),
        lambda: frames_of.frame("ticker", sid=sid, msg={
            "market_ticker": ticker, "price_dollars": level[0], "yes_bid_dollars": "", "volume_fp": level[1],
            "dollar_volume": 1012, "ts": frames_of.TS_US // 10**6, "ts_ms": frames_of.TS_US // 1000,
        }),
    )  # fmt: skip
    return rng.choice(builders)()


def mutated(rng: random.Random, payload: bytes) -> bytes:
    """Break a frame once or a few times, at the level of its bytes or of its structure."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        payload = _bytes_changed(rng, payload) if rng.random() < 0.4 else _structure_changed(rng, payload)
    return payload


def _bytes_changed(rng: random.Random, payload: bytes) -> bytes:
    data = bytearray(payload or b"{}")
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randrange(1, 40))
    kind = rng.randrange(6)
    if kind == 0:
        data[start] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[start:end]
    elif kind == 2:
        data[start:start] = data[start:end]
    elif kind == 3:
        data[start:start] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 8)))
    elif kind == 4:
        del data[start:]
    else:
        data[start:end] = rng.choice(
            (b'"', b"\\", b"\xff\xfe", b"\xed\xa0\x80", b"\x00", b"{", b"]", b",,", b"\xef\xbb\xbf")
        )
    return bytes(data)


def _structure_changed(rng: random.Random, payload: bytes) -> bytes:
    try:
        frame = json.loads(payload)
    except (ValueError, RecursionError):
        return _bytes_changed(rng, payload)
    places = _places(frame)
    if not places:
        return _bytes_changed(rng, payload)
    holder, key = rng.choice(places)
    kind = rng.randrange(5)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice((str(key).upper(), str(key) + "_", "type", "seq", "sid", "msg", ""))] = holder.pop(key)
    elif kind == 2:
        other_holder, other_key = rng.choice(places)
        with suppress(KeyError, IndexError):  # one may hold the other
            holder[key], other_holder[other_key] = other_holder[other_key], holder[key]
    else:
        holder[key] = rng.choice(ODD_VALUES)
    try:
        text = encoded(frame).decode(errors="surrogatepass")
    except (ValueError, RecursionError):
        return _bytes_changed(rng, payload)
    if kind == 3 and text.count('"seq"') == 1:
        text = text.replace('"seq"', f'"seq": {rng.randrange(9)}, "seq"', rng.randrange(2))
    return text.encode(errors="surrogatepass")


def _places(frame: Any) -> list[tuple[Any, Any]]:
    """Every (object or array, key or index) of a frame, from the front; deep ones exhaust a recursion."""
    found = []
    waiting = _own_places(frame)
    while waiting:
        holder, key = waiting.pop()
        found.append((holder, key))
        waiting += _own_places(holder[key])
    return found


def _own_places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [(value, key) for key in reversed(keys)]
