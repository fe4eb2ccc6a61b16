"""Writes one market's range as the array that hftbacktest loads; numpy is all it takes.

The format: https://hftbacktest.readthedocs.io/en/latest/data.html. Times are nanoseconds, prices dollars, sizes
contracts: ticks of 0.0001, lots of 0.01.
"""

from __future__ import annotations

from array import array
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from kalshi_platform.errors import MissingPartition
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.loaders.market_steps import BookGiven, BookLost, Level, Step, Traded, market_steps
from kalshi_platform.lake.reader import Source
from kalshi_platform.lake.reader.source import AbsentPartition, Holes, Selection, make_source
from kalshi_platform.lake.store import Lake
from kalshi_platform.market.times import us_from_datetime

# hftbacktest/types.py
EVENT_DTYPE = np.dtype(
    [
        ("ev", "u8"),
        ("exch_ts", "i8"),
        ("local_ts", "i8"),
        ("px", "f8"),
        ("qty", "f8"),
        ("order_id", "u8"),
        ("ival", "i8"),
        ("fval", "f8"),
    ],
    align=True,
)
DEPTH_EVENT, TRADE_EVENT, DEPTH_CLEAR_EVENT, DEPTH_SNAPSHOT_EVENT = 1, 2, 3, 4
EXCH_EVENT, LOCAL_EVENT, BUY_EVENT, SELL_EVENT = 1 << 31, 1 << 30, 1 << 29, 1 << 28

_SIDE: dict[str, int] = {"bid": BUY_EVENT, "ask": SELL_EVENT}
_TAKER = {"yes": BUY_EVENT, "no": SELL_EVENT}
_KIND = np.uint64(0xFF)
_DELTAS = DATASETS["raw/orderbook_deltas"]

Events: TypeAlias = npt.NDArray[np.void]
Times: TypeAlias = npt.NDArray[np.int64]


def to_hftbacktest(
    lake: Lake | Source,
    ticker: str,
    start: datetime,
    end: datetime,
    path: Path | str,
    *,
    holes: Holes = "mark",
    block_trades: bool = False,
) -> int:
    """Write [start, end) of a market as `data` of an npz file at `path`, and return how many events it has.

    The book is given at the start, cleared where a hole begins (with `holes="raise"` there may be none) and given again
    where it is known. The local time of an event is when a gatherer received it; where none did, it is the exchange's
    with the usual delay. Raises MissingPartition where nothing is known of the market, and as `reader.replay` does.
    Memory: about 350 bytes an event.
    """
    source, path = make_source(lake), Path(path)
    with source.session():
        rows = _Rows()
        for step in market_steps(source, ticker, start, end, holes=holes, block_trades=block_trades):
            rows.add(step)
        received = _received_deltas(source, ticker, start, end)
    if not rows.kinds:
        raise MissingPartition(f"neither a book nor trades of {ticker} from {start.isoformat()} to {end.isoformat()}")
    events = make_events(rows, *received)
    beside = path.with_name(f"{path.name}.partial")
    with beside.open("wb") as file:
        np.savez_compressed(file, data=events)
    beside.replace(path)
    return len(events)


class _Rows:
    """Events as columns; times in microseconds, `received_us` is 0 where no gatherer received it."""

    def __init__(self) -> None:
        self.kinds, self.times_us, self.received_us = array("Q"), array("q"), array("q")
        self.prices_e4, self.sizes_e2 = array("q"), array("q")

    def add(self, step: Step) -> None:
        """Append what happens at a step."""
        if isinstance(step, Traded):
            row = step.values
            received_us = us_from_datetime(row["received_at"]) if row["source"] == "ws" else 0
            kind = TRADE_EVENT | _TAKER.get(row["taker_side"], 0)
            self._append(kind, step.ts_us, row["yes_price_e4"], row["count_e2"], received_us)
        elif isinstance(step, BookGiven | BookLost):
            # A side is cleared from its best price up to one that is beyond all.
            self._append(DEPTH_CLEAR_EVENT | BUY_EVENT, step.ts_us, 0, 0)
            self._append(DEPTH_CLEAR_EVENT | SELL_EVENT, step.ts_us, 10_000, 0)
            for level, size_e2 in step.levels if isinstance(step, BookGiven) else ():
                self._append_level(DEPTH_SNAPSHOT_EVENT, step.ts_us, level, size_e2)
        else:
            for level, _, size_e2 in step.changes:
                self._append_level(DEPTH_EVENT, step.ts_us, level, size_e2)

    def _append_level(self, kind: int, ts_us: int, level: Level, size_e2: int) -> None:
        side, price_e4 = level
        self._append(kind | _SIDE[side], ts_us, price_e4, size_e2)

    def _append(self, kind: int, ts_us: int, price_e4: int, size_e2: int, received_us: int = 0) -> None:
        self.kinds.append(kind)
        self.times_us.append(ts_us)
        self.received_us.append(received_us)
        self.prices_e4.append(price_e4)
        self.sizes_e2.append(size_e2)


def make_events(rows: _Rows, delta_times_us: Times, delta_received_us: Times) -> Events:
    """Make hftbacktest's array; the deltas' times (ascending) and receipts give the local times of depth events."""
    times_us, received_us = np.frombuffer(rows.times_us, np.int64), np.array(rows.received_us, np.int64)
    kinds = np.frombuffer(rows.kinds, np.uint64)
    is_change = kinds & _KIND == DEPTH_EVENT
    if len(delta_times_us):
        # The last delta of a moment completes it.
        after = np.searchsorted(delta_times_us, times_us[is_change], "right") - 1
        received_us[is_change] = np.maximum.accumulate(delta_received_us)[after]
    is_known = received_us > 0
    delay_us = int(np.median(received_us[is_known] - times_us[is_known])) if is_known.any() else 0
    local_us = np.where(is_known, received_us, times_us + max(delay_us, 0))
    local_us = np.maximum(local_us, times_us)
    # Sizes of levels replace each other: one that overtook an earlier one would leave a wrong book.
    of_book = kinds & _KIND != TRADE_EVENT
    local_us[of_book] = np.maximum.accumulate(local_us[of_book])
    events = np.zeros(len(kinds), EVENT_DTYPE)
    events["ev"] = kinds
    events["exch_ts"] = times_us * 1_000
    events["local_ts"] = local_us * 1_000
    events["px"] = np.frombuffer(rows.prices_e4, np.int64) / 10_000
    events["qty"] = np.frombuffer(rows.sizes_e2, np.int64) / 100
    return order_events(events)


def order_events(events: Events) -> Events:
    """Put events in the order of the exchange's time and of the local time at once; `events` are ascending by exch_ts.

    One that is at different places of the two stands in both, as an event of the exchange alone and as a local one
    alone, as hftbacktest's correct_event_order has it.
    """
    by_local = np.argsort(events["local_ts"], kind="stable").data
    count = len(events)
    rows, flags = array("q"), array("Q")
    exch, local = 0, 0
    while local < count:
        row = by_local[local]
        if row == exch:
            flag = EXCH_EVENT | LOCAL_EVENT
            exch, local = exch + 1, local + 1
        elif row < exch:
            flag = LOCAL_EVENT
            local += 1
        else:
            row, flag = exch, EXCH_EVENT
            exch += 1
        rows.append(row)
        flags.append(flag)
    ordered = events[np.frombuffer(rows, np.int64)]
    ordered["ev"] |= np.frombuffer(flags, np.uint64)
    return ordered


def _received_deltas(source: Source, ticker: str, start: datetime, end: datetime) -> tuple[Times, Times]:
    """The times of a market's deltas, ascending, and when each was received, in microseconds."""
    columns = (_DELTAS.time_column, "received_at")
    times, received = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for partition in list(source.find(_DELTAS, start, end)):
        if not isinstance(partition, AbsentPartition):
            rows, _ = source.read(partition, Selection(start, end, (ticker,), columns))
            times.append(pc.cast(rows.column(columns[0]), "int64").to_numpy())
            received.append(pc.cast(rows.column(columns[1]), "int64").to_numpy())
    all_times, all_received = np.concatenate(times), np.concatenate(received)
    order = np.argsort(all_times, kind="stable")
    return all_times[order], all_received[order]
