"""Checks of closed hours, made by the asset that closes them: each says one figure and shows it where it helps.

Coverage and agreement warn: a hole is a fact about the past that no rerun can change. A book that does not come out
is an error: something is wrong with the record or with the rules.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import dagster as dg

from kalshi_platform.deduplicator.close.close_alarms import CloseAlarm, worst_markets
from kalshi_platform.orchestration.keys import production
from kalshi_platform.storage.pool import Database

COVERAGE, BOOKS, AGREEMENT, TIME = "coverage_share", "book_proof", "identity_agreement", "exchange_time_goes_forward"
COVERAGE_WANTED = 0.99
_DELTAS = production("orderbook_deltas")
_ANCHORS = production("book_anchors")
# Dagster keeps metadata in its event log: a figure must stay small.
_MOST_BYTES = 50_000
_MOST_LINES = 20

SPECS = (
    dg.AssetCheckSpec(
        COVERAGE,
        asset=_DELTAS,
        description=f"At least {COVERAGE_WANTED:.0%} of the time in which markets were open is known to be complete:"
        " those recorded, or followed in the hour before; without any, all that the catalog has open.",
    ),
    dg.AssetCheckSpec(
        BOOKS,
        asset=_ANCHORS,
        description="Every book that can be checked comes out: snapshot + deltas = next snapshot, streams agree.",
    ),
    dg.AssetCheckSpec(
        AGREEMENT,
        asset=_DELTAS,
        description="Gatherers agree on enough (KALSHI_LEAST_AGREEMENT) of the deltas that more than one could have;"
        " less means that the same delta no longer looks the same to them.",
    ),
    dg.AssetCheckSpec(
        TIME,
        asset=_DELTAS,
        description="The exchange's time of a market never went back by more than the margin that coverage allows for.",
    ),
)


def evaluate(database: Database, hours: Sequence[datetime], least_agreement: float) -> Iterator[dg.AssetCheckResult]:
    """The results of all checks in `SPECS` for these closed hours."""
    from kalshi_platform.deduplicator.close import hour_summary as hour_figures
    from kalshi_platform.plots import hours as plots

    alarms = hour_figures.alarms(database, hours)
    covered = hour_figures.coverage(database, hours)
    share = covered.share
    yield dg.AssetCheckResult(
        asset_key=_DELTAS,
        check_name=COVERAGE,
        passed=share is None or share >= COVERAGE_WANTED,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "coverage_share": dg.MetadataValue.null() if share is None else round(share, 6),
            "markets": covered.markets,
            "open_market_hours": round(covered.open_us / 3.6e9, 3),
            "covered_market_hours": round(covered.covered_us / 3.6e9, 3),
            "hours": len(hours),
            **_shown(
                plots.covered_share("Covered share of the recorded markets", covered.moments_us, covered.shares)
                if covered.markets
                else None
            ),
        },
    )
    proofs = hour_figures.proofs(database, hours)
    worst = worst_markets(database, hours, _MOST_LINES)
    scores: dict[str, float] = {}
    for each in worst:
        if each.score is not None:
            scores[each.ticker] = min(each.score, scores.get(each.ticker, 1.0))
    disagreements = _of(alarms, "book_proof", "claims_disagree")
    yield dg.AssetCheckResult(
        asset_key=_ANCHORS,
        check_name=BOOKS,
        passed=proofs.failed == 0 and not disagreements,
        metadata={
            "proved": proofs.proved,
            "unproved": proofs.unproved,
            "failed": proofs.failed,
            "worst": _lines([f"{each.ticker}, {each.hour:%Y-%m-%dT%H}: {each.detail}" for each in worst]),
            "alarms": _lines(disagreements),
            **_shown(plots.worst_markets("Lowest shares of passed checks", scores) if scores else None),
        },
    )
    agreed = hour_figures.agreement(database, hours)
    yield dg.AssetCheckResult(
        asset_key=_DELTAS,
        check_name=AGREEMENT,
        passed=agreed.lowest is None or agreed.lowest >= least_agreement,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "lowest_agreement": dg.MetadataValue.null() if agreed.lowest is None else round(agreed.lowest, 6),
            "least_wanted": least_agreement,
            "gatherer": agreed.gatherer or "none",
            "alarms": _lines(_of(alarms, "identity_agreement")),
            **_shown(plots.contributions("Deltas by gatherer", agreed.parts) if agreed.parts else None),
        },
    )
    steps = _of(alarms, "time_step_back")
    yield dg.AssetCheckResult(
        asset_key=_DELTAS,
        check_name=TIME,
        passed=not steps,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"steps_back": len(steps), "where": _lines(steps)},
    )


def _shown(figure: Any) -> dict[str, dg.MetadataValue]:
    """A figure as Markdown, if there is one and it is small enough."""
    from kalshi_platform.plots.timeline import png

    image = b"" if figure is None else png(figure)
    if not image or len(image) > _MOST_BYTES:
        return {}
    return {"plot": dg.MetadataValue.md(f"![plot](data:image/png;base64,{b64encode(image).decode()})")}


def _of(alarms: Sequence[CloseAlarm], *kinds: str) -> list[str]:
    return [f"{alarm.subject}: {alarm.detail}" for alarm in alarms if alarm.kind in kinds]


def _lines(texts: Sequence[str]) -> dg.MetadataValue:
    rest = len(texts) - _MOST_LINES
    shown = [*texts[:_MOST_LINES], *([f"and {rest} more"] if rest > 0 else [])]
    return dg.MetadataValue.text("\n".join(shown) or "none")
