"""The proof of one hour: what gatherers claim, set against production; then written in the close's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from kalshi_platform.deduplicator.close import close_store
from kalshi_platform.deduplicator.coverage.gatherer_hour import GathererHour
from kalshi_platform.deduplicator.coverage.hour_end_checkpoints import derive
from kalshi_platform.deduplicator.coverage.streams.check_snapshots import RUN_CHECKS
from kalshi_platform.deduplicator.coverage.streams.time_regressions import STEPS
from kalshi_platform.deduplicator.coverage.timeline import Covered
from kalshi_platform.deduplicator.coverage.verification.production_hour import read_production_hour
from kalshi_platform.deduplicator.coverage.verification.verify_claims import CLAIM, Judgement, condemned, judge
from kalshi_platform.deduplicator.merge import hour_activity
from kalshi_platform.deduplicator.merge import quarantine as aside
from kalshi_platform.deduplicator.settings import DeduplicatorSettings
from kalshi_platform.market.times import HOUR, us_from_datetime
from kalshi_platform.storage.pool import Database, Transaction

_BELOW_ZERO = "a level of the book at the end of the hour is below zero"


@dataclass(frozen=True)
class HourProof:
    """What came out, ready to be written. `streams`: those that gatherers could speak for, by gatherer.

    `doubted`: earlier hours in which something still stands that a failed check contradicts.
    """

    hour: datetime
    judged: Judgement
    derived: pl.DataFrame
    steps: pl.DataFrame
    margin_us: int
    streams: Mapping[str, frozenset[int]]
    doubted: tuple[datetime, ...]

    def put(self, transaction: Transaction) -> list[close_store.Alarm]:
        """Replace what production says about the hour; return its alarms.

        Hours that rest on what changed are opened again.
        """
        close_store.put_judgement(transaction, self.hour, self.judged)
        close_store.put_steps(transaction, self.hour, self.steps, self.streams)
        changed = close_store.put_derived(transaction, self.hour, self.derived)
        hour_activity.reopen_hours(transaction, [*self.doubted, *([self.hour + HOUR] if changed else [])])
        return [*self.judged.alarms, *close_store.steps_beyond(transaction, self.hour, self.margin_us)]


def prove_hour(
    database: Database, settings: DeduplicatorSettings, hour: datetime, claimed: Mapping[str, GathererHour]
) -> HourProof:
    """Judge what was claimed of the hour. All rows that the claims speak of must be in production already."""
    low_us, high_us = us_from_datetime(hour), us_from_datetime(hour + HOUR)
    streams = {name: each.streams for name, each in claimed.items()}
    checks = {"gatherer": pl.String, **RUN_CHECKS}
    run_checks = pl.concat(
        [pl.DataFrame(schema=checks), *(_named(name, each.run_checks, checks) for name, each in claimed.items())]
    )
    with database.transaction() as transaction:
        kept = close_store.kept_claims(transaction, hour, streams)
        # Their closes could not know of the snapshot that came later.
        doubted = close_store.hours_that_claim(transaction, hour, run_checks.filter(~pl.col("passed")))
        lost = aside.misdated_around(transaction, hour, hour + HOUR)
        earlier = close_store.run_checks_made(transaction, hour, kept["ticker"])
    fresh = pl.lit(None, pl.String)
    claims = pl.concat(
        [
            kept,
            *(
                _named(name, each.claims.with_columns(withdrawn=fresh), close_store.CLAIM_COLUMNS)
                for name, each in claimed.items()
            ),
        ]
    )
    rows = read_production_hour(database.url, low_us, high_us, settings.rest_age_us, settings.clock_skew_us)
    judged = judge(claims.sort(CLAIM), run_checks, rows.hour, lost, earlier)
    covered = Covered(rows.hour.tickers, judged.coverage)
    derived, wrong = derive(rows.checkpoints, covered, rows.changes, rows.exchange_us, high_us - 1)
    found_before = kept.filter(pl.col("withdrawn") == _BELOW_ZERO)["ticker"]
    judged = condemned(judged, sorted({*wrong, *found_before}), _BELOW_ZERO)
    columns = {"gatherer": pl.String, "stream_id": pl.Int64, **STEPS}
    steps = [pl.DataFrame(schema=columns), *(_named(name, each.steps, columns) for name, each in claimed.items())]
    return HourProof(hour, judged, derived, pl.concat(steps), settings.margin_us, streams, doubted)


def _named(gatherer: str, rows: pl.DataFrame, schema: Mapping[str, object]) -> pl.DataFrame:
    return rows.with_columns(gatherer=pl.lit(gatherer)).select(schema.keys())
