"""Frames of one socket read taken together: the same as one by one, wherever the reads are cut."""

from __future__ import annotations

import itertools
import random
from typing import Any, cast

import pytest

from kalshi_platform.exchange.protocol.session import Session
from kalshi_platform_tests.unit.exchange.frames_of import delta, error, frame, ok, snapshot, subscribed
from kalshi_platform_tests.unit.exchange.parse.test_messages import TICKER, TRADE

T0 = 1_795_380_241_000_000_000
Frames = list[tuple[bytes, int]]


def frames_of_a_bad_day(rng: random.Random) -> Frames:
    """Two channels: mostly deltas, and everything that may stand between them."""
    payloads = [
        subscribed(1),
        subscribed(2, "trade", 2),
        *(snapshot(seq, ticker) for seq, ticker in enumerate("AB", 1)),
    ]
    seq = 2
    for _ in range(150):
        what = rng.choices(
            (
                "delta",
                "gap",
                "repeat",
                "broken",
                "side",
                "legacy",
                "trade",
                "ticker",
                "snapshot",
                "ok",
                "reset",
                "error",
            ),
            (80, 2, 2, 2, 2, 3, 5, 5, 3, 2, 1, 1),
        )[0]
        if what == "gap":
            seq += rng.randrange(1, 3)
        elif what == "reset":
            seq = 0
        if what not in ("repeat", "trade", "ticker", "error"):
            seq += 1
        payloads.append(payloads[-1] if what == "repeat" else made(what, seq, rng.choice("ABC"), rng.randrange(1, 100)))
    return [(payload, T0 + number * 1_000_000) for number, payload in enumerate(payloads)]


def made(what: str, seq: int, ticker: str, cents: int) -> bytes:
    match what:
        case "broken":
            return delta(seq, ticker)[:-7]
        case "side":
            return delta(seq, ticker, side="maybe")
        case "legacy":
            old = {"price": 56, "delta": -20, "ts": 1_795_380_241}
            return delta(seq, ticker, price_dollars=..., delta_fp=..., ts_ms=..., **old)
        case "trade":
            return frame("trade", sid=2, msg=TRADE)
        case "ticker":
            return frame("ticker", sid=1, msg=TICKER)
        case "snapshot":
            return snapshot(seq, ticker, [["0.5000", "3.00"]])
        case "ok":
            return ok(3, 1, seq)
        case "error":
            return error(25, sid=2)
    return delta(seq, ticker, price_dollars=f"0.{cents:02d}00")


def session() -> Session:
    numbers = itertools.count(100)
    made = Session(7, lambda: next(numbers))
    made.subscribe_books(dict.fromkeys("AB", 0))
    made.subscribe_channels(["trade"])
    made.pop_commands()
    return made


@pytest.mark.parametrize("seed", range(20))
def test_any_cut_into_reads_gives_the_same_records_commands_and_alarms(seed: int) -> None:
    rng = random.Random(seed)
    frames = frames_of_a_bad_day(rng)
    one, together = session(), session()
    expected: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for payload, at_ns in frames:
        received = one.receive(payload, at_ns)
        for kept, new in zip(expected, (received.records, received.commands, received.alarms), strict=True):
            kept.extend(cast(list[Any], new))
    found: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    at = 0
    while at < len(frames):
        size = rng.choice((1, 2, 7, 60))
        received = together.receive_all(frames[at : at + size], frames[at : at + size][-1][1])
        for kept, new in zip(found, (received.records, received.commands, received.alarms), strict=True):
            kept.extend(cast(list[Any], new))
        at += size
    assert found == expected
    assert len(found[0]) > 100
    assert together.counters == one.counters
    assert together.last_seqs() == one.last_seqs()
    assert together.followed() == one.followed()


@pytest.mark.parametrize("seed", range(20))
def test_the_fast_path_of_a_delta_gives_the_same_as_the_general_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = frames_of_a_bad_day(random.Random(seed))
    short, long = session(), session()
    monkeypatch.setattr(long, "_next_delta", lambda *_: False)
    for payload, at_ns in frames:
        assert short.receive(payload, at_ns) == long.receive(payload, at_ns)
    assert short.counters == long.counters
    assert short.last_seqs() == long.last_seqs()
    assert short.followed() == long.followed()
    assert short.out_of_sync() == long.out_of_sync()
