"""What a recorded capture says, found without any code of the package: dictionaries and Decimal only."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

BookLevels: TypeAlias = dict[tuple[str, Decimal], Decimal]


def frames(path: Path) -> list[dict[str, Any]]:
    """The lines of a capture file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def without_ts(path: Path, target: Path) -> Path:
    """A copy of a capture whose deltas carry `ts_ms` only."""
    lines = frames(path)
    for line in lines:
        if line["frame"]["type"] == "orderbook_delta":
            del line["frame"]["msg"]["ts"]
    target.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return target


def deltas(path: Path) -> list[dict[str, Any]]:
    """The messages of all deltas, in order."""
    return [line["frame"]["msg"] for line in frames(path) if line["frame"]["type"] == "orderbook_delta"]


def final_books(path: Path) -> dict[str, BookLevels]:
    """Market → {(side, price in dollars): contracts} after the whole capture."""
    books: dict[str, BookLevels] = {}
    for line in frames(path):
        message = line["frame"].get("msg", {})
        if line["frame"]["type"] == "orderbook_snapshot":
            book: BookLevels = {}
            for side in ("yes", "no"):
                for price, size in message.get(f"{side}_dollars_fp", []):
                    book[side, Decimal(price)] = Decimal(size)
            books[message["market_ticker"]] = book
        elif line["frame"]["type"] == "orderbook_delta":
            book = books[message["market_ticker"]]
            key = (message["side"], Decimal(message["price_dollars"]))
            book[key] = book.get(key, Decimal(0)) + Decimal(message["delta_fp"])
            if not book[key]:
                del book[key]
    return books


def natural_rows(path: Path) -> Counter[tuple[Any, ...]]:
    """The deltas as a multiset of (time, market, side, price_e4, delta_e2)."""
    found: Counter[tuple[Any, ...]] = Counter()
    for message in deltas(path):
        if "ts" in message:
            moment = datetime.fromisoformat(message["ts"])
        else:
            seconds, milliseconds = divmod(message["ts_ms"], 1000)
            moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=milliseconds * 1000)
        price = Decimal(message["price_dollars"]) * 10_000
        delta = Decimal(message["delta_fp"]) * 100
        found[moment, message["market_ticker"], message["side"], int(price), int(delta)] += 1
    return found


def sweeps(path: Path) -> dict[tuple[datetime, str], int]:
    """(time, market) of several deltas of one market at one and the same time → how many they are."""
    sizes: Counter[tuple[datetime, str]] = Counter()
    for (moment, ticker, *_), number in natural_rows(path).items():
        sizes[moment, ticker] += number
    return {place: number for place, number in sizes.items() if number > 1}
