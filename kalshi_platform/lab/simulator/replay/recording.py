"""Write a capture of a generated venue, as one connection would have recorded it; `replay` serves it at any speed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from kalshi_platform.lab.simulator.engine import listing, payloads
from kalshi_platform.lab.simulator.engine.activity import Activity
from kalshi_platform.lab.simulator.engine.subscriptions import BOOK, TICKER, TRADE
from kalshi_platform.lab.simulator.engine.universe import Market, Trade
from kalshi_platform.lab.simulator.engine.venue import Venue

FRAMES_PER_WRITE = 10_000


class _Recorder:
    """A sink that writes capture lines; the receive time is the exchange time plus 20 ms."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.seqs = {BOOK: 0, TRADE: 0}
        self.frames = 0

    def add(self, kind: str, channel: str, us: int, body: bytes) -> None:
        sid = {BOOK: 1, TRADE: 2, TICKER: 3}[channel]
        seq = ""
        if channel in self.seqs:
            self.seqs[channel] += 1
            seq = f'"seq":{self.seqs[channel]},'
        self.frames += 1
        frame = f'{{"type":"{kind}","sid":{sid},{seq}"msg":{body.decode()}}}'
        self.lines.append(f'{{"received_at_ns":{us * 1_000 + 20_000_000},"frame":{frame}}}\n')

    def delta(self, market: Market, us: int, side: int, price_e4: int, delta_e2: int) -> None:
        self.add("orderbook_delta", BOOK, us, payloads.delta(market, us, side, price_e4, delta_e2))

    def trade(self, market: Market, trade: Trade) -> None:  # noqa: ARG002 - a sink's signature
        self.add("trade", TRADE, trade.us, payloads.trade(trade))

    def ticker(self, market: Market, us: int, body: bytes, *, initial: bool) -> None:  # noqa: ARG002 - a sink's signature
        self.add("ticker", TICKER, us, body)

    def lifecycle(self, kind: str, ticker: str, us: int, msg: dict[str, Any]) -> None:
        raise NotImplementedError(json.dumps(msg))  # a recording has no scenario


def record(path: Path, *, markets: int, messages: int, rate: float, start_us: int, seed: int = 1) -> int:
    """Write a capture of about `messages` data frames, `rate` a second from `start_us` on; returns their number.

    It begins with a snapshot of each market. Nothing waits: the time is the recording's own.
    """
    recorder = _Recorder()
    venue = Venue(recorder, random.Random(seed))  # noqa: S311
    activity = Activity(venue, random.Random(seed + 1))  # noqa: S311
    population = random.Random(seed + 3)  # noqa: S311
    listing.populate(venue, activity, population, markets=markets, combos=0, now_us=start_us)
    for number, market in enumerate(venue.quoting, 1):
        body = payloads.snapshot(market)
        frame = f'{{"type":"orderbook_snapshot","sid":1,"seq":{number},"msg":{body.decode()}}}'
        recorder.lines.append(f'{{"received_at_ns":{start_us * 1_000},"frame":{frame}}}\n')
    recorder.seqs[BOOK] = len(venue.quoting)
    path.parent.mkdir(parents=True, exist_ok=True)
    now_us = start_us
    with path.open("w", encoding="utf-8") as file:
        while recorder.frames < messages:
            step = min(1_000, messages - recorder.frames)
            until_us = now_us + max(1, round(step / rate * 1_000_000))
            activity.run(now_us, until_us, step)
            now_us = until_us
            if len(recorder.lines) >= FRAMES_PER_WRITE:
                file.writelines(recorder.lines)
                recorder.lines.clear()
        file.writelines(recorder.lines)
    return recorder.frames
