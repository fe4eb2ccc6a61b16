"""Checks of closed hours, made by the asset that closes them: each gives one figure, and a plot where it helps.

Coverage and agreement warn: a hole is a fact about the past that no rerun can change. A book that does not come out
is an error: something is wrong with the record or with the rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import dagster as dg

from kalshi_platform.deduplicator.close.close_alarms import CloseAlarm, read_worst_markets
from kalshi_platform.orchestration.asset_plots import plot_metadata
from kalshi_platform.orchestration.keys import production
from kalshi_platform.storage.pool import Database

ALL_READ = "all_gatherers_read"
COVERAGE, BOOKS, AGREEMENT, TIME = "coverage_share", "book_proof", "identity_agreement", "exchange_time_goes_forward"
COVERAGE_WANTED = 0.99
_DELTAS = production("orderbook_deltas")
_CHECKPOINTS = production("book_checkpoints")
_MOST_LINES = 20

SPECS = (
    dg.AssetCheckSpec(
        ALL_READ,
        asset=_DELTAS,
        description="No gatherer was missed when the hours were closed; if one was, they are closed again later.",
    ),
    dg.AssetCheckSpec(
        COVERAGE,
        asset=_DELTAS,
        description=f"At least {COVERAGE_WANTED:.0%} of the time in which markets were open is known to be complete:"
        " those recorded, or followed in the hour before; without any, all that the catalog has open.",
    ),
    dg.AssetCheckSpec(
        BOOKS,
        asset=_CHECKPOINTS,
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


def check_all_read(missed: Mapping[str, tuple[str, ...]], hours: int) -> dg.AssetCheckResult:
    """Check that no gatherer was missed; `missed`: those that were, by hour, of `hours` closed hours."""
    where = "; ".join(f"{hour}: {', '.join(names)}" for hour, names in missed.items())
    return dg.AssetCheckResult(
        asset_key=_DELTAS,
        check_name=ALL_READ,
        passed=not missed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"hours": hours, "missed": where or "none"},
    )


def check_closed_hours(
    database: Database, hours: Sequence[datetime], least_agreement: float
) -> Iterator[dg.AssetCheckResult]:
    """Check coverage, books, agreement (a share, 0 … 1) and the order of time of closed hours, from production."""
    from kalshi_platform.deduplicator.close import hour_summary

    alarms = hour_summary.read_alarms(database, hours)
    yield _check_coverage(database, hours)
    yield _check_books(database, hours, _select(alarms, "book_proof", "claims_disagree"))
    yield _check_agreement(database, hours, _select(alarms, "identity_agreement"), least_agreement)
    steps = _select(alarms, "time_step_back")
    yield dg.AssetCheckResult(
        asset_key=_DELTAS,
        check_name=TIME,
        passed=not steps,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"steps_back": len(steps), "where": _lines(steps)},
    )


def _check_coverage(database: Database, hours: Sequence[datetime]) -> dg.AssetCheckResult:
    from kalshi_platform.deduplicator.close import hour_summary
    from kalshi_platform.plots import hours as plots

    covered = hour_summary.read_coverage(database, hours)
    share = covered.share
    plot = (
        plots.covered_share("Covered share of the recorded markets", covered.moments_us, covered.shares)
        if covered.markets
        else None
    )
    return dg.AssetCheckResult(
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
            **plot_metadata(plot),
        },
    )


def _check_books(database: Database, hours: Sequence[datetime], disagreements: list[str]) -> dg.AssetCheckResult:
    from kalshi_platform.deduplicator.close import hour_summary
    from kalshi_platform.plots import hours as plots

    proofs = hour_summary.read_proofs(database, hours)
    worst = read_worst_markets(database, hours, _MOST_LINES)
    scores: dict[str, float] = {}
    for each in worst:
        if each.score is not None:
            scores[each.ticker] = min(each.score, scores.get(each.ticker, 1.0))
    return dg.AssetCheckResult(
        asset_key=_CHECKPOINTS,
        check_name=BOOKS,
        passed=proofs.failed == 0 and not disagreements,
        metadata={
            "proved": proofs.proved,
            "unproved": proofs.unproved,
            "failed": proofs.failed,
            "worst": _lines([f"{each.ticker}, {each.hour:%Y-%m-%dT%H}: {each.detail}" for each in worst]),
            "alarms": _lines(disagreements),
            **plot_metadata(plots.worst_markets("Lowest shares of passed checks", scores) if scores else None),
        },
    )


def _check_agreement(
    database: Database, hours: Sequence[datetime], alarms: list[str], least_agreement: float
) -> dg.AssetCheckResult:
    from kalshi_platform.deduplicator.close import hour_summary
    from kalshi_platform.plots import hours as plots

    agreed = hour_summary.read_agreement(database, hours)
    return dg.AssetCheckResult(
        asset_key=_DELTAS,
        check_name=AGREEMENT,
        passed=agreed.lowest is None or agreed.lowest >= least_agreement,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "lowest_agreement": dg.MetadataValue.null() if agreed.lowest is None else round(agreed.lowest, 6),
            "least_wanted": least_agreement,
            "gatherer": agreed.gatherer or "none",
            "alarms": _lines(alarms),
            **plot_metadata(plots.contributions("Deltas by gatherer", agreed.parts) if agreed.parts else None),
        },
    )


def _select(alarms: Sequence[CloseAlarm], *kinds: str) -> list[str]:
    return [f"{alarm.subject}: {alarm.detail}" for alarm in alarms if alarm.kind in kinds]


def _lines(texts: Sequence[str]) -> dg.MetadataValue:
    rest = len(texts) - _MOST_LINES
    shown = [*texts[:_MOST_LINES], *([f"and {rest} more"] if rest > 0 else [])]
    return dg.MetadataValue.text("\n".join(shown) or "none")
