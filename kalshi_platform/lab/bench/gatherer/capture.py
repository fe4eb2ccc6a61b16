"""The stream that a benchmark sends: a recording of a generated venue, and what must be stored of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kalshi_platform.lab.simulator.replay.recording import record

_TABLES = {"orderbook_delta": "orderbook_deltas", "trade": "trades", "ticker": "tickers"}


@dataclass(frozen=True)
class Capture:
    """A file for `exchange replay`. `messages`: data frames in it; `rows`: what each table must hold afterwards."""

    path: Path
    tickers: tuple[str, ...]
    messages: int
    rows: Mapping[str, int]


def make_capture(path: Path, *, markets: int, messages: int, rate: float, start_us: int) -> Capture:
    """Record `messages` messages at `rate` a second from `start_us` on; the same arguments give the same stream."""
    record(path, markets=markets, messages=messages, rate=rate, start_us=start_us)
    kinds: Counter[str] = Counter()
    tickers: list[str] = []
    prints: set[str] = set()
    with path.open(encoding="utf-8") as file:
        for line in file:
            kind = line.partition('"type":"')[2].partition('"')[0]
            kinds[kind] += 1
            if kind == "orderbook_snapshot":
                tickers.append(json.loads(line)["frame"]["msg"]["market_ticker"])
            elif kind == "ticker":
                # Equal content in one millisecond is one row.
                msg = json.loads(line)["frame"]["msg"]
                prints.add(json.dumps({**msg, "time": ""}, sort_keys=True))
    rows = {_TABLES[kind]: count for kind, count in kinds.items() if kind in _TABLES}
    sent = sum(rows.values())
    return Capture(path, tuple(tickers), sent, {**rows, "tickers": len(prints)})
