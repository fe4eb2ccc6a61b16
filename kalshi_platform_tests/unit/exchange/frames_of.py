"""Frames for tests, built field by field as the exchange sends them."""

from __future__ import annotations

import json
from typing import Any

TS_US = 1_795_380_241_123_456
TS_TEXT = "2026-11-22T20:44:01.123456Z"


def frame(kind: str, **members: Any) -> bytes:
    return json.dumps({"type": kind, **members}).encode()


def subscribed(sid: int = 1, channel: str = "orderbook_delta", command_id: int = 1) -> bytes:
    return frame("subscribed", id=command_id, msg={"channel": channel, "sid": sid})


def snapshot(
    seq: int,
    ticker: str = "A",
    yes: list[list[str]] | None = None,
    no: list[list[str]] | None = None,
    sid: int = 1,
    command_id: int | None = None,
) -> bytes:
    msg: dict[str, Any] = {"market_ticker": ticker, "market_id": "m"}
    if yes:
        msg["yes_dollars_fp"] = yes
    if no:
        msg["no_dollars_fp"] = no
    extra = {} if command_id is None else {"id": command_id}
    return frame("orderbook_snapshot", sid=sid, seq=seq, msg=msg, **extra)


def delta(seq: int, ticker: str = "A", sid: int = 1, **changes: Any) -> bytes:
    msg = {
        "market_ticker": ticker,
        "market_id": "m",
        "price_dollars": "0.5600",
        "delta_fp": "-20.00",
        "side": "yes",
        "ts": TS_TEXT,
        "ts_ms": TS_US // 1000,
        **changes,
    }
    return frame(
        "orderbook_delta", sid=sid, seq=seq, msg={key: value for key, value in msg.items() if value is not ...}
    )


def ok(command_id: int, sid: int | None = 1, seq: int | None = None) -> bytes:
    members: dict[str, Any] = {"id": command_id}
    if sid is not None:
        members["sid"] = sid
    if seq is not None:
        members["seq"] = seq
    return frame("ok", msg={}, **members)


def error(code: int, command_id: int | None = None, sid: int | None = None, seq: int | None = None) -> bytes:
    members = {"id": command_id, "sid": sid, "seq": seq}
    given = {key: value for key, value in members.items() if value is not None}
    return frame("error", msg={"code": code, "msg": "refused"}, **given)
