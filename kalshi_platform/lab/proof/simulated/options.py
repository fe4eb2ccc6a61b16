"""What a simulated day is asked to be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from kalshi_platform.lab.proof.options import ProofOptions

LEAD = timedelta(hours=1)
"""Traded before and after the day: books at its midnight, and candles that end with it, come of these hours."""
DELTA_SHARE = 0.80
"""Of the simulator's messages at least so many are deltas."""
DAYS_AGO = timedelta(days=3)
"""Databases date some rows by the machine's clock: no simulated time may lie ahead of it."""


@dataclass(frozen=True, kw_only=True)
class DayOptions(ProofOptions):
    """The last `hours` of a day with `deltas` of them, at `speed` seconds of the exchange in a second.

    `samples`: random (market, moment) whose books are compared. `rate` (by the exchange's clock) and `seconds` follow.
    """

    hours: int = 24
    deltas: int = 2_000_000
    speed: float = 300.0
    samples: int = 1_000

    @classmethod
    def of(cls, given: ProofOptions, *, hours: int, deltas: int, speed: float, samples: int) -> Self:
        """Return the options of a day; seconds and rate of `given` do not count."""
        return cls(
            seconds=3_600.0 * hours, gatherers=given.gatherers, rate=deltas / DELTA_SHARE / (3_600 * hours),
            markets=given.markets, seed=given.seed, data_dir=given.data_dir, keep=given.keep,
            json_file=given.json_file, plot_file=given.plot_file, faults="day",
            hours=hours, deltas=deltas, speed=speed, samples=samples,
        )  # fmt: skip

    def rate_problems(self) -> list[str]:
        """Nothing: what the deltas ask for is right for a day."""
        return []

    def length_problems(self) -> list[str]:
        """What is wrong with `hours` and `speed`."""
        problems = []
        if not 1 <= self.hours <= 24:
            problems.append(f"--hours is {self.hours}: use 1 to 24")
        if not 1 <= self.speed <= 2_000:
            problems.append(f"--speed is {self.speed:g}: use 1 to 2000")
        if self.deltas < 1_000:
            problems.append(f"--deltas is {self.deltas}: use at least 1000")
        return problems


@dataclass(frozen=True, kw_only=True)
class WeeksOptions(ProofOptions):
    """`days` at `speed`, `rate` messages per second of the exchange's clock, and what is kept for how many days."""

    days: int = 14
    speed: float = 2_000.0
    gatherer_days: float = 2.0
    production_days: float = 4.0
    dagster_days: float = 4.0

    @classmethod
    def of(cls, given: ProofOptions, *, days: int, speed: float) -> Self:
        """Return the options of weeks; `rate` is one in which two weeks are some hundred thousand messages."""
        return cls(
            seconds=86_400.0 * days, gatherers=given.gatherers, rate=1.5, markets=given.markets, seed=given.seed,
            data_dir=given.data_dir, keep=given.keep, json_file=given.json_file, plot_file=given.plot_file,
            faults="weeks", days=days, speed=speed,
        )  # fmt: skip

    @property
    def flat_from_days(self) -> float:
        """From then on nothing may grow: the longest that anything is kept, and a day until it goes."""
        return max(self.gatherer_days, self.production_days, self.dagster_days) + 1.5

    def settings(self, start: datetime) -> dict[str, str]:
        """Return settings of everything that runs; `start` is the first hour that Dagster offers as a partition."""
        return {
            "KALSHI_SNAPSHOT_INTERVAL_S": "21600",
            "KALSHI_RETENTION_GATHERER_DAYS": f"{self.gatherer_days:g}",
            "KALSHI_RETENTION_PRODUCTION_DAYS": f"{self.production_days:g}",
            "KALSHI_RETENTION_HISTORY_DAYS": f"{self.production_days:g}",
            "KALSHI_RETENTION_RECORDS_DAYS": f"{self.production_days:g}",
            "KALSHI_PARTITIONS_START": f"{start:%Y-%m-%dT%H:%M}",
        }

    def rate_problems(self) -> list[str]:
        """Nothing: the rate is low on purpose."""
        return []

    def length_problems(self) -> list[str]:
        """What is wrong with `days` and `speed`."""
        problems = []
        if self.days < self.flat_from_days + 3:
            problems.append(f"--days is {self.days}: use at least {self.flat_from_days + 3:.0f}")
        if not 1 <= self.speed <= 5_000:
            problems.append(f"--speed is {self.speed:g}: use 1 to 5000")
        return problems


@dataclass(frozen=True, kw_only=True)
class OperationOptions(ProofOptions):
    """`speed`: seconds of the exchange in a second; `rate`: messages per second of the exchange's clock."""

    speed: float = 120.0
    gatherer_days: float = 0.05

    @classmethod
    def of(cls, given: ProofOptions, *, speed: float) -> Self:
        """Return the options of an operation; the rate of `given` is per second of the machine."""
        return cls(
            seconds=given.seconds, gatherers=given.gatherers, rate=given.rate / speed, markets=given.markets,
            seed=given.seed, data_dir=given.data_dir, keep=given.keep, json_file=given.json_file,
            plot_file=given.plot_file, faults="operation", speed=speed,
        )  # fmt: skip

    def settings(self, start: datetime) -> dict[str, str]:
        """Return settings of everything that runs; `start` is the first hour that Dagster offers as a partition."""
        return {
            "KALSHI_SNAPSHOT_INTERVAL_S": "600",
            "KALSHI_RETENTION_GATHERER_DAYS": f"{self.gatherer_days:g}",
            "KALSHI_PARTITIONS_START": f"{start:%Y-%m-%dT%H:%M}",
        }

    def rate_problems(self) -> list[str]:
        """What is wrong with the rate, by the machine's clock."""
        rate = self.rate * self.speed
        return [] if rate >= 5 else [f"--rate is {rate:g}: use at least 5 messages per second"]

    def length_problems(self) -> list[str]:
        """What is wrong with `speed`."""
        return [] if 1 < self.speed <= 600 else [f"--speed is {self.speed:g}: use more than 1, at most 600"]
