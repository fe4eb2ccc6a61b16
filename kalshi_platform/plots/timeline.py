"""Plots the timeline of a proof: recording by gatherer, faults, and holes of the union. Rows in, figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, DateFormatter, date2num
from matplotlib.figure import Figure
from PIL import Image

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RECORDED, _UNITED, _HOLE, _FAULT = "#3b7dd8", "#2f6f5e", "#d62728", "#333333"
_LINE = 150
Span = tuple[int, int]


@dataclass(frozen=True)
class Mark:
    """A fault: its time (µs UTC), its name, and the gatherer whose row it belongs to (None: the whole exchange)."""

    at_us: int
    name: str
    row: str | None


def timeline(
    title: str, recorded: Mapping[str, Sequence[Span]], holes: Sequence[Span], marks: Sequence[Mark], run: Span
) -> Figure:
    """Draw one row of bars per gatherer and one for what all of them hold together.

    Spans are [start, end) in µs UTC. A bar ends where recording ended: gaps are drawn as gaps, `holes` in red.
    """
    names = list(recorded)
    figure = Figure(figsize=(11, 1.9 + 0.55 * (len(names) + 1)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rows = {name: len(names) - place for place, name in enumerate(names)}
    for name, spans in recorded.items():
        axes.broken_barh([_bar(each) for each in spans], (rows[name] - 0.3, 0.6), facecolors=_RECORDED, label="_")
    open_us = sorted(holes)
    position, whole = run[0], []
    for start, end in open_us:
        if start > position:
            whole.append((position, start))
        position = max(position, end)
    whole.append((position, run[1]))
    axes.broken_barh([_bar(each) for each in whole if each[0] < each[1]], (-0.3, 0.6), facecolors=_UNITED)
    if open_us:
        axes.broken_barh([_bar(each) for each in open_us], (-0.3, 0.6), facecolors=_HOLE, edgecolors=_HOLE)
    for number, mark in enumerate(sorted(marks, key=lambda each: each.at_us), 1):
        low, high = (-0.4, len(names) + 0.4) if mark.row is None else (rows[mark.row] - 0.4, rows[mark.row] + 0.4)
        moment = _number(mark.at_us)
        axes.vlines(moment, low, high, colors=_FAULT, linewidth=1.2, linestyles="solid" if mark.row else "dotted")
        axes.annotate(str(number), (moment, high), ha="center", va="bottom", fontsize=8, color=_FAULT)
    axes.set_yticks([*rows.values(), 0], [*rows, "together"])
    axes.set_ylim(-0.6, len(names) + 0.9)
    axes.set_xlim(_number(run[0]), _number(run[1]))
    axes.xaxis.set_major_locator(AutoDateLocator())  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S", tz=UTC))  # type: ignore[no-untyped-call]
    axes.set_xlabel(f"exchange time, UTC, {_time(run[0]):%Y-%m-%d}")
    axes.set_title(title, loc="left", fontsize=11)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.supxlabel(_legend(marks, bool(open_us)), fontsize=8, x=0.01, ha="left")
    return figure


def png(figure: Figure) -> bytes:
    """Return the figure as the bytes of a PNG file."""
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def small_png(figure: Figure, most_bytes: int) -> bytes:
    """Return the figure as a PNG file of few colours, a quarter of the bytes; empty if that is too large."""
    image = Image.open(BytesIO(png(figure))).convert("RGB")
    for colours in (64, 16, 8):
        file = BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(file, format="png", optimize=True)
        if file.tell() <= most_bytes:
            return file.getvalue()
    return b""


def _legend(marks: Sequence[Mark], has_holes: bool) -> str:
    """What the numbers and the red mean, in lines of bounded length."""
    pieces = [f"{number} {mark.name}" for number, mark in enumerate(sorted(marks, key=lambda each: each.at_us), 1)]
    if has_holes:
        pieces.insert(0, "red: the record of at least one market is open;")
    lines = [""]
    for piece in pieces:
        if len(lines[-1]) + len(piece) > _LINE:
            lines.append("")
        lines[-1] += f"   {piece}" if lines[-1] else piece
    return "\n".join(lines)


def _bar(span: Span) -> tuple[float, float]:
    start = _number(span[0])
    return start, _number(span[1]) - start


def _number(us: int) -> float:
    """Matplotlib's number of a moment."""
    return float(date2num(_time(us)))  # type: ignore[no-untyped-call]


def _time(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)
