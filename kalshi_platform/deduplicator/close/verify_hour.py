"""Verifies the claims of one hour against production, bucket by bucket; the close's transaction writes the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import polars as pl

from kalshi_platform.deduplicator.close import close_store
from kalshi_platform.deduplicator.coverage.gatherer_hour import GathererHour
from kalshi_platform.deduplicator.coverage.hour_end_checkpoints import COLUMNS, derive_checkpoints
from kalshi_platform.deduplicator.coverage.streams.check_snapshots import RUN_CHECKS
from kalshi_platform.deduplicator.coverage.streams.feed_scan import REGRESSIONS
from kalshi_platform.deduplicator.coverage.timeline import Covered
from kalshi_platform.deduplicator.coverage.verification.production_hour import ProductionFiles
from kalshi_platform.deduplicator.coverage.verification.verify_claims import (
    CLAIM_KEY,
    PROOFS,
    Verification,
    fail_markets,
    verify_claims,
)
from kalshi_platform.deduplicator.merge import hour_activity
from kalshi_platform.deduplicator.merge.dead_letters import read_misdated_spans
from kalshi_platform.deduplicator.merge.hour_files import NO_CHECKPOINTS, HourFiles
from kalshi_platform.deduplicator.merge.market_buckets import MarketBuckets
from kalshi_platform.deduplicator.settings import DeduplicatorSettings
from kalshi_platform.market.times import HOUR, us_from_datetime
from kalshi_platform.storage.pool import Database, Transaction

_BELOW_ZERO = "a level of the book at the end of the hour is below zero"
_CHECKS = {"gatherer": pl.String, **RUN_CHECKS}
_REGRESSIONS = {"gatherer": pl.String, "stream_id": pl.Int64, **REGRESSIONS}


class HourParts(NamedTuple):
    """What an hour's verification rests on.

    `claimed`: by gatherer, what it says of the hour. `counted`: by bucket and gatherer, the claims with what its
    streams hold there. `files`: by gatherer, with its checkpoints. `replaced`: gatherer, stream_id of streams whose
    checkpoints in the hour are made anew. `run_buckets`: calls a function with each bucket; returns what it returned.
    """

    markets: MarketBuckets
    claimed: Mapping[str, GathererHour]
    counted: Sequence[Mapping[str, pl.DataFrame]]
    files: Mapping[str, HourFiles]
    production: ProductionFiles
    replaced: pl.DataFrame
    run_buckets: Callable[[Callable[[int], BucketVerification]], list[BucketVerification]]


class BucketVerification(NamedTuple):
    """The verification of a bucket, and the checkpoints derived at the end of the hour."""

    verification: Verification
    derived: pl.DataFrame


@dataclass(frozen=True)
class HourVerification:
    """The result, ready to be written. `streams`: those that gatherers could speak for, by gatherer.

    `checkpoints`: gives those of snapshots, bucket by bucket, in place of those of the streams `replaced`.
    `contradicted_hours`: earlier hours with claims that stand although a failed check reaches over them.
    """

    hour: datetime
    verification: Verification
    derived: pl.DataFrame
    regressions: pl.DataFrame
    max_out_of_orderness_us: int
    streams: Mapping[str, frozenset[int]]
    contradicted_hours: tuple[datetime, ...]
    checkpoints: Callable[[], Iterator[pl.DataFrame]]
    replaced: pl.DataFrame

    def write(self, transaction: Transaction) -> list[close_store.Alarm]:
        """Replace what production keeps of the hour; return its alarms.

        Hours that rest on what changed are reopened.
        """
        close_store.replace_checkpoints(transaction, self.hour, self.replaced, self.checkpoints())
        close_store.replace_verification(transaction, self.hour, self.verification)
        close_store.replace_regressions(transaction, self.hour, self.regressions, self.streams)
        changed = close_store.replace_derived_checkpoints(transaction, self.hour, self.derived)
        hour_activity.reopen_hours(transaction, [*self.contradicted_hours, *([self.hour + HOUR] if changed else [])])
        return [
            *self.verification.alarms,
            *close_store.read_regression_alarms(transaction, self.hour, self.max_out_of_orderness_us),
        ]


class _Earlier(NamedTuple):
    """What production knew of the hour: claims of streams that can no longer be read, spans of lost rows, checks."""

    kept: pl.DataFrame
    lost: list[tuple[str, int, int, str]]
    checks: Mapping[str, tuple[int, int]]
    contradicted: tuple[datetime, ...]


def verify_hour(
    database: Database, settings: DeduplicatorSettings, hour: datetime, parts: HourParts
) -> HourVerification:
    """Verify the claims of the hour. All rows that the claims speak of must be in production already."""
    streams = {name: each.streams for name, each in parts.claimed.items()}
    run_checks = _concat(parts.claimed, _CHECKS, lambda each: each.run_checks)
    earlier = _read_earlier(database, hour, streams, run_checks, parts.markets)
    parts.production.read_books()

    def verify(bucket: int) -> BucketVerification:
        return _verify_bucket(bucket, parts, run_checks, earlier, us_from_datetime(hour + HOUR) - 1)

    done = parts.run_buckets(verify)
    derived = pl.concat([pl.DataFrame(schema=COLUMNS), *(each.derived for each in done)]).sort("ticker")
    return HourVerification(
        hour, join_verifications(each.verification for each in done), derived,
        _concat(parts.claimed, _REGRESSIONS, lambda each: each.regressions), settings.max_out_of_orderness_us, streams,
        earlier.contradicted,
        lambda: (_read_trusted(bucket, parts, run_checks) for bucket in range(parts.markets.count)), parts.replaced,
    )  # fmt: skip


def _read_earlier(
    database: Database,
    hour: datetime,
    streams: Mapping[str, frozenset[int]],
    run_checks: pl.DataFrame,
    markets: MarketBuckets,
) -> _Earlier:
    with database.transaction() as transaction:
        kept = close_store.read_kept_claims(transaction, hour, streams)
        kept = kept.filter(pl.Series([markets.part.holds(ticker) for ticker in kept["ticker"]], dtype=pl.Boolean))
        # Their closes could not know of the snapshot that came later.
        contradicted = close_store.find_contradicted_hours(transaction, hour, run_checks.filter(~pl.col("passed")))
        lost = read_misdated_spans(transaction, hour, hour + HOUR)
        checks = close_store.read_run_checks(transaction, hour, kept["ticker"])
    return _Earlier(kept, lost, checks, contradicted)


def _verify_bucket(
    bucket: int, parts: HourParts, run_checks: pl.DataFrame, earlier: _Earlier, last_us: int
) -> BucketVerification:
    fresh = pl.lit(None, pl.String)
    kept = _of_bucket(bucket, parts.markets, earlier.kept)
    claims = [
        _with_gatherer(
            name, _of_streams(each, parts.claimed[name]).with_columns(withdrawn=fresh), close_store.CLAIM_COLUMNS
        )
        for name, each in parts.counted[bucket].items()
        if name in parts.claimed
    ]
    checks = _of_bucket(bucket, parts.markets, run_checks)
    rows = parts.production.hour_rows(bucket, _read_trusted(bucket, parts, run_checks), parts.replaced)
    lost = [each for each in earlier.lost if parts.markets.bucket_of(each[0]) == bucket]
    known = {ticker: found for ticker, found in earlier.checks.items() if parts.markets.bucket_of(ticker) == bucket}
    verification = verify_claims(pl.concat([kept, *claims]).sort(CLAIM_KEY), checks, rows.hour, lost, known)
    covered = Covered(rows.hour.tickers, verification.coverage)
    derived, wrong = derive_checkpoints(rows.checkpoints, covered, rows.changes, rows.exchange_us, last_us)
    found_before = kept.filter(pl.col("withdrawn") == _BELOW_ZERO)["ticker"]
    verification = fail_markets(verification, sorted({*wrong, *found_before}), _BELOW_ZERO)
    return BucketVerification(verification, derived)


def _of_bucket(bucket: int, markets: MarketBuckets, rows: pl.DataFrame) -> pl.DataFrame:
    buckets = [markets.bucket_of(ticker) for ticker in rows["ticker"]]
    return rows.filter(pl.Series(buckets, dtype=pl.Int64) == bucket)


def _read_trusted(bucket: int, parts: HourParts, run_checks: pl.DataFrame) -> pl.DataFrame:
    """Read checkpoints of streams that hold what they recorded; leave out those of snapshots that failed a check."""
    found = pl.concat([NO_CHECKPOINTS, *(pl.DataFrame(each.checkpoints.read(bucket)) for each in parts.files.values())])
    held = close_store.frame_streams({name: each.streams for name, each in parts.claimed.items()})
    found = found.join(held, on=["gatherer", "stream_id"], how="semi")
    failed = run_checks.filter(~pl.col("passed"))
    for number in ("seq", "next_seq"):
        wrong = failed.select("gatherer", "stream_id", "ticker", pl.col(number).alias("seq"))
        found = found.join(wrong, on=["gatherer", "stream_id", "ticker", "seq"], how="anti")
    return found


def _of_streams(claims: pl.DataFrame, claimed: GathererHour) -> pl.DataFrame:
    return claims.filter(pl.col("stream_id").is_in(sorted(claimed.streams)))


def join_verifications(parts: Iterable[Verification]) -> Verification:
    """The verification of all markets, in the order of one that was made at once."""
    every = list(parts)
    coverage = {ticker: each for part in every for ticker, each in part.coverage.items()}
    claims = pl.concat([pl.DataFrame(schema=close_store.CLAIM_COLUMNS), *(part.claims for part in every)])
    proofs = pl.concat([pl.DataFrame(schema=PROOFS), *(part.proofs for part in every)])
    alarms = sorted((alarm for part in every for alarm in part.alarms), key=lambda alarm: alarm[:2])
    return Verification(claims.sort(CLAIM_KEY), dict(sorted(coverage.items())), proofs.sort("ticker"), alarms)


def _concat(
    claimed: Mapping[str, GathererHour], schema: Mapping[str, Any], rows: Callable[[GathererHour], pl.DataFrame]
) -> pl.DataFrame:
    return pl.concat(
        [pl.DataFrame(schema=schema), *(_with_gatherer(name, rows(each), schema) for name, each in claimed.items())]
    )


def _with_gatherer(gatherer: str, rows: pl.DataFrame, schema: Mapping[str, object]) -> pl.DataFrame:
    return rows.with_columns(gatherer=pl.lit(gatherer)).select(schema.keys())
