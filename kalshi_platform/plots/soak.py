"""Plots a long run of gatherers: memory, lag, threads and handles, backlog over time. Rows in, figure out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_COLOURS = ("#3b7dd8", "#2f6f5e", "#b5651d", "#7a4fa3", "#444444", "#c23b6b", "#1b9aaa", "#8a8a00", "#d62728")


@dataclass(frozen=True)
class SoakPoint:
    """One gatherer, `at_s` seconds after the start. Lags are None where there was no commit yet."""

    at_s: float
    rss_mib: float
    lag_p50_ms: float | None
    lag_p99_ms: float | None
    threads: int
    handles: int
    behind_mib: float


def soak(title: str, series: Mapping[str, Sequence[SoakPoint]], judged_from_s: float) -> Figure:
    """Draw four panels over minutes, one colour per gatherer; what lies before `judged_from_s` is shaded as warm-up."""
    figure = Figure(figsize=(11, 7), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    (memory, lag), (counts, backlog) = figure.subplots(2, 2, sharex=True)
    for (name, points), colour in zip(series.items(), _COLOURS * len(series), strict=False):
        minutes = [each.at_s / 60 for each in points]

        def line(
            axes: Axes,
            value: Callable[[SoakPoint], float | None],
            style: str = "-",
            label: str = "",
            *,
            minutes: Sequence[float] = minutes,
            points: Sequence[SoakPoint] = points,
            colour: str = colour,
            name: str = name,
        ) -> None:
            values = [float("nan") if value(each) is None else float(value(each) or 0) for each in points]
            axes.plot(minutes, values, style, color=colour, linewidth=1.2, label=f"{name} {label}".strip())

        line(memory, lambda each: each.rss_mib)
        line(lag, lambda each: each.lag_p99_ms, "-", "p99")
        line(lag, lambda each: each.lag_p50_ms, ":", "p50")
        line(counts, lambda each: each.threads, "-", "threads")
        line(counts, lambda each: each.handles, ":", "file handles")
        line(backlog, lambda each: each.behind_mib, "-", "MiB of the journal")
    panels = (
        (memory, "resident memory, MiB"),
        (lag, "receive → commit, ms"),
        (counts, "threads and file handles"),
        (backlog, "not yet committed"),
    )
    for axes, name in panels:
        axes.set_title(name, loc="left", fontsize=10)
        axes.set_ylim(0, 1.25 * axes.get_ylim()[1])  # room for the legend
        axes.axvspan(0, judged_from_s / 60, color="#999999", alpha=0.15, linewidth=0)
        axes.legend(fontsize=8, loc="upper right", ncols=2, frameon=False)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    for axes in (counts, backlog):
        axes.set_xlabel("minutes (grey: warm-up, not judged)")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure
