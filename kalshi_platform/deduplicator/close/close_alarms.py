"""Reads what closes found, for people: the markets with the lowest scores, and alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))


@dataclass(frozen=True)
class MarketProof:
    """One market and hour, as in `book_proofs`. `score`: checks that passed / checks that decided; None without any."""

    hour: datetime
    ticker: str
    verdict: str
    score: float | None
    failures: int
    undecided: int
    withdrawn_s: float
    detail: str


@dataclass(frozen=True)
class CloseAlarm:
    """Something that a person should look at. `raised_at` is when it was raised first."""

    hour: datetime
    kind: str
    subject: str
    detail: str
    raised_at: datetime


def read_worst_markets(production: Database, hours: Sequence[datetime], limit: int = 20) -> list[MarketProof]:
    """Markets that failed in these hours, the lowest score first."""
    with production.transaction() as transaction:
        rows = transaction.fetch_all(_SQL["find_worst_markets"], (list(hours), limit))
    return [MarketProof(*row) for row in rows]


def read_alarms_between(production: Database, low: datetime, high: datetime) -> list[CloseAlarm]:
    """Alarms of the hours of [low, high), by hour and kind."""
    with production.transaction() as transaction:
        rows = transaction.fetch_all(_SQL["read_alarms_between"], (low, high))
    return [CloseAlarm(*row) for row in rows]
