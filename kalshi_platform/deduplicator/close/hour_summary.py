"""Reads summaries of closed hours from production: coverage, proofs, agreement between gatherers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from kalshi_platform.deduplicator.close.close_alarms import CloseAlarm, read_alarms_between
from kalshi_platform.market.times import HOUR, us_from_datetime
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

_STEPS = 60


@dataclass(frozen=True)
class Coverage:
    """Of the markets that should be in some hours: how much of their open time is covered, and when.

    `markets`: how many, in the hour that has most. `moments_us` and `shares`: at each moment, the share of the markets
    of its hour, open then or not, that are covered.
    """

    markets: int
    open_us: int
    covered_us: int
    moments_us: tuple[int, ...]
    shares: tuple[float, ...]

    @property
    def share(self) -> float | None:
        """The coverage share, 0 … 1; None where no market was recorded, and the catalog knows none that was open."""
        return None if self.open_us == 0 else self.covered_us / self.open_us


@dataclass(frozen=True)
class CoverageShare:
    """How complete an hour is, as SQL's hour_coverage_share says: `share` (0 … 1) of the open time of `markets`.

    Of an hour whose rows were dropped since, what its close recorded. None: no market was open, or none was recorded.
    """

    markets: int
    open_us: int
    covered_us: int
    share: float | None


NOTHING_OPEN = CoverageShare(0, 0, 0, None)


@dataclass(frozen=True)
class Proofs:
    """Market-hours by verdict."""

    proved: int
    unproved: int
    failed: int


@dataclass(frozen=True)
class Agreement:
    """How far the gatherers of an hour agree: the lowest share, whose it is, and what each of them brought.

    `parts`: (gatherer, deltas, those that only it has).
    """

    lowest: float | None
    gatherer: str | None
    parts: tuple[tuple[str, int, int], ...]


def read_coverage(database: Database, hours: Sequence[datetime]) -> Coverage:
    """Coverage of some hours, which need not be neighbours."""
    markets = open_us = covered_us = 0
    moments: list[int] = []
    shares: list[float] = []
    for hour in hours:
        with database.transaction() as transaction:
            of_hour = read_coverage_share(transaction, hour)
            step = HOUR / _STEPS
            counts = transaction.fetch_all(
                _SQL["count_covered_markets"],
                {
                    "from": hour + step / 2,
                    "to": hour + HOUR - timedelta(microseconds=1),
                    "step": step,
                    "low": hour,
                    "high": hour + HOUR,
                },
            )
        markets = max(markets, of_hour.markets)
        open_us += of_hour.open_us
        covered_us += of_hour.covered_us
        moments += [us_from_datetime(at) for at, _ in counts]
        shares += [int(count) / max(1, of_hour.markets) for _, count in counts]
    return Coverage(markets, open_us, covered_us, tuple(moments), tuple(shares))


def read_coverage_share(transaction: Transaction, hour: datetime) -> CoverageShare:
    """The coverage share of one hour."""
    row = transaction.fetch_one(_SQL["read_coverage_share"], (hour,))
    assert row is not None  # noqa: S101 - the function gives one row
    markets, open_us, covered_us, share = row
    return CoverageShare(markets or 0, open_us or 0, covered_us or 0, share)


def read_proofs(database: Database, hours: Sequence[datetime]) -> Proofs:
    """The book proofs of some hours."""
    with database.transaction() as transaction:
        return read_proofs_within(transaction, hours)


def read_proofs_within(transaction: Transaction, hours: Sequence[datetime]) -> Proofs:
    """The same within a transaction."""
    verdicts = transaction.fetch_all(_SQL["count_proofs"], (list(hours),))
    counted = {str(verdict): int(count) for verdict, count in verdicts}
    return Proofs(counted.get("proved", 0), counted.get("unproved", 0), counted.get("failed", 0))


def read_agreement(database: Database, hours: Sequence[datetime]) -> Agreement:
    """How well the gatherers' deltas agree in some hours."""
    with database.transaction() as transaction:
        rows = transaction.fetch_all(_SQL["read_agreement"], (list(hours),))
    shares = [(float(share), str(name)) for name, _, _, share in rows if share is not None]
    lowest, gatherer = min(shares, default=(None, None))
    parts = tuple((str(name), int(distinct), int(unique)) for name, distinct, unique, _ in rows)
    return Agreement(lowest, gatherer, parts)


def read_least_covered_markets(
    database: Database, low: datetime, high: datetime, most: int
) -> dict[str, dict[datetime, float]]:
    """The `most` markets with the least coverage in [low, high), least first: the covered share of each closed hour."""
    with database.transaction() as transaction:
        rows = transaction.fetch_all(_SQL["read_least_covered_markets"], {"low": low, "high": high, "most": most})
    found: dict[str, dict[datetime, float]] = {}
    for ticker, hour, share in rows:
        found.setdefault(str(ticker), {})[hour] = float(share)
    return found


def read_agreement_by_hour(
    database: Database, low: datetime, high: datetime
) -> dict[str, list[tuple[datetime, float]]]:
    """By gatherer: the hours of [low, high), and the share of its comparable deltas that another one has too."""
    with database.transaction() as transaction:
        rows = transaction.fetch_all(_SQL["read_agreement_by_hour"], {"low": low, "high": high})
    found: dict[str, list[tuple[datetime, float]]] = {}
    for gatherer, hour, share in rows:
        found.setdefault(str(gatherer), []).append((hour, float(share)))
    return found


def read_alarms(database: Database, hours: Sequence[datetime]) -> list[CloseAlarm]:
    """What the closes of some hours want a person to look at."""
    return [alarm for hour in hours for alarm in read_alarms_between(database, hour, hour + HOUR)]


def read_last_closed_hour(database: Database) -> datetime | None:
    """The newest closed hour; None before the first."""
    with database.transaction() as transaction:
        row = transaction.fetch_one(_SQL["find_last_closed_hour"])
    return None if row is None else row[0]
