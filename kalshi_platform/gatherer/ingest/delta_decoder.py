"""Decodes many deltas of one stream at once, column by column: two thirds of the time of one by one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Literal

import msgspec

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.market.identity import DeltaContent, OccurrenceCounter
from kalshi_platform.market.names import is_name
from kalshi_platform.market.records import BookDelta
from kalshi_platform.market.times import all_us_from_rfc3339
from kalshi_platform.market.units import all_delta_e2, all_price_e4

_NAMES_KEPT = 262_144


class _DeltaMessage(msgspec.Struct, frozen=True, gc=False):
    market_ticker: str
    side: Literal["yes", "no"]
    price_dollars: str
    delta_fp: str
    ts: str


class _Delta(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="orderbook_delta"):
    """Holds what a row needs of a delta in today's shape; any other frame is decoded by `parse_frame`."""

    msg: _DeltaMessage


decode_delta: Callable[[bytes], _Delta] = msgspec.json.Decoder(_Delta).decode
UNDECODABLE = (msgspec.MsgspecError, RecursionError, UnicodeError, UnparsableMessage)


class Names(dict[str, str]):
    """Checks each name once, and gives one text for all frames that name it."""

    def __missing__(self, name: str) -> str:
        if not is_name(name):
            raise UnparsableMessage("name", "no name that can be stored")
        if len(self) >= _NAMES_KEPT:
            self.clear()
        self[name] = name
        return name


def decode_deltas(
    stream_id: int,
    payloads: Sequence[bytes],
    received_at_ns: Sequence[int],
    numbers: Sequence[int],
    names: Names,
    occurrences: OccurrenceCounter,
) -> list[BookDelta] | None:
    """Return the rows of frames whose numbers follow one another, and count them.

    Returns None, with nothing counted, if one of them is no delta in today's shape.
    """
    try:
        messages = [each.msg for each in map(decode_delta, payloads)]
        tickers = [names[each.market_ticker] for each in messages]
        sides = [each.side for each in messages]
        prices = all_price_e4([each.price_dollars for each in messages])
        changes = all_delta_e2([each.delta_fp for each in messages])
        times = all_us_from_rfc3339([each.ts for each in messages])
    except UNDECODABLE:
        return None
    counts = occurrences.next_all(numbers, times, map(DeltaContent, tickers, sides, prices, changes))
    return list(
        map(BookDelta, tickers, sides, prices, changes, times, received_at_ns, repeat(stream_id), numbers, counts)
    )
