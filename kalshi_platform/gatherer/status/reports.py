"""Defines the reports of a running gatherer to its host (Dagster, for example): the exchange, syncs, polls, rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from kalshi_platform.market.catalog import ExchangeStatus
from kalshi_platform.market.times import datetime_from_us


@dataclass(frozen=True, kw_only=True)
class ExchangeStatusRead:
    """Reports the state of the exchange, as read before recording begins. `estimated_resume`: None where none is named.

    `trading_active` false: a trading pause, books do not change.
    """

    at: datetime
    exchange_active: bool
    trading_active: bool
    estimated_resume: datetime | None


def make_status_report(at: datetime, status: ExchangeStatus) -> ExchangeStatusRead:
    """Make the report of a status that was read at a moment."""
    resume_us = status.estimated_resume_us
    resume = None if resume_us is None else datetime_from_us(resume_us)
    return ExchangeStatusRead(
        at=at,
        exchange_active=status.exchange_active,
        trading_active=status.trading_active,
        estimated_resume=resume,
    )


@dataclass(frozen=True, kw_only=True)
class CatalogSynced:
    """Reports a finished sync of `series`, `events` or `markets`; `scope` is full or incremental.

    `left_out` counts what the listing lacked, `lacks` names it; such a sync is not a whole one.
    """

    what: str
    scope: str
    rows_seen: int
    rows_changed: int
    started_at: datetime
    finished_at: datetime
    left_out: int = 0
    lacks: str | None = None


@dataclass(frozen=True, kw_only=True)
class BooksPolled:
    """Reports one poll of books over REST.

    `minute` is the snapshots' time; of `asked` (requested) markets `stored` had a book, `skipped` were not requested
    (no budget left, a stop, or requests that kept failing), `failed` were in failed requests. `tokens` of the read
    budget were spent. `oldest_age_s` is the age of the oldest answer after the poll, None where that is not tracked.
    """

    minute: datetime
    subscribed: int
    asked: int
    stored: int
    skipped: int
    failed: int
    requests: int
    started_at: datetime
    finished_at: datetime
    tokens: float = 0.0
    oldest_age_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class StreamsCommitted:
    """Reports the new rows in the timeseries database since the last report of this kind, by table."""

    since: datetime
    until: datetime
    rows: Mapping[str, int]
    commits: int
    gaps: int
    reconnects: int
    lag_p50_ms: float | None
    lag_p99_ms: float | None


Report: TypeAlias = ExchangeStatusRead | CatalogSynced | BooksPolled | StreamsCommitted
