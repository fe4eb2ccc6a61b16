"""One hour of order-book deltas of production, as a busy exchange makes them, for `bench export`.

Seeded: numbers alone decide what is in it. Orders are placed and taken back, so that no level is ever negative; a few
markets get most of them; several changes fall on one microsecond; three gatherers brought the rows in turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from kalshi_platform.market.tables import PRODUCTION_TABLES
from kalshi_platform.market.times import US_PER_HOUR, US_PER_S, us_from_datetime
from kalshi_platform.storage.arrow import arrow_schema

TABLE = "orderbook_deltas"
_SCHEMA = arrow_schema(PRODUCTION_TABLES[TABLE])
_STREAMS_PER_GATHERER = 4
_GATHERERS = ("g1", "g2", "g3")
_LIFETIME_S = 40.0
_SIZES_E2 = np.array([100, 200, 500, 1_000, 2_000, 2_500, 5_000, 10_000, 20_000, 50_000, 100_000], np.int64)
_SIZE_SHARES = np.array([8, 4, 8, 16, 6, 8, 14, 22, 5, 6, 3]) / 100

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ExportData:
    """About `rows` deltas of `markets` markets in the hour from `hour` on; the busiest market has about a tenth."""

    rows: int
    hour: datetime
    markets: int = 2_000
    seed: int = 1

    @cached_property
    def tickers(self) -> list[str]:
        """The markets' tickers; their order says nothing of how busy they are."""
        return [f"KXBENCH-26NOV23-T{number * 7_919 % 99_991:05d}" for number in range(self.markets)]

    def batches(self, rows_per_batch: int = 100_000) -> Iterator[pa.Table]:
        """The rows in the order in which a merge brings them: by time, a second of one gatherer after the other."""
        frame = self._merged(self._orders())
        for low in range(0, frame.height, rows_per_batch):
            yield frame.slice(low, rows_per_batch).to_arrow().select(_SCHEMA.names).cast(_SCHEMA)

    def _orders(self) -> pl.DataFrame:
        """Orders placed and taken back, as two changes each, without where they came from."""
        draw = np.random.default_rng(self.seed)
        placed = int(self.rows / 1.97)  # the last ones of the hour stay
        shares = 1 / (np.arange(self.markets) + 2.0) ** 1.08
        market = draw.choice(self.markets, placed, p=shares / shares.sum())
        # Bursts: a random rate for every second.
        rates = draw.gamma(1.5, size=3_600)
        second = draw.choice(3_600, placed, p=rates / rates.sum())
        start = second * US_PER_S + draw.integers(0, US_PER_S, placed)
        life = (draw.exponential(_LIFETIME_S, placed) ** 1.5 * US_PER_S / 8).astype(np.int64) + 500
        # Sweeps: some changes share market and microsecond with the one before.
        order = np.lexsort((start, market))
        market, start, life = market[order], start[order], life[order]
        shared = np.flatnonzero((draw.random(placed) < 0.15) & (np.arange(placed) > 0))
        shared = shared[market[shared] == market[shared - 1]]
        start[shared] = start[shared - 1]
        middle = 1_000 + 8_000 * draw.random(self.markets)
        walk = 600 * np.sin(start / US_PER_HOUR * 6.0 + market)
        is_yes = draw.random(placed) < 0.5
        at = np.where(is_yes, middle[market] + walk, 10_000 - middle[market] - walk)
        price = np.clip((at / 100).astype(np.int64) - draw.geometric(0.2, placed), 1, 99) * 100
        size = draw.choice(_SIZES_E2, placed, p=_SIZE_SHARES)
        odd = draw.random(placed) < 0.25
        size = np.where(odd, draw.integers(1, 500, placed) * 100, size)
        size = np.where(draw.random(placed) < 0.05, draw.integers(1, 100_000, placed), size)
        both = pl.DataFrame(
            {
                "market": np.concatenate([market, market]),
                "at_us": np.concatenate([start, start + life]),
                "is_yes": np.concatenate([is_yes, is_yes]),
                "price_e4": np.concatenate([price, price]),
                "delta_e2": np.concatenate([size, -size]),
            }
        )
        return both.filter(pl.col("at_us") < US_PER_HOUR).sort("at_us", "market", maintain_order=True)

    def _merged(self, orders: pl.DataFrame) -> pl.DataFrame:
        """What production has of the changes, in the order in which merges brought them."""
        draw = np.random.default_rng(self.seed + 1)
        count = orders.height
        names = pl.Series(self.tickers)
        second = orders["at_us"].to_numpy() // US_PER_S
        first = draw.choice(3, 3_600, p=[0.5, 0.3, 0.2])[second]
        gatherer = np.where(draw.random(count) < 0.03, draw.integers(0, 3, count), first)
        stream = gatherer * 100 + 11 + orders["market"].to_numpy() % _STREAMS_PER_GATHERER
        # Several messages come with one read of the socket.
        received = (orders["at_us"].to_numpy() + 18_000 + draw.exponential(4_000, count).astype(np.int64)) // 400 * 400
        base = us_from_datetime(self.hour)
        return (
            orders.with_columns(
                ticker=names.gather(orders["market"]),
                exchange_ts=pl.col("at_us") + base,
                side=pl.when("is_yes").then(pl.lit("yes")).otherwise(pl.lit("no")),
                gatherer=pl.Series(_GATHERERS).gather(pl.Series(gatherer)),
                stream_id=pl.Series(stream),
                received_at=pl.Series(received + base + gatherer * 700),
                second=pl.Series(second),
            )
            .with_columns(
                occurrence=pl.int_range(pl.len(), dtype=pl.Int32).over(
                    "exchange_ts", "ticker", "side", "price_e4", "delta_e2"
                ),
                # Every gatherer numbers what it received, also what another one brought first.
                seq=pl.int_range(1, pl.len() + 1).over(pl.col("market") % _STREAMS_PER_GATHERER),
                received_at=pl.col("received_at").cum_max().over("stream_id"),
            )
            .sort("second", "gatherer", maintain_order=True)
            .with_columns(
                pl.col("price_e4").cast(pl.Int32),
                pl.col("exchange_ts", "received_at").cast(pl.Datetime("us", "UTC")),
            )
        )
