"""Defines for how many days databases keep what the lake has."""

from __future__ import annotations

from dataclasses import dataclass, field

from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.setting import setting

FEWEST_DAGSTER_DAYS = 14
"""Twice what Dagster's schedules look back."""


@dataclass(frozen=True)
class GathererDatabase:
    """A gatherer's timeseries database, and its catalog ("" where that keeps all that it has)."""

    name: str
    url: str = field(repr=False)
    catalog_url: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class RetentionSettings:
    """Where rows go from, where they must be, and after how many days.

    `lock_timeout_s`: how long a drop waits for its table, and whoever comes meanwhile waits behind it. A table that is
    in use then is tried `lock_tries` times, `lock_pause_s` apart. `verified_for_days`: how long a partition of the lake
    that was read back counts as verified, while its manifest is the same; an archived one for ever.
    """

    production_url: str = field(repr=False)
    gatherers: tuple[GathererDatabase, ...]
    lake: LakeSettings
    enabled: bool = field(
        default=True,
        metadata=setting("KALSHI_RETENTION", "whether old rows are dropped once the lake has them; `no` keeps all"),
    )
    gatherer_days: float = field(
        default=7.0,
        metadata=setting(
            "KALSHI_RETENTION_GATHERER_DAYS",
            "days that gatherers keep what they recorded, once the lake verifiably has it; 0 = for ever",
            unit="d",
            low=0,
            high=36_500,
        ),
    )
    production_days: float = field(
        default=30.0,
        metadata=setting(
            "KALSHI_RETENTION_PRODUCTION_DAYS",
            "days that production keeps order-book deltas, snapshots and tickers, once the lake verifiably has them;"
            " 0 = for ever",
            unit="d",
            low=0,
            high=36_500,
        ),
    )
    history_days: float = field(
        default=0.0,
        metadata=setting(
            "KALSHI_RETENTION_HISTORY_DAYS",
            "days that production keeps trades, lifecycle messages, book checkpoints and coverage, once the lake"
            " verifiably has them; at least those of KALSHI_RETENTION_PRODUCTION_DAYS; 0 = for ever",
            unit="d",
            low=0,
            high=36_500,
        ),
    )
    records_days: float = field(
        default=90.0,
        metadata=setting(
            "KALSHI_RETENTION_RECORDS_DAYS",
            "days that databases keep records about their own work: proofs, statistics, alarms, refused rows, trade"
            " checks, syncs; 0 = for ever",
            unit="d",
            low=0,
            high=36_500,
        ),
    )
    dagster_days: float = field(
        default=30.0,
        metadata=setting(
            "KALSHI_RETENTION_DAGSTER_DAYS",
            "days that Dagster keeps runs that have ended, with their events and logs; the last run of each asset"
            " stays. Its schedules look at the last week. At least 14; 0 = for ever",
            unit="d",
            low=0,
            high=36_500,
        ),
    )
    lock_timeout_s: float = 0.5
    lock_tries: int = 3
    lock_pause_s: float = 2.0
    verified_for_days: float = 7.0
