"""Plots what databases take on disk day by day, and the retention after which that must be flat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_COLOURS = ("#3b7dd8", "#2f6f5e", "#b5651d", "#7a4fa3", "#444444", "#c23b6b", "#1b9aaa", "#8a8a00", "#d62728")
MIB = 1024 * 1024


def disk(title: str, sizes: Mapping[str, Sequence[tuple[float, int]]], flat_from_days: float) -> Figure:
    """Draw a line per database, (days since the start, bytes); what lies before `flat_from_days` is shaded."""
    figure = Figure(figsize=(9, 5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for (name, points), colour in zip(sizes.items(), _COLOURS * len(sizes), strict=False):
        axes.plot(
            [at for at, _ in points], [size / MIB for _, size in points], "-o", color=colour, markersize=2.5,
            linewidth=1.2, label=name,
        )  # fmt: skip
    axes.set_ylim(0, 1.25 * axes.get_ylim()[1])  # room for the legend
    axes.axvspan(0, flat_from_days, color="#999999", alpha=0.15, linewidth=0)
    axes.set_xlabel("simulated days (grey: until the retention has passed)")
    axes.set_ylabel("on disk, MiB")
    axes.legend(fontsize=8, loc="upper left", ncols=3, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure
