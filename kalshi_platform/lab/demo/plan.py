"""Decides where the past of a demo begins, how fast it passes, and which of its hours are closed first. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from kalshi_platform.market.times import HOUR, hour_of

CATCH_UP_S = 30.0
"""For the whole past, in seconds of the machine, where the machine can follow."""
MESSAGES = 80_000
"""Of the whole past, over all markets."""
SETTLED = timedelta(minutes=6)
"""After the end of an hour: what came late has come, and the schedule of five past has not been forestalled."""
LAST_OF_DAY = 2
DAY = timedelta(days=1)


@dataclass(frozen=True)
class PastPlan:
    """The past from `begin` on: the last two hours of `day`, and all hours since.

    `day` is the last UTC day whose data sets can be made: it and the first hour after it have ended.
    """

    day: datetime
    begin: datetime

    @classmethod
    def of(cls, now: datetime) -> PastPlan:
        """Return the plan of a demo that is started at `now`."""
        today = hour_of(now - HOUR - SETTLED).replace(hour=0)
        return cls(today - DAY, today - LAST_OF_DAY * HOUR)

    def speed(self, now: datetime) -> float:
        """Return how many seconds of the exchange pass in a second."""
        return max(2.0, (now - self.begin).total_seconds() / CATCH_UP_S)

    def rate(self, now: datetime) -> float:
        """Return the messages per second, by the exchange's clock."""
        return MESSAGES / (now - self.begin).total_seconds()

    @property
    def first_hours(self) -> tuple[datetime, datetime]:
        """The first and the last of the hours that the data sets of `day` are made from."""
        return self.begin, self.day + DAY

    def other_hours(self, now: datetime) -> tuple[datetime, datetime] | None:
        """Return the first and the last of the other hours that have ended by `now`; None: there is none."""
        first, last = self.day + DAY + HOUR, hour_of(now - SETTLED) - HOUR
        return (first, last) if last >= first else None
