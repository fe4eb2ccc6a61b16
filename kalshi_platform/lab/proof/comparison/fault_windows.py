"""When an injected fault may have kept messages from a gatherer: only such losses are excused. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from kalshi_platform.lab.proof.kinds import InjectedFault
from kalshi_platform.market.intervals import Interval, covers, intersection, subtract, union

BEFORE_US = 1_000_000
"""What a killed process had received, but not yet written, came before the fault."""
AFTER_US = 5_000_000
"""A fault ends when the exchange has sent its gatherer every book again, or its gap is noted; the rest is for that."""
BORN_US = 10_000_000
"""A market that opens during the run is subscribed within this time."""
LOSING = frozenset(
    {
        "cut",
        "kill",
        "drop_frame",
        "stall",
        "unknown_frames",
        "restored_from_copy",
        "failed_over",
        "clock_ahead",
        "clock_behind",
    }
)
"""Faults that keep messages from a gatherer (one whose clock is behind follows a new market late). The others excuse
nothing: what a database misses or forgets is in the journal."""

FORGETTING = frozenset({"restored_from_copy", "failed_over"})
"""Faults that make a gatherer's database forget what it had."""


@dataclass(frozen=True)
class Unexplained:
    """Something of a market that was lost, or not sent to any gatherer, with no fault near. µs of exchange time."""

    ticker: str
    interval: Interval


def fault_windows(
    faults: Iterable[InjectedFault], gatherer: str | None = None, kinds: frozenset[str] = LOSING
) -> list[Interval]:
    """The times near faults that can lose something; of one gatherer, if it is named, those done to it or to all."""
    return union(
        (fault.at_us - BEFORE_US, max(fault.at_us, fault.until_us) + AFTER_US)
        for fault in faults
        if fault.kind in kinds and (gatherer is None or fault.gatherer in (None, gatherer))
    )


def unexplained(
    lives: Mapping[str, Interval],
    run_start: int,
    margin_us: int,
    missing: pl.DataFrame,
    lost_by_market: Mapping[str, Sequence[Interval]],
    near: Sequence[Interval],
) -> list[Unexplained]:
    """What no fault explains: lost deltas outside of the windows `near`, and times of which all gatherers were away.

    `missing`: lost deltas in natural columns. `lost_by_market`: what all gatherers lost at once. A time begins
    with the last message before a loss, which may be long before: from its first window on it must lie in windows.
    `margin_us` is left out at both ends of a life, and `BORN_US` after the opening of a market in the run.
    """
    found = []
    lost = missing.group_by("ticker").agg(pl.col("exchange_us").unique().sort())
    for ticker, moments in lost.iter_rows():
        start, _ = lives.get(ticker, (run_start, run_start))
        excused = _excused(near, start, run_start)
        bare = [moment for moment in moments if not covers(excused, moment)]
        if bare:
            found.append(Unexplained(ticker, (bare[0], bare[-1] + 1)))
    named = {each.ticker for each in found}
    for ticker, (start, end) in lives.items():
        if ticker in named or end - start <= 2 * margin_us:
            continue
        excused = _excused(near, start, run_start)
        for piece in intersection([(start + margin_us, end - margin_us)], list(lost_by_market.get(ticker, ()))):
            touched = intersection([piece], excused)
            bare_part = [piece] if not touched else subtract([(touched[0][0], piece[1])], excused)
            if bare_part:
                found.append(Unexplained(ticker, (bare_part[0][0], bare_part[-1][1])))
                break
    return found


def is_born_too_late(life: Interval | None, run_start: int) -> bool:
    """Return whether a market opened in the run, but so shortly before its end that it may have no checkpoint yet.

    A checkpoint needs messages of its feed from a second after the snapshot on.
    """
    return life is not None and life[0] > run_start and life[1] - life[0] < BORN_US


def _excused(near: Sequence[Interval], start: int, run_start: int) -> list[Interval]:
    return union([*near, (start, start + BORN_US)]) if start > run_start else list(near)
