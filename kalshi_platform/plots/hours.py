"""Plots closed hours, small enough for an asset's page: coverage, checks, and what each gatherer brought.

Rows in, figure out. Moments are µs since 1970, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.dates import AutoDateLocator, DateFormatter, date2num
from matplotlib.figure import Figure

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COVERED, _HOLE, _UNIQUE, _SHARED = "#2f6f5e", "#d62728", "#e0a030", "#3b7dd8"
_MOST_MARKETS = 20
_DPI = 80
_DASH = 4.0
_LINES = ("#3b7dd8", "#e0a030", "#7a4fa3", "#2f6f5e", "#c23b6b", "#444444")
_SHARES = LinearSegmentedColormap.from_list("shares", [_HOLE, "#f3d9a4", _COVERED])


@dataclass(frozen=True)
class Minute:
    """One minute of one gatherer: messages, and the lag from the exchange to its socket in ms (None: not known)."""

    at: datetime
    messages: int
    lag_p50_ms: float | None = None
    lag_p99_ms: float | None = None


def traffic(title: str, gatherers: Mapping[str, Sequence[Minute]]) -> Figure:
    """Plot the messages that each gatherer recorded, minute by minute, above its lag (p50 and, dotted, p99)."""
    figure = Figure(figsize=(8, 3.6), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    messages, lag = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    messages.set_title(title, loc="left", fontsize=9)
    for number, (name, minutes) in enumerate(gatherers.items()):
        color = _LINES[number % len(_LINES)]
        whole = _with_empty_minutes(minutes)
        times, counts = [_number(each.at) for each in whole], [each.messages for each in whole]
        messages.plot(times, counts, color=color, linewidth=1.6, label=name)
        # Gatherers that agree lie on each other: above the lines, each has a dash in turn.
        turns: Any = (_DASH * number, (_DASH, _DASH * max(0, len(gatherers) - 1)))
        messages.plot(times, counts, color=color, linewidth=1.6, linestyle=turns, zorder=3)
        known = [each for each in minutes if each.lag_p50_ms is not None and each.lag_p99_ms is not None]
        moments = [_number(each.at) for each in known]
        lag.plot(moments, [each.lag_p50_ms or 0.0 for each in known], color=color, linewidth=1.2)
        lag.plot(moments, [each.lag_p99_ms or 0.0 for each in known], ":", color=color, linewidth=1.2)
    messages.set_ylim(0, 1.08 * messages.get_ylim()[1])
    messages.set_ylabel("messages a minute", fontsize=8)
    messages.legend(fontsize=7, frameon=False, loc="lower right", ncols=max(1, len(gatherers)))
    lag.set_ylabel("lag of trades, ms", fontsize=8)
    for axes in (messages, lag):
        _settle(axes)
    _name_times(lag, "%H:%M")
    return figure


def coverage_map(title: str, hours: Sequence[datetime], shares: Mapping[str, Mapping[datetime, float]]) -> Figure:
    """Plot the covered share (0 … 1) of each market (a row) and hour (a column); without a record: white."""
    figure, axes = _canvas(title, height=1.1 + 0.14 * max(1, len(shares)))
    values = np.array([[of_market.get(hour, np.nan) for hour in hours] for of_market in shares.values()], dtype=float)
    mesh = axes.pcolormesh(
        np.arange(len(hours) + 1), np.arange(len(shares) + 1), values, cmap=_SHARES, vmin=0, vmax=1,
        edgecolors="white", linewidth=0.5,
    )  # fmt: skip
    axes.set_yticks(np.arange(len(shares)) + 0.5, labels=list(shares), fontsize=6)
    axes.invert_yaxis()
    step = max(1, len(hours) // 12)
    axes.set_xticks(
        np.arange(0, len(hours), step) + 0.5, labels=[f"{hour:%m-%d\n%H}h" for hour in hours[::step]], fontsize=7
    )
    axes.tick_params(length=0)
    bar = figure.colorbar(mesh, ax=axes, pad=0.01, fraction=0.03, aspect=30)
    bar.set_label("covered share", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return figure


def agreement(title: str, shares: Mapping[str, Sequence[tuple[datetime, float]]], least: float) -> Figure:
    """Plot, hour by hour, the share (0 … 1) of each gatherer's deltas that another one has too; `least` is wanted."""
    figure, axes = _canvas(title, height=2.2)
    for number, (name, points) in enumerate(shares.items()):
        times = [_number(hour) for hour, _ in points]
        axes.plot(times, [share for _, share in points], "-o", markersize=3, color=_LINES[number % 6], label=name)
    axes.axhline(least, color=_HOLE, linewidth=0.8, linestyle="--")
    lowest = min([least, *(share for points in shares.values() for _, share in points)])
    axes.set_ylim(lowest - 0.1 * (1.0 - lowest) - 0.0005, 1 + 0.1 * (1.0 - lowest) + 0.0005)
    axes.set_ylabel("deltas that others have too", fontsize=8)
    axes.legend(fontsize=7, frameon=False, loc="lower right", ncols=max(1, len(shares)))
    _name_times(axes, "%m-%d %H:%M")
    return figure


def covered_share(title: str, moments_us: Sequence[int], shares: Sequence[float]) -> Figure:
    """Plot the share of the open markets (0 … 1) that are covered at each moment; what is missing is red."""
    figure, axes = _canvas(title, height=2.4)
    times = [_number(_EPOCH + timedelta(microseconds=us)) for us in moments_us]
    axes.fill_between(times, 0, shares, color=_COVERED, linewidth=0)
    axes.fill_between(times, shares, 1, color=_HOLE, linewidth=0)
    axes.set_ylim(0, 1)
    if len(times) > 1:
        axes.set_xlim(times[0], times[-1])
    axes.set_ylabel("covered markets")
    _name_times(axes, "%m-%d %H:%M")
    return figure


def worst_markets(title: str, scores: Mapping[str, float]) -> Figure:
    """Plot the share of passed checks (0 … 1) of the worst markets, worst first."""
    worst = sorted(scores.items(), key=lambda item: (item[1], item[0]))[:_MOST_MARKETS]
    figure, axes = _canvas(title, height=1.2 + 0.22 * max(1, len(worst)))
    names = [ticker for ticker, _ in worst]
    values = [score for _, score in worst]
    axes.barh(names, values, color=[_COVERED if value >= 1 else _HOLE for value in values])
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.set_xlabel("checks passed")
    axes.tick_params(axis="y", labelsize=7)
    return figure


def contributions(title: str, parts: Sequence[tuple[str, int, int]]) -> Figure:
    """Plot the rows of each gatherer: those that others have too, and those that only it has.

    `parts`: gatherer, rows, rows that only it has.
    """
    figure, axes = _canvas(title, height=1.2 + 0.35 * max(1, len(parts)))
    names = [name for name, _, _ in parts]
    shared = [rows - unique for _, rows, unique in parts]
    axes.barh(names, shared, color=_SHARED, label="others have it too")
    axes.barh(names, [unique for _, _, unique in parts], left=shared, color=_UNIQUE, label="only here")
    axes.invert_yaxis()
    axes.set_xlabel("rows")
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    return figure


def _canvas(title: str, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=9)
    _settle(axes)
    return figure, axes


def _settle(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _name_times(axes: Axes, pattern: str) -> None:
    axes.xaxis.set_major_locator(AutoDateLocator())  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(DateFormatter(pattern, tz=UTC))  # type: ignore[no-untyped-call]
    axes.tick_params(axis="x", labelsize=8)


def _with_empty_minutes(minutes: Sequence[Minute]) -> list[Minute]:
    """The minutes from the first to the last, those without a message as such."""
    if not minutes:
        return []
    by_time = {each.at: each for each in minutes}
    first, last = min(by_time), max(by_time)
    count = round((last - first) / timedelta(minutes=1)) + 1
    every = (first + number * timedelta(minutes=1) for number in range(count))
    return [by_time.get(at, Minute(at, 0)) for at in every]


def _number(moment: datetime) -> float:
    """Matplotlib's number of a moment."""
    return float(date2num(moment))  # type: ignore[no-untyped-call]
