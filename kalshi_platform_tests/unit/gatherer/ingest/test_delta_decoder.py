"""Deltas that are decoded together give the rows that each gives on its own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.gatherer.ingest.decoder import Decoder
from kalshi_platform.market.frames import FrameBatch, FrameKind
from kalshi_platform.market.records import BookDelta, Record
from kalshi_platform_tests.unit.exchange.frames_of import delta, frame, ok, snapshot
from kalshi_platform_tests.unit.gatherer.ingest.test_decoder import T0, Recorder, decoded, only, recorder

TODAY: dict[str, Any] = {
    "market_ticker": "A", "side": "yes", "price_dollars": "0.5600", "delta_fp": "1.00",
    "ts": "2026-11-22T20:44:01.000001Z",
}  # fmt: skip
OTHERS: list[dict[str, Any]] = [
    {"market_ticker": "B", "side": "no"},
    {"ts": "2026-11-22T20:44:01.000002Z"},
    {"ts": "2026-11-22T20:44:02Z"},
    {"ts": "2026-11-22T20:44:01.00000٢Z"},
    {"ts": "2026-11-22T20:44:01.000001+00:00"},
    {"market_ticker": ""},
    {"delta_fp": "1e3"},
    {"price_dollars": 1},
]
KINDS = st.one_of(st.just(-1), st.integers(0, len(OTHERS) - 1), st.sampled_from(["ok", "snapshot", "text"]))


def of_kind(kind: int | str, number: int) -> bytes:
    if kind == "ok":
        return ok(9, 1, number)
    if kind == "snapshot":
        return snapshot(number, "A")
    if kind == "text":
        return b'{"type":"orderbook_delta","sid":1,"seq":%d,"msg":' % number
    return frame("orderbook_delta", sid=1, seq=number, msg=TODAY if kind == -1 else TODAY | OTHERS[int(kind)])


def general(made: Recorder) -> list[Record]:
    """Decode each frame as if it were of an unusual shape."""

    class General(Decoder):
        def _decode_frames(self, batch: FrameBatch, low: int, high: int) -> None:
            for at in range(low, high):
                stream = self._open.by_id.get(batch.stream_ids[at])
                self._decode_frame(
                    stream, batch.payloads[at], batch.received_at_ns[at], batch.numbers[at], batch.kinds[at]
                )

    return decoded(made.journal.blocks, General())


def one_by_one(made: Recorder) -> list[Record]:
    class OneByOne(Decoder):
        def _decode_run(self, batch: FrameBatch, low: int, high: int) -> bool:
            return False

    return decoded(made.journal.blocks, OneByOne())


@given(st.lists(st.lists(KINDS, max_size=40), max_size=3))
def test_frames_decoded_together_give_the_rows_of_frames_decoded_alone(reads: list[list[int | str]]) -> None:
    made, number = recorder(), 2
    for kinds in reads:
        payloads = []
        for kind in kinds:
            number += 1
            payloads.append(of_kind(kind, number))
        made.read(*payloads)
    together, alone = decoded(made.journal.blocks), one_by_one(made)
    assert together == alone == general(made)
    assert [type(each) for each in together] == [type(each) for each in alone]


def test_many_deltas_are_decoded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    made, decoder = recorder(), Decoder()
    decoded(made.journal.blocks, decoder)
    monkeypatch.setattr("kalshi_platform.gatherer.ingest.decoder.decode_delta", None)
    rows = only(BookDelta, decoded([made.read(*(of_kind(-1, number) for number in range(3, 103)))], decoder))
    assert [row.occurrence for row in rows] == list(range(100))


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        ([3, 4, *range(6, 20)], FrameKind.DATA),
        ([*range(2, 20)], FrameKind.DATA),
        ([*range(3, 20)], FrameKind.REPEATED),
    ],
)
def test_what_does_not_follow_is_decoded_alone(numbers: list[int], kind: FrameKind) -> None:
    made = recorder()
    stream_id = made.journal.blocks[-1].batch.stream_ids[-1]
    payloads, size = [delta(number) for number in numbers], len(numbers)
    made.append(FrameBatch(payloads, [T0] * size, [stream_id] * size, numbers, [int(kind)] * size))
    assert decoded(made.journal.blocks) == one_by_one(made)
