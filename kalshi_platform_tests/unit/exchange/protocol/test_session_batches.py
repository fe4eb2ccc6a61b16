"""Frames of one socket read taken together: the same as one by one, wherever the reads are cut."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from typing import Any

import pytest

from kalshi_platform.exchange.protocol import session as session_module
from kalshi_platform.exchange.protocol.session import Session, SessionOutput
from kalshi_platform.gatherer.ingest import decoder as decoder_module
from kalshi_platform.gatherer.ingest.decoder import Decoder
from kalshi_platform_tests.fixtures.recording_session import MemoryJournal
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


def everything(outputs: Iterable[SessionOutput]) -> tuple[Any, ...]:
    """Columns, marks with the number of frames before each, commands and alarms, wherever the reads were cut."""
    columns: list[list[Any]] = [[] for _ in range(5)]
    marks: list[tuple[int, Any]] = []
    commands: list[bytes] = []
    alarms: list[Any] = []
    for output in outputs:
        batch = output.batch
        marks += [(len(columns[0]) + before, mark) for before, mark in batch.marks]
        of_batch: tuple[list[Any], ...] = (
            batch.payloads, batch.received_at_ns, batch.stream_ids, batch.numbers, batch.kinds
        )  # fmt: skip
        for column, more in zip(columns, of_batch, strict=True):
            column.extend(more)
        commands += output.commands
        alarms += output.alarms
    return columns, marks, commands, alarms


@pytest.mark.parametrize("seed", range(20))
def test_any_cut_into_reads_gives_the_same_batch_commands_and_alarms(seed: int) -> None:
    rng = random.Random(seed)
    frames = frames_of_a_bad_day(rng)
    one, together = session(), session()
    expected = everything(one.receive(payload, at_ns) for payload, at_ns in frames)
    outputs, at = [], 0
    while at < len(frames):
        read = frames[at : at + rng.choice((1, 2, 7, 60))]
        outputs.append(together.receive_all(read, read[-1][1]))
        at += len(read)
    assert everything(outputs) == expected
    assert together.counters == one.counters
    assert together.last_seqs() == one.last_seqs()
    assert together.followed() == one.followed()


@pytest.mark.parametrize("seed", range(20))
def test_every_frame_is_in_the_batch_once_and_in_its_place(seed: int) -> None:
    frames = frames_of_a_bad_day(random.Random(seed))
    batch = session().receive_all(frames, frames[-1][1]).batch
    assert list(zip(batch.payloads, batch.received_at_ns, strict=True)) == frames
    assert len(batch.stream_ids) == len(batch.numbers) == len(batch.kinds) == len(frames)


@pytest.mark.parametrize("seed", range(20))
def test_the_fast_path_of_a_delta_gives_the_same_as_the_general_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = frames_of_a_bad_day(random.Random(seed))
    short, long = session(), session()
    fast = [short.receive(payload, at_ns) for payload, at_ns in frames]
    monkeypatch.setattr(session_module, "_DELTA", "")
    assert [long.receive(payload, at_ns) for payload, at_ns in frames] == fast
    assert short.counters == long.counters
    assert short.last_seqs() == long.last_seqs()
    assert short.followed() == long.followed()
    assert short.out_of_sync() == long.out_of_sync()


@pytest.mark.parametrize("seed", range(20))
def test_the_fast_path_of_the_decoder_gives_the_same_as_the_general_one(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = frames_of_a_bad_day(random.Random(seed))
    batch = session().receive_all(frames, frames[-1][1]).batch
    fast = Decoder().decode(MemoryJournal().append(7, batch, T0))
    monkeypatch.setattr(decoder_module, "_DATA", -1)
    assert Decoder().decode(MemoryJournal().append(7, batch, T0)) == fast
    assert len(fast.records) > 100
