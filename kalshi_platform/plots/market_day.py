"""Draws one market's day: price and spread, depth, trades, volume, and what is not known as what it is.

Rows in, figure out. Times are aware and UTC, prices dollars, sizes contracts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

_BID, _ASK, _HOLE, _INK = "#1f5fa8", "#c0482f", "#8a8a8a", "#222222"
_BIDS = LinearSegmentedColormap.from_list("bids", ["#eef4fb", "#9dc3e6", "#2f75b5"])
_ASKS = LinearSegmentedColormap.from_list("asks", ["#fdf1ec", "#f2b49f", "#c0482f"])
_COLUMNS = 720
_LEVELS = 120
_VOLUME_BARS = 96
_SPREAD_BARS = 288
_SAMPLES = 20
_DPI = 120


@dataclass(frozen=True)
class MarketDay:
    """What is drawn.

    `quotes`: exchange_ts, bid_dollars, ask_dollars (null: that side is empty, or not known). `books`: ts, bid_dollars,
    bid_contracts, ask_dollars, ask_contracts (lists, best first). `trades`: exchange_ts, yes_price_dollars,
    count_contracts, taker_side. `holes`: from, to.
    """

    heading: str
    facts: str
    start: datetime
    end: datetime
    quotes: pl.DataFrame
    books: pl.DataFrame
    trades: pl.DataFrame
    holes: Sequence[tuple[datetime, datetime]]


def market_day(day: MarketDay) -> Figure:
    """Draw the day: one figure of three panels above each other, over one axis of time."""
    figure = Figure(figsize=(11, 7), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    price, spread, volume = figure.subplots(3, 1, sharex=True, height_ratios=(6, 1.2, 1.2))
    low, high = _price_range(day)
    _draw_depth(figure, price, day, low, high)
    _draw_quotes(price, day)
    _draw_trades(price, day)
    price.set_ylim(low, high)
    price.set_ylabel("yes price, $")
    _draw_spread(spread, day)
    _draw_volume(volume, day)
    for axes in (price, spread, volume):
        _draw_holes(axes, day, above_depth=axes is price)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    _legend(price, day)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    volume.xaxis.set_major_locator(locator)
    dates = ConciseDateFormatter(locator, tz=UTC, show_offset=False)  # type: ignore[no-untyped-call]
    volume.xaxis.set_major_formatter(dates)
    volume.set_xlim(_number(day.start), _number(day.end))
    volume.set_xlabel("UTC", fontsize=8)
    figure.suptitle(day.heading, x=0.01, ha="left", fontsize=12, fontweight="bold", color=_INK)
    price.set_title(day.facts, loc="left", fontsize=9, color="#555555")
    return figure


def _price_range(day: MarketDay) -> tuple[float, float]:
    """The prices that matter: those of quotes and trades, with room, within 0 … 1."""
    columns = [day.quotes["bid_dollars"], day.quotes["ask_dollars"], day.trades["yes_price_dollars"]]
    values = np.concatenate([column.cast(pl.Float64).drop_nulls().to_numpy() for column in columns] or [np.empty(0)])
    if not len(values):
        return 0.0, 1.0
    # Single quotes far away (a side that was empty for a moment) must not flatten the rest.
    low, high = float(np.quantile(values, 0.01)), float(np.quantile(values, 0.99))
    room = max(0.03, 0.25 * (high - low))
    return max(0.0, low - room), min(1.0, high + room)


def _draw_depth(figure: Figure, axes: Axes, day: MarketDay, low: float, high: float) -> None:
    edges = np.linspace(_number(day.start), _number(day.end), _COLUMNS + 1)
    prices = np.linspace(low, high, min(_LEVELS, max(8, round((high - low) * 100) + 1)) + 1)
    shown = []
    for side, colors in (("bid", _BIDS), ("ask", _ASKS)):
        grid = _depth_grid(day, side, edges, prices)
        if np.nansum(grid) > 0:
            shown.append((np.ma.masked_less_equal(np.nan_to_num(grid), 0), colors))
    if not shown:
        return
    most = max(float(grid.max()) for grid, _ in shown)
    norm = LogNorm(vmin=max(1.0, most / 1_000), vmax=max(most, 10.0), clip=True)
    for grid, colors in shown:
        mesh = axes.pcolormesh(edges, prices, grid, cmap=colors, norm=norm, shading="flat", rasterized=True, zorder=1)
        bar = figure.colorbar(mesh, ax=axes, pad=0.005, fraction=0.018, aspect=40)
        bar.ax.tick_params(labelsize=7)
        bar.set_label("bids, contracts" if colors is _BIDS else "offers, contracts", fontsize=7)


def _depth_grid(day: MarketDay, side: str, edges: Any, prices: Any) -> Any:
    """Contracts by price and column of time: each book holds until the next one, and never through a hole."""
    grid = np.zeros((len(prices) - 1, len(edges) - 1))
    rows = day.books.select("ts", f"{side}_dollars", f"{side}_contracts").sort("ts")
    times = _numbers(rows["ts"])
    if not len(times):
        return grid
    which = np.searchsorted(times, edges[1:], side="right") - 1
    levels = list(zip(rows[f"{side}_dollars"].to_list(), rows[f"{side}_contracts"].to_list(), strict=True))
    binned: dict[int, Any] = {}
    for column, book in enumerate(which):
        if book < 0:
            continue
        if book not in binned:
            level_prices, sizes = levels[book]
            binned[book], _ = np.histogram(
                np.asarray(level_prices or [], float), bins=prices, weights=np.asarray(sizes or [], float)
            )
        grid[:, column] = binned[book]
    for begin, end in day.holes:
        grid[:, (edges[1:] > _number(begin)) & (edges[:-1] < _number(end))] = 0
    return grid


def _draw_quotes(axes: Axes, day: MarketDay) -> None:
    quotes = _without_holes(day)
    times = _numbers(quotes["exchange_ts"])
    for side, color in (("bid", _BID), ("ask", _ASK)):
        values = quotes[f"{side}_dollars"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        axes.step(times, values, where="post", color=color, linewidth=0.7, zorder=3)


def _draw_trades(axes: Axes, day: MarketDay) -> None:
    for side, color, marker in (("yes", _BID, "^"), ("no", _ASK, "v"), (None, _INK, "o")):
        trades = day.trades.filter(pl.col("taker_side").eq_missing(side))
        if trades.is_empty():
            continue
        sizes = trades["count_contracts"].cast(pl.Float64).to_numpy()
        most = float(day.trades["count_contracts"].cast(pl.Float64).max() or 1)  # type: ignore[arg-type]
        axes.scatter(
            _numbers(trades["exchange_ts"]),
            trades["yes_price_dollars"].cast(pl.Float64).to_numpy(),
            s=4 + 110 * np.sqrt(sizes / most),
            marker=marker,
            facecolor=color,
            edgecolor="white",
            linewidth=0.4,
            alpha=0.7,
            zorder=4,
        )


def _draw_spread(axes: Axes, day: MarketDay) -> None:
    """The mean over time of each bar: single changes would be a grey block."""
    quotes = _without_holes(day)
    cents = (quotes["ask_dollars"].cast(pl.Float64) - quotes["bid_dollars"].cast(pl.Float64)) * 100
    values = np.append(cents.fill_null(np.nan).to_numpy(), np.nan)
    edges = np.linspace(_number(day.start), _number(day.end), _SPREAD_BARS + 1)
    samples = np.linspace(edges[0], edges[-1], _SPREAD_BARS * _SAMPLES, endpoint=False)
    held = values[np.searchsorted(_numbers(quotes["exchange_ts"]), samples, side="right") - 1]
    in_bars = np.ma.masked_invalid(held.reshape(_SPREAD_BARS, _SAMPLES))
    means = in_bars.mean(axis=1)
    axes.bar(edges[:-1], means.filled(0), width=np.diff(edges), align="edge", color="#7a7a7a", linewidth=0)
    axes.set_ylabel("spread, ¢")
    axes.set_ylim(0, max(1.0, float(means.max()) * 1.15) if means.count() else 1.0)


def _draw_volume(axes: Axes, day: MarketDay) -> None:
    edges = np.linspace(_number(day.start), _number(day.end), _VOLUME_BARS + 1)
    below = np.zeros(_VOLUME_BARS)
    for side, color in (("yes", _BID), ("no", _ASK), (None, _HOLE)):
        trades = day.trades.filter(pl.col("taker_side").eq_missing(side))
        sizes = trades["count_contracts"].cast(pl.Float64).to_numpy()
        counts, _ = np.histogram(_numbers(trades["exchange_ts"]), bins=edges, weights=sizes)
        axes.bar(edges[:-1], counts, width=np.diff(edges), bottom=below, align="edge", color=color, linewidth=0)
        below += counts
    axes.set_ylabel("volume")


def _draw_holes(axes: Axes, day: MarketDay, *, above_depth: bool) -> None:
    """Trades are drawn above holes: the exchange's own listing tells of them."""
    zorder = 2 if above_depth else 0
    for begin, end in day.holes:
        span = (_number(begin), _number(end))
        axes.axvspan(*span, facecolor="#f4f4f4", edgecolor=_HOLE, hatch="///", linewidth=0, zorder=zorder)


def _legend(axes: Axes, day: MarketDay) -> None:
    handles: list[Any] = [
        Line2D([], [], color=_BID, label="best bid"),
        Line2D([], [], color=_ASK, label="best offer"),
        Line2D([], [], color=_BID, marker="^", linestyle="", label="taker bought yes"),
        Line2D([], [], color=_ASK, marker="v", linestyle="", label="taker bought no"),
    ]
    if day.holes:
        handles.append(Patch(facecolor="#f4f4f4", edgecolor=_HOLE, hatch="///", label="not recorded"))
    axes.legend(handles=handles, loc="upper left", fontsize=7, ncols=len(handles), frameon=True, framealpha=0.9)


def _without_holes(day: MarketDay) -> pl.DataFrame:
    """The quotes, with nothing known from the begin of each hole to its end, and the last one held to the end."""
    columns = ["exchange_ts", "bid_dollars", "ask_dollars"]
    quotes = day.quotes.select(columns).sort("exchange_ts", maintain_order=True)
    for begin, end in day.holes:
        outside = (pl.col("exchange_ts") < begin) | (pl.col("exchange_ts") >= end)
        gap = pl.DataFrame({"exchange_ts": [begin]}, schema={"exchange_ts": quotes.schema["exchange_ts"]})
        quotes = pl.concat([quotes.filter(outside), gap], how="diagonal").sort("exchange_ts", maintain_order=True)
    if quotes.is_empty():
        return quotes
    last = quotes.tail(1).with_columns(exchange_ts=pl.lit(day.end).cast(quotes.schema["exchange_ts"]))
    return pl.concat([quotes, last])


def _numbers(column: pl.Series) -> Any:
    """Times as matplotlib's days."""
    return column.dt.epoch("us").to_numpy().astype(float) / timedelta(days=1).total_seconds() / 1e6


def _number(moment: datetime) -> float:
    return float(date2num(moment))  # type: ignore[no-untyped-call]
