"""Seeded order-book deltas for benchmarks: their numbers alone decide what they are. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
TIME = pa.timestamp("us", "UTC")


def market_names(markets: int) -> list[str]:
    """The tickers of that many markets."""
    return [f"KXBENCH-26NOV23-T{number:05d}" for number in range(markets)]


def markets_of(rows: Ints, markets: int) -> Ints:
    """The market of each row. A few markets get most of the traffic, as on the exchange."""
    found: Ints = (markets * _scattered(rows, 1) ** 3).astype(np.int64)
    return found


def levels_of(rows: Ints) -> tuple[npt.NDArray[np.bool_], Ints, Ints]:
    """Whether each row is on the yes side, its price in 1/10,000 dollar, and its change of size in 1/100 contract."""
    prices: Ints = (100 + 100 * np.floor(98 * _scattered(rows, 3))).astype(np.int64)
    return _scattered(rows, 2) < 0.5, prices, (rows % 2 * 2 - 1) * (100 + rows % 5_000)


def delta_content(rows: Ints, times_us: Ints, markets: int) -> pa.Table:
    """What the exchange sent under these numbers: the columns that all gatherers agree on."""
    is_yes, prices, sizes = levels_of(rows)
    return pa.table(
        {
            "exchange_ts": pa.array(times_us, TIME),
            "ticker": pa.array(market_names(markets)).take(pa.array(markets_of(rows, markets))),
            "side": pa.array(np.where(is_yes, "yes", "no")),
            "price_e4": pa.array(prices.astype(np.int32)),
            "delta_e2": pa.array(sizes),
            "occurrence": pa.array(np.zeros(len(rows), np.int32)),
        }
    )


def _scattered(rows: Ints, salt: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for every row, the same for every gatherer that holds it."""
    mixed = (rows.astype(np.uint64) + np.uint64(salt << 32)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(11)).astype(np.float64) / float(1 << 53)
