"""Verifies the claims of an hour: claims and checks → coverage, a proof per market, alarms. Pure.

Each claim is compared with production, which holds the union of all streams: a claim whose stream holds less than
production does there is false, and every stream that claims a part of the same time loses its claim with it (one of
them is wrong, and it is not known which). What fails a book proof withdraws the claims that the proof rested on.

Claims of streams that can no longer be read come as the last close left them. A withdrawn one never counts again; but
what it contradicted then it contradicts still, so it takes part in the checks unless its own stream failed by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from kalshi_platform.deduplicator.coverage.timeline import Covered, Timeline
from kalshi_platform.deduplicator.coverage.verification.check_books import (
    CONSISTENT,
    INCONSISTENT,
    UNDECIDED,
    Checkpoints,
    PolledBooks,
    check_checkpoints,
    check_polled_books,
)
from kalshi_platform.market.intervals import Interval, length, union

CLAIM_KEY = ("gatherer", "stream_id", "ticker", "from_us", "to_us")
_RANGES = {"ticker": pl.String, "low_us": pl.Int64, "high_us": pl.Int64, "reason": pl.String}
_COUNTS = ("run_checks", "run_failures", "checkpoint_checks", "checkpoint_failures", "stream_checks", "stream_failures",
           "rest_consistent", "rest_inconsistent", "rest_undecided")  # fmt: skip
PROOFS: Mapping[str, Any] = {
    "ticker": pl.String, "verdict": pl.String, "score": pl.Float64, **dict.fromkeys(_COUNTS, pl.Int32),
    "covered_us": pl.Int64, "withdrawn_us": pl.Int64, "detail": pl.String,
}  # fmt: skip


class ProductionHour(NamedTuple):
    """What production holds of an hour and a little around it; markets are places in `tickers`."""

    tickers: list[str]
    timeline: Timeline
    checkpoints: Checkpoints
    polled: PolledBooks


class Verification(NamedTuple):
    """`claims`: as given, with `withdrawn` filled in. `coverage`: the union of those that stand.

    `proofs`: ticker, verdict, score, the counts, covered_us, withdrawn_us, detail. `alarms`: (kind, subject, detail).
    """

    claims: pl.DataFrame
    coverage: Mapping[str, list[Interval]]
    proofs: pl.DataFrame
    alarms: list[tuple[str, str, str]]


def verify_claims(
    claims: pl.DataFrame,
    run_checks: pl.DataFrame,
    hour: ProductionHour,
    lost: Sequence[tuple[str, int, int, str]] = (),
    earlier: Mapping[str, tuple[int, int]] = MappingProxyType({}),
) -> Verification:
    """Verify the claims of one hour. `lost`: (ticker, from, to, reason) of spans of which nothing may be claimed.

    `earlier`: by market, how many run checks an earlier close made and how many failed, with streams that can no
    longer be read: they count where fewer could be made now.
    `claims`: CLAIM, rows, content and withdrawn (null unless an earlier close withdrew the claim); of all streams, each
    within the hour. `run_checks`: gatherer and the columns of check_snapshots.RUN_CHECKS.
    """
    counts: dict[str, dict[str, int]] = {}
    details: dict[str, list[str]] = {}
    claims = claims.with_columns(_before="withdrawn", withdrawn=pl.when(_failed_by_itself()).then("withdrawn"))
    claims = _verify_runs(claims, run_checks, counts, details)
    for ticker, (checks, failures) in earlier.items():
        if checks > counts.get(ticker, {}).get("run_checks", 0):
            _add_counts(counts, ticker)
            counts[ticker] |= {"run_checks": checks, "run_failures": max(failures, counts[ticker]["run_failures"])}
    claims = _verify_streams(claims, hour, counts, details)
    claims = _verify_checkpoints(claims, hour, counts, details)
    claims = _verify_polled(claims, hour, counts, details)
    claims = _withdraw_within(claims, list(lost))
    claims = claims.with_columns(pl.coalesce("withdrawn", "_before").alias("withdrawn")).drop("_before")
    coverage = union_of_claims(claims)
    proofs = _build_proofs(claims, coverage, counts, details)
    alarms = [
        ("claims_disagree" if row["stream_failures"] else "book_proof", row["ticker"], row["detail"])
        for row in proofs.filter(pl.col("verdict") == "failed").iter_rows(named=True)
    ]
    return Verification(claims, coverage, proofs, alarms)


def fail_markets(verification: Verification, tickers: Sequence[str], reason: str) -> Verification:
    """Fail markets that were found wrong as a whole: nothing of the hour is claimed of them."""
    if not tickers:
        return verification
    hit = pl.col("ticker").is_in(list(tickers))
    claims = _withdraw(verification.claims, hit, reason)
    proofs = verification.proofs.with_columns(
        verdict=pl.when(hit).then(pl.lit("failed")).otherwise("verdict"),
        withdrawn_us=pl.when(hit).then(pl.col("withdrawn_us") + pl.col("covered_us")).otherwise("withdrawn_us"),
        covered_us=pl.when(hit).then(0).otherwise("covered_us"),
        detail=pl.when(hit & (pl.col("detail") == "")).then(pl.lit(reason)).otherwise("detail"),
    )
    alarms = [*verification.alarms, *(("book_proof", ticker, reason) for ticker in tickers)]
    return Verification(claims, union_of_claims(claims), proofs, alarms)


def union_of_claims(claims: pl.DataFrame) -> dict[str, list[Interval]]:
    """Return the union of the claims that stand, by ticker."""
    found: dict[str, list[Interval]] = {}
    standing = claims.filter(pl.col("withdrawn").is_null())
    for ticker, low, high in standing.select("ticker", "from_us", "to_us").iter_rows():
        found.setdefault(ticker, []).append((low, high))
    return {ticker: union(intervals) for ticker, intervals in sorted(found.items())}


def find_mismatched(claims: pl.DataFrame, hour: ProductionHour) -> pl.DataFrame:
    """Return claims whose stream does not hold there exactly what production holds."""
    places = {ticker: number for number, ticker in enumerate(hour.tickers)}
    known = claims.with_columns(_market=pl.col("ticker").replace_strict(places, default=-1, return_dtype=pl.Int64))
    market = known["_market"].to_numpy()
    low = hour.timeline.before(market, claims["from_us"].to_numpy())
    high = hour.timeline.before(market, claims["to_us"].to_numpy())
    content = (hour.timeline.contents[high] - hour.timeline.contents[low]).view(np.int64)
    found = (high - low != claims["rows"].to_numpy()) | (content != claims["content"].to_numpy())
    return claims.filter(pl.Series(found, dtype=pl.Boolean))


def _verify_runs(
    claims: pl.DataFrame, checks: pl.DataFrame, counts: dict[str, dict[str, int]], details: dict[str, list[str]]
) -> pl.DataFrame:
    for (ticker,), part in checks.group_by("ticker"):
        _add_counts(counts, str(ticker), run_checks=part.height, run_failures=int((~part["passed"]).sum()))
    failed = checks.filter(~pl.col("passed"))
    for row in failed.iter_rows(named=True):
        text = f"{row['gatherer']}, stream {row['stream_id']}: snapshot {row['seq']} does not lead to {row['next_seq']}"
        details.setdefault(row["ticker"], []).append(text)
        own = (pl.col("gatherer") == row["gatherer"]) & (pl.col("stream_id") == row["stream_id"])
        hit = own & (pl.col("ticker") == row["ticker"])
        hit &= (pl.col("from_us") <= row["high_us"]) & (pl.col("to_us") > row["low_us"])
        claims = _withdraw(claims, hit, text)
    return claims


def _failed_by_itself() -> pl.Expr:
    """Whether a claim was withdrawn for what its stream alone showed."""
    return pl.col("withdrawn").str.starts_with(pl.format("{}, stream {}: ", "gatherer", "stream_id"))


def _verify_streams(
    claims: pl.DataFrame, hour: ProductionHour, counts: dict[str, dict[str, int]], details: dict[str, list[str]]
) -> pl.DataFrame:
    standing = claims.filter(pl.col("withdrawn").is_null())
    wrong = find_mismatched(standing, hour)
    compared = pl.concat([_find_overlapping(standing), wrong.select(CLAIM_KEY)]).unique()
    for (ticker,), part in compared.group_by("ticker"):
        _add_counts(counts, str(ticker), stream_checks=part.height)
    for row in wrong.iter_rows(named=True):
        ticker = row["ticker"]
        _add_counts(counts, ticker, stream_failures=1)
        text = f"{row['gatherer']}, stream {row['stream_id']} claims {row['rows']} deltas; production has others there"
        details.setdefault(ticker, []).append(text)
        hit = (pl.col("ticker") == ticker) & (pl.col("from_us") < row["to_us"]) & (pl.col("to_us") > row["from_us"])
        claims = _withdraw(claims, hit, text)
    return claims


def _find_overlapping(claims: pl.DataFrame) -> pl.DataFrame:
    """Claims of which another stream claims a part as well."""
    ordered = claims.select(CLAIM_KEY).sort("ticker", "from_us")
    reached = pl.col("to_us").cum_max().shift(1).over("ticker")
    nearest = pl.col("from_us").shift(-1).over("ticker")
    return ordered.filter(
        (pl.col("from_us") < reached).fill_null(value=False) | (nearest < pl.col("to_us")).fill_null(value=False)
    )


def _verify_checkpoints(
    claims: pl.DataFrame, hour: ProductionHour, counts: dict[str, dict[str, int]], details: dict[str, list[str]]
) -> pl.DataFrame:
    checkpoints = hour.checkpoints
    checks = check_checkpoints(hour.timeline, Covered(hour.tickers, union_of_claims(claims)), checkpoints)
    numbers, totals = np.unique(checkpoints.market[checks.first], return_counts=True)
    for market, total in zip(numbers.tolist(), totals.tolist(), strict=True):
        _add_counts(counts, hour.tickers[market], checkpoint_checks=total)
    failed = []
    for place in np.flatnonzero(~checks.passed):
        first, second = checks.first[place], checks.second[place]
        ticker = hour.tickers[int(checkpoints.market[first])]
        _add_counts(counts, ticker, checkpoint_failures=1)
        since, until = int(checkpoints.us[first]), int(checkpoints.us[second])
        text = f"the book of {since} µs and the deltas after it do not give that of {until} µs"
        details.setdefault(ticker, []).append(text)
        # Claims begin behind a checkpoint: those behind the second one rest on its book, which may be the wrong one.
        failed.append((ticker, since + 1, until + 2, text))
    return _withdraw_within(claims, failed)


def _verify_polled(
    claims: pl.DataFrame, hour: ProductionHour, counts: dict[str, dict[str, int]], details: dict[str, list[str]]
) -> pl.DataFrame:
    polled, checkpoints = hour.polled, hour.checkpoints
    checks = check_polled_books(hour.timeline, Covered(hour.tickers, union_of_claims(claims)), checkpoints, polled)
    for verdict, name in (
        (CONSISTENT, "rest_consistent"), (INCONSISTENT, "rest_inconsistent"), (UNDECIDED, "rest_undecided"),
    ):  # fmt: skip
        numbers, totals = np.unique(polled.market[checks.verdicts == verdict], return_counts=True)
        for market, total in zip(numbers.tolist(), totals.tolist(), strict=True):
            _add_counts(counts, hour.tickers[market], **{name: total})
    failed = []
    for place in np.flatnonzero(checks.verdicts == INCONSISTENT):
        ticker = hour.tickers[int(polled.market[place])]
        low, high = int(checkpoints.us[checks.checkpoint[place]]) + 1, int(polled.high_us[place]) + 1
        text = f"the polled book of {int(polled.low_us[place])} to {high - 1} µs is none that production had then"
        details.setdefault(ticker, []).append(text)
        failed.append((ticker, low, high, text))
    return _withdraw_within(claims, failed)


def _withdraw_within(claims: pl.DataFrame, failed: list[tuple[str, int, int, str]]) -> pl.DataFrame:
    for (ticker,), part in pl.DataFrame(failed, schema=_RANGES, orient="row").group_by("ticker", maintain_order=True):
        mine = pl.col("ticker") == ticker
        hit = pl.any_horizontal(
            mine & (pl.col("from_us") < high) & (pl.col("to_us") > low)
            for low, high in part.select(pl.col("low_us").min(), pl.col("high_us").max()).iter_rows()
        )
        claims = _withdraw(claims, hit, part["reason"][0])
    return claims


def _withdraw(claims: pl.DataFrame, hit: pl.Expr, reason: str) -> pl.DataFrame:
    fresh = hit & pl.col("withdrawn").is_null()
    return claims.with_columns(withdrawn=pl.when(fresh).then(pl.lit(reason)).otherwise("withdrawn"))


def _add_counts(counts: dict[str, dict[str, int]], ticker: str, **more: int) -> None:
    mine = counts.setdefault(ticker, dict.fromkeys(_COUNTS, 0))
    for name, count in more.items():
        mine[name] += count


def _build_proofs(
    claims: pl.DataFrame,
    coverage: Mapping[str, list[Interval]],
    counts: Mapping[str, dict[str, int]],
    details: Mapping[str, list[str]],
) -> pl.DataFrame:
    claimed: dict[str, list[Interval]] = {}
    lost: dict[str, str] = {}
    for ticker, low, high, reason in claims.select("ticker", "from_us", "to_us", "withdrawn").iter_rows():
        claimed.setdefault(ticker, []).append((low, high))
        if reason is not None:
            lost.setdefault(ticker, reason)
    rows = []
    for ticker in sorted({*claimed, *counts}):
        mine = counts.get(ticker, dict.fromkeys(_COUNTS, 0))
        checks = mine["run_checks"] + mine["checkpoint_checks"] + mine["stream_checks"]
        failures = mine["run_failures"] + mine["checkpoint_failures"] + mine["stream_failures"]
        checks += mine["rest_consistent"] + mine["rest_inconsistent"]
        failures += mine["rest_inconsistent"]
        covered = length(coverage.get(ticker, ()))
        rows.append(
            {
                "ticker": ticker,
                "verdict": "failed" if failures or ticker in lost else "proved" if checks else "unproved",
                "score": (checks - failures) / checks if checks else None,
                **mine,
                "covered_us": covered,
                "withdrawn_us": length(union(claimed.get(ticker, ()))) - covered,
                "detail": "; ".join(details.get(ticker, [])[:3]) or lost.get(ticker, ""),
            }
        )
    return pl.DataFrame(rows, schema=PROOFS, orient="row")
