"""Plots the busiest markets of a day: what was traded, and how far apart bid and offer were. Rows in, figure out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_VOLUME, _SPREAD = "#3b7dd8", "#b5651d"
_DPI = 80


@dataclass(frozen=True)
class BusyMarket:
    """One market and day: contracts traded, and the mean spread in cents while there was a bid and an offer."""

    ticker: str
    volume_contracts: float
    spread_cents: float | None


def busy_markets(title: str, markets: Sequence[BusyMarket]) -> Figure:
    """Plot volume and spread of the markets side by side, in the order given."""
    figure = Figure(figsize=(8, 1.1 + 0.2 * max(1, len(markets))), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    volume, spread = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    rows = range(len(markets))
    volume.barh(rows, [each.volume_contracts for each in markets], color=_VOLUME)
    known = [(row, each.spread_cents) for row, each in zip(rows, markets, strict=True) if each.spread_cents is not None]
    spread.barh([row for row, _ in known], [cents for _, cents in known], color=_SPREAD)
    if not known:
        spread.set_xlim(0, 1)
        spread.text(0.5, 0.5, "no bid and offer at once", ha="center", transform=spread.transAxes, fontsize=7)
    volume.set_yticks(rows, labels=[each.ticker for each in markets], fontsize=7)
    volume.invert_yaxis()
    volume.set_xlabel("contracts traded", fontsize=8)
    spread.set_xlabel("mean spread, ¢", fontsize=8)
    for axes in (volume, spread):
        axes.tick_params(axis="x", labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    volume.set_title(title, loc="left", fontsize=9)
    return figure
