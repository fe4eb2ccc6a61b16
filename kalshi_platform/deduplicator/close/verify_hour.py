"""Verifies the claims of one hour against production; the result is written in the close's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from kalshi_platform.deduplicator.close import close_store
from kalshi_platform.deduplicator.coverage.gatherer_hour import GathererHour
from kalshi_platform.deduplicator.coverage.hour_end_checkpoints import derive_checkpoints
from kalshi_platform.deduplicator.coverage.streams.check_snapshots import RUN_CHECKS
from kalshi_platform.deduplicator.coverage.streams.time_regressions import REGRESSIONS
from kalshi_platform.deduplicator.coverage.timeline import Covered
from kalshi_platform.deduplicator.coverage.verification.production_hour import read_production_hour
from kalshi_platform.deduplicator.coverage.verification.verify_claims import (
    CLAIM_KEY,
    Verification,
    fail_markets,
    verify_claims,
)
from kalshi_platform.deduplicator.merge import hour_activity
from kalshi_platform.deduplicator.merge.dead_letters import read_misdated_spans
from kalshi_platform.deduplicator.settings import DeduplicatorSettings
from kalshi_platform.market.times import HOUR, us_from_datetime
from kalshi_platform.storage.pool import Database, Transaction

_BELOW_ZERO = "a level of the book at the end of the hour is below zero"


@dataclass(frozen=True)
class HourVerification:
    """The result, ready to be written. `streams`: those that gatherers could speak for, by gatherer.

    `contradicted_hours`: earlier hours with claims that stand although a failed check reaches over them.
    """

    hour: datetime
    verification: Verification
    derived: pl.DataFrame
    regressions: pl.DataFrame
    max_out_of_orderness_us: int
    streams: Mapping[str, frozenset[int]]
    contradicted_hours: tuple[datetime, ...]

    def write(self, transaction: Transaction) -> list[close_store.Alarm]:
        """Replace what production keeps of the hour; return its alarms.

        Hours that rest on what changed are reopened.
        """
        close_store.replace_verification(transaction, self.hour, self.verification)
        close_store.replace_regressions(transaction, self.hour, self.regressions, self.streams)
        changed = close_store.replace_derived_checkpoints(transaction, self.hour, self.derived)
        hour_activity.reopen_hours(transaction, [*self.contradicted_hours, *([self.hour + HOUR] if changed else [])])
        return [
            *self.verification.alarms,
            *close_store.read_regression_alarms(transaction, self.hour, self.max_out_of_orderness_us),
        ]


def verify_hour(
    database: Database, settings: DeduplicatorSettings, hour: datetime, claimed: Mapping[str, GathererHour]
) -> HourVerification:
    """Verify the claims of the hour. All rows that the claims speak of must be in production already."""
    low_us, high_us = us_from_datetime(hour), us_from_datetime(hour + HOUR)
    streams = {name: each.streams for name, each in claimed.items()}
    checks = {"gatherer": pl.String, **RUN_CHECKS}
    run_checks = pl.concat(
        [
            pl.DataFrame(schema=checks),
            *(_with_gatherer(name, each.run_checks, checks) for name, each in claimed.items()),
        ]
    )
    with database.transaction() as transaction:
        kept = close_store.read_kept_claims(transaction, hour, streams)
        # Their closes could not know of the snapshot that came later.
        contradicted = close_store.find_contradicted_hours(transaction, hour, run_checks.filter(~pl.col("passed")))
        lost = read_misdated_spans(transaction, hour, hour + HOUR)
        earlier = close_store.read_run_checks(transaction, hour, kept["ticker"])
    fresh = pl.lit(None, pl.String)
    claims = pl.concat(
        [
            kept,
            *(
                _with_gatherer(name, each.claims.with_columns(withdrawn=fresh), close_store.CLAIM_COLUMNS)
                for name, each in claimed.items()
            ),
        ]
    )
    rows = read_production_hour(database.url, low_us, high_us, settings.rest_age_us, settings.clock_skew_us)
    verification = verify_claims(claims.sort(CLAIM_KEY), run_checks, rows.hour, lost, earlier)
    covered = Covered(rows.hour.tickers, verification.coverage)
    derived, wrong = derive_checkpoints(rows.checkpoints, covered, rows.changes, rows.exchange_us, high_us - 1)
    found_before = kept.filter(pl.col("withdrawn") == _BELOW_ZERO)["ticker"]
    verification = fail_markets(verification, sorted({*wrong, *found_before}), _BELOW_ZERO)
    columns = {"gatherer": pl.String, "stream_id": pl.Int64, **REGRESSIONS}
    regressions = [
        pl.DataFrame(schema=columns),
        *(_with_gatherer(name, each.regressions, columns) for name, each in claimed.items()),
    ]
    return HourVerification(
        hour, verification, derived, pl.concat(regressions), settings.max_out_of_orderness_us, streams, contradicted
    )


def _with_gatherer(gatherer: str, rows: pl.DataFrame, schema: Mapping[str, object]) -> pl.DataFrame:
    return rows.with_columns(gatherer=pl.lit(gatherer)).select(schema.keys())
