"""Scans the deltas of one stream in order of seq, block by block, and keeps what its claims need of them. Pure.

Claims rest on the times of a whole feed (all deltas of the stream with one exchange_index), not on those of their own
market. Of millions of rows they need little: between the places where a book subscription begins or ends, the earliest
and the latest time; and where times go back. After a frame of time t no frame has a time before t -
max_out_of_orderness; where one does, that bound was too small just then, so that nothing from the earlier time to the
later one is claimed of any market of that feed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from kalshi_platform.market.intervals import Interval, union

Ints: TypeAlias = npt.NDArray[np.int64]
REGRESSIONS = {"ticker": pl.String, "steps": pl.Int64, "largest_us": pl.Int64, "exchange_us": pl.Int64}
_MOST, _LEAST = np.iinfo(np.int64).max, np.iinfo(np.int64).min
# No number of a market: the stream as a whole.
_STREAM = -1


class Feed(NamedTuple):
    """What a stream's deltas say of its claims.

    `times`: seq, exchange_us, exchange_index; two rows stand for all rows between two places, with the earliest and the
    latest time, at the later place. `invalid`: by exchange_index, what regressions beyond the bound invalidate.
    `regressions`: the columns of REGRESSIONS, of rows within the range; the empty ticker is the whole stream.
    `rows_within`: how many rows lie within the range.
    """

    times: pl.DataFrame
    invalid: dict[int, list[Interval]]
    regressions: pl.DataFrame
    rows_within: int


class FeedScan:
    """Takes the deltas of one stream. `places`: numbers of frames at which a span begins or ends, in any order.

    `feeds`: the exchange_index of each market, by the market's number; rows of markets below zero are left out.
    `within`: the range of exchange times [low, high) whose rows are counted and whose regressions are measured.
    """

    def __init__(
        self, places: Ints, feeds: npt.NDArray[np.int32], max_out_of_orderness_us: int, within: Interval
    ) -> None:
        self._places = np.unique(places)
        self._feeds = feeds
        self._bound_us = max_out_of_orderness_us
        self._within = within
        self._extremes: dict[int, tuple[Ints, Ints]] = {}
        self._feed_peaks: dict[int, int] = {}
        self._invalid: dict[int, list[Interval]] = {}
        self._peak = _LEAST
        self._market_peaks = np.full(len(feeds), _LEAST, dtype=np.int64)
        self._regressions: dict[int, tuple[int, int, int]] = {}
        self._rows_within = 0

    def add(self, seq: Ints, exchange_us: Ints, market: Ints) -> None:
        """Add rows in any order; all have greater numbers than those before."""
        known = self._feeds[market] >= 0
        if not known.all():
            seq, exchange_us, market = seq[known], exchange_us[known], market[known]
        if not len(seq):
            return
        if (seq[1:] < seq[:-1]).any():
            order = np.argsort(seq, kind="stable")
            seq, exchange_us, market = seq[order], exchange_us[order], market[order]
        self._rows_within += int(np.count_nonzero(self._is_within(exchange_us)))
        feeds = self._feeds[market]
        for feed in np.unique(feeds).tolist():
            mine = feeds == feed
            if mine.all():
                self._add_feed(feed, seq, exchange_us)
            else:
                self._add_feed(feed, seq[mine], exchange_us[mine])
        self._measure(exchange_us, market)

    def finish(self, tickers: Sequence[str]) -> Feed:
        """Return what was found. `tickers`: by the market's number."""
        at = np.append(self._places, self._places[-1] + 1 if len(self._places) else 0)
        parts = [pl.DataFrame(schema={"seq": pl.Int64, "exchange_us": pl.Int64, "exchange_index": pl.Int32})]
        for feed, (least, most) in self._extremes.items():
            filled = least <= most
            times = np.stack([least[filled], most[filled]], axis=1).ravel()
            rows = {"seq": np.repeat(at[filled], 2), "exchange_us": times}
            parts.append(pl.DataFrame(rows).with_columns(exchange_index=pl.lit(feed, pl.Int32)))
        measured = [
            ("" if market == _STREAM else tickers[market], *found) for market, found in self._regressions.items()
        ]
        regressions = pl.DataFrame(measured, schema=REGRESSIONS, orient="row").sort("ticker")
        return Feed(pl.concat(parts), self._invalid, regressions, self._rows_within)

    def _is_within(self, exchange_us: Ints) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = (exchange_us >= self._within[0]) & (exchange_us < self._within[1])
        return found

    def _add_feed(self, feed: int, seq: Ints, exchange_us: Ints) -> None:
        starts = np.concatenate([[0], np.searchsorted(seq, self._places, side="right")])
        filled = np.flatnonzero(starts < np.append(starts[1:], len(seq)))
        size = len(self._places) + 1
        least, most = self._extremes.setdefault(
            feed, (np.full(size, _MOST, dtype=np.int64), np.full(size, _LEAST, dtype=np.int64))
        )
        least[filled] = np.minimum(least[filled], np.minimum.reduceat(exchange_us, starts[filled]))
        most[filled] = np.maximum(most[filled], np.maximum.reduceat(exchange_us, starts[filled]))
        before = self._feed_peaks.get(feed)
        # Of the first row of a feed there is nothing that it could go back from.
        peaks = np.maximum.accumulate(exchange_us if before is None else np.append(before, exchange_us))
        earlier = peaks[:-1] if before is not None else np.concatenate([exchange_us[:1], peaks[:-1]])
        stepped = np.flatnonzero(exchange_us < earlier - self._bound_us)
        if len(stepped):
            ranges = zip(exchange_us[stepped].tolist(), (earlier[stepped] + 1).tolist(), strict=True)
            self._invalid[feed] = union([*self._invalid.get(feed, ()), *ranges])
        self._feed_peaks[feed] = int(peaks[-1])

    def _measure(self, exchange_us: Ints, market: Ints) -> None:
        peaks = np.maximum(np.maximum.accumulate(exchange_us), self._peak)
        back = peaks - exchange_us
        self._peak = int(peaks[-1])
        # A row that goes back within its market goes back within the stream.
        rows = np.flatnonzero((back > 0) & self._is_within(exchange_us))
        if len(rows):
            self._count(_STREAM, back[rows], exchange_us[rows])
            self._measure_markets(exchange_us, market, np.unique(market[rows]))
        np.maximum.at(self._market_peaks, market, exchange_us)

    def _measure_markets(self, exchange_us: Ints, market: Ints, wanted: Ints) -> None:
        is_wanted = np.zeros(len(self._feeds), dtype=np.bool_)
        is_wanted[wanted] = True
        mine = is_wanted[market]
        exchange_us, market = exchange_us[mine], market[mine]
        rows = pl.DataFrame({"market": market, "us": exchange_us})
        reached = rows.select(pl.col("us").cum_max().over("market")).to_series().to_numpy()
        back = np.maximum(reached, self._market_peaks[market]) - exchange_us
        stepped = np.flatnonzero((back > 0) & self._is_within(exchange_us))
        for number in np.unique(market[stepped]).tolist():
            own = stepped[market[stepped] == number]
            self._count(number, back[own], exchange_us[own])

    def _count(self, market: int, back: Ints, exchange_us: Ints) -> None:
        place = int(np.argmax(back))
        steps, largest, at = self._regressions.get(market, (0, 0, 0))
        if back[place] > largest:
            largest, at = int(back[place]), int(exchange_us[place])
        self._regressions[market] = steps + len(back), largest, at


def scan_frame(
    deltas: pl.DataFrame, places: Ints, max_out_of_orderness_us: int, within: Interval, rows_at_once: int
) -> Feed:
    """Scan deltas that are in memory: seq, exchange_us, ticker, exchange_index."""
    indices = deltas.unique("ticker", keep="last", maintain_order=True).select("ticker", "exchange_index")
    tickers = indices["ticker"].cast(pl.String).to_list()
    numbers = {ticker: number for number, ticker in enumerate(tickers)}
    feeds = indices["exchange_index"].cast(pl.Int32).to_numpy()
    scan = FeedScan(places, feeds, max_out_of_orderness_us, within)
    for block in _blocks(deltas.sort("seq"), rows_at_once):
        market = np.array([numbers[ticker] for ticker in block["ticker"].cast(pl.String)], dtype=np.int64)
        scan.add(block["seq"].cast(pl.Int64).to_numpy(), block["exchange_us"].cast(pl.Int64).to_numpy(), market)
    return scan.finish(tickers)


def _blocks(rows: pl.DataFrame, rows_at_once: int) -> Iterator[pl.DataFrame]:
    """Cut rows that are ascending by seq so that no number is in two blocks."""
    seq, low = rows["seq"], 0
    while low < rows.height:
        high = min(low + rows_at_once, rows.height)
        while high < rows.height and seq[high] == seq[high - 1]:
            high += 1
        yield rows.slice(low, high - low)
        low = high


def invalidated_between_segments(segments: pl.DataFrame, max_out_of_orderness_us: int) -> list[Interval]:
    """Return the same from one commit to later ones, as far as their times show; of all feeds of the stream.

    `segments`: seq_from, low_us, high_us (null without deltas).
    """
    stepped = (
        segments.filter(pl.col("low_us").is_not_null())
        .sort("seq_from")
        .with_columns(_peak=pl.col("high_us").cum_max().shift(1))
        .filter(pl.col("low_us") < pl.col("_peak") - max_out_of_orderness_us)
    )
    return union((low, high + 1) for low, high in stepped.select("low_us", "_peak").iter_rows())
