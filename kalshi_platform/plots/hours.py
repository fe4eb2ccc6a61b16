"""Plots closed hours, small enough for an asset's page: coverage, passed checks, and rows by gatherer.

Rows in, figure out. Moments are µs since 1970, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, DateFormatter, date2num
from matplotlib.figure import Figure

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COVERED, _HOLE, _UNIQUE, _SHARED = "#2f6f5e", "#d62728", "#e0a030", "#3b7dd8"
_MOST_MARKETS = 20
_DPI = 80


def covered_share(title: str, moments_us: Sequence[int], shares: Sequence[float]) -> Figure:
    """Plot the share of the open markets (0 … 1) that are covered at each moment; what is missing is red."""
    figure, axes = _canvas(title, height=2.4)
    times = [float(date2num(_EPOCH + timedelta(microseconds=us))) for us in moments_us]  # type: ignore[no-untyped-call]
    axes.fill_between(times, 0, shares, color=_COVERED, linewidth=0)
    axes.fill_between(times, shares, 1, color=_HOLE, linewidth=0)
    axes.set_ylim(0, 1)
    if len(times) > 1:
        axes.set_xlim(times[0], times[-1])
    axes.set_ylabel("covered markets")
    axes.xaxis.set_major_locator(AutoDateLocator())  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(DateFormatter("%m-%d %H:%M", tz=UTC))  # type: ignore[no-untyped-call]
    axes.tick_params(axis="x", labelsize=8)
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
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes
