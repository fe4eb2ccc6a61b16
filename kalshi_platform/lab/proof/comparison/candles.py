"""Candles of the lake against those of the exchange's endpoint, field by field.

Only candles that the lake calls complete are held to the exchange's. Where rows of one moment came from several
streams nobody knows their order, so that a first or last price of that moment is undecided; so is open interest that a
ticker told only after the period's end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl

from kalshi_platform.lake import reader
from kalshi_platform.lake.store import Lake
from kalshi_platform.market.catalog import Candlestick, Ohlc
from kalshi_platform.market.intervals import covers, holes, union
from kalshi_platform.market.times import datetime_from_us, us_from_datetime

CANDLES = {1: "aggregates/candles_1m", 60: "aggregates/candles_1h", 1_440: "aggregates/candles_1d"}
_SHAPES: dict[str, Callable[[Candlestick], Ohlc]] = {
    "yes_bid": lambda candle: candle.yes_bid,
    "yes_ask": lambda candle: candle.yes_ask,
    "price": lambda candle: candle.price,
}
_UNKNOWN_WHEN_NULL = frozenset({"open_interest_contracts", "price_previous_dollars"})
"""What only tickers, or trades of before, tell of a market in which nothing happened yet that day."""
_LATE_TICKER = timedelta(seconds=2)
_MINUTE_US = 60_000_000
_Key = tuple[str, int]
_Values = Mapping[str, int | None]


@dataclass(frozen=True)
class DifferingField:
    """A field of one candle that the lake has otherwise than the exchange; prices in 1/10,000 dollar, counts in _e2."""

    ticker: str
    end_us: int
    name: str
    lake: int | None
    exchange: int | None


@dataclass(frozen=True)
class CandlesCompared:
    """How the candles of one period compare.

    `compared`: candles that both have and the lake calls complete; `incomplete`: the exchange's candles that it does
    not; `missing` and `extra`: (ticker, end in µs) of those that one side alone has where coverage is whole.
    """

    period_minutes: int
    compared: int
    incomplete: int
    differing: tuple[DifferingField, ...] = ()
    undecided: tuple[DifferingField, ...] = ()
    missing: tuple[_Key, ...] = ()
    extra: tuple[_Key, ...] = ()
    fields: tuple[str, ...] = field(default=(), repr=False)

    @property
    def is_equal(self) -> bool:
        """Whether the lake has the exchange's candles wherever it says that it has everything."""
        return self.compared > 0 and not (self.differing or self.missing or self.extra)


def compare_candles(
    lake: Lake, period_minutes: int, exchange: Sequence[Candlestick], *, mean_tolerance_e6: int = 0
) -> CandlesCompared:
    """Compare the candles of the lake with the exchange's, which must be all of the markets and the time they span.

    `mean_tolerance_e6`: by how many millionths of a dollar a mean may differ, for an exchange that rounds otherwise.
    Raises MissingPartition where the lake lacks a day or an hour of that time.
    """
    period = timedelta(minutes=period_minutes)
    if not exchange:
        return CandlesCompared(period_minutes, 0, 0)
    tickers = sorted({candle.ticker for candle in exchange})
    low = datetime_from_us(min(candle.end_us for candle in exchange)) - period
    high = datetime_from_us(max(candle.end_us for candle in exchange))
    rows = reader.read(lake, CANDLES[period_minutes], low, high, tickers)
    theirs = {(candle.ticker, candle.end_us): _values(candle) for candle in exchange}
    ours = {(row["ticker"], us_from_datetime(row["end_period_ts"])): row for row in rows.iter_rows(named=True)}
    covered = _coverage(lake, low, high, tickers)

    def is_covered(key: _Key) -> bool:
        ranges = covered.get(key[0], [])
        return not holes(ranges, (key[1] - period_minutes * _MINUTE_US + 1, key[1] + 1)) and covers(ranges, key[1])

    both = [key for key in theirs if key in ours and ours[key]["is_complete"]]
    missing = [key for key in theirs if key not in ours and is_covered(key)]
    found = [
        DifferingField(*key, name, lake_value, value)
        for key in both
        for name, value in theirs[key].items()
        if not _equal(name, lake_value := _scaled(ours[key], name), value, mean_tolerance_e6)
    ]
    undecided = [each for each in found if _Excuses(lake, each, period).hold()]
    return CandlesCompared(
        period_minutes,
        len(both),
        len(theirs) - len(both) - len(missing),
        tuple(each for each in found if each not in undecided),
        tuple(undecided),
        tuple(sorted(missing)),
        tuple(sorted(key for key, row in ours.items() if row["is_complete"] and key not in theirs)),
        tuple(_values(exchange[0])),
    )


class _Excuses:
    """What may explain a field that differs, by the raw rows around it."""

    def __init__(self, lake: Lake, differing: DifferingField, period: timedelta) -> None:
        self._lake = lake
        self._field = differing
        self._end = datetime_from_us(differing.end_us)
        self._start = self._end - period

    def hold(self) -> bool:
        """Whether nobody can say which of the two values is right, or the lake says that it does not know."""
        name = self._field.name
        if name in _UNKNOWN_WHEN_NULL and self._field.lake is None:
            return True
        if name == "open_interest_contracts":
            return self._told_late()
        if name == "price_previous_dollars":
            return self._unordered(self._start - timedelta(days=1), self._start, -1)
        if name in ("price_open_dollars", "price_close_dollars"):
            return self._unordered(self._start, self._end, 0 if name == "price_open_dollars" else -1)
        return False

    def _told_late(self) -> bool:
        later = self._rows("raw/tickers", self._end, self._end + _LATE_TICKER)
        after = later.filter(pl.col("exchange_ts") > self._end)["open_interest_e2"].to_list()
        return self._field.exchange in after

    def _unordered(self, low: datetime, high: datetime, place: int) -> bool:
        margin = timedelta(seconds=1)
        rows = self._rows("raw/trades", low - margin, high + margin)
        rows = rows.with_columns(pl.coalesce("created_time", "exchange_ts").alias("at"))
        rows = rows.filter((pl.col("at") > low) & (pl.col("at") <= high)).sort("at", maintain_order=True)
        moment = rows.filter(pl.col("at") == pl.col("at").get(place)) if rows.height else rows
        streams = moment.select("gatherer", "stream_id").unique().height
        return streams > 1 and self._field.exchange in moment["yes_price_e4"].to_list()

    def _rows(self, key: str, low: datetime, high: datetime) -> pl.DataFrame:
        return reader.read(self._lake, key, low, high, [self._field.ticker], holes="mark")


def _values(candle: Candlestick) -> dict[str, int | None]:
    """The fields of the exchange's candle under the names of the lake's columns."""
    shapes = {name: shape(candle) for name, shape in _SHAPES.items()}
    return {
        **{
            f"{name}_{part}_dollars": getattr(shape, f"{part}_e4")
            for name, shape in shapes.items()
            for part in ("open", "low", "high", "close")
        },
        "price_mean_dollars": candle.price_mean_e6,
        "price_previous_dollars": candle.price_previous_e4,
        "volume_contracts": candle.volume_e2,
        "open_interest_contracts": candle.open_interest_e2,
    }


def _scaled(row: Mapping[str, object], name: str) -> int | None:
    value = row[name]
    if value is None:
        return None
    digits = 2 if name.endswith("_contracts") else 6 if name == "price_mean_dollars" else 4
    return int(value.scaleb(digits))  # type: ignore[attr-defined]


def _equal(name: str, ours: int | None, theirs: int | None, mean_tolerance_e6: int) -> bool:
    if name == "price_mean_dollars" and ours is not None and theirs is not None:
        return abs(ours - theirs) <= mean_tolerance_e6
    return ours == theirs


def _coverage(lake: Lake, low: datetime, high: datetime, tickers: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
    rows = reader.read(lake, "raw/coverage", low, high + timedelta(microseconds=1), tickers)
    found: dict[str, list[tuple[int, int]]] = {}
    for ticker, start, end in rows.select("ticker", "from_ts", "to_ts").iter_rows():
        found.setdefault(ticker, []).append((us_from_datetime(start), us_from_datetime(end)))
    return {ticker: union(ranges) for ticker, ranges in found.items()}
