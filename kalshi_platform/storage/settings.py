"""Defines which exchange times are believable: partitions are made for them, other rows are set aside."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from kalshi_platform.setting import setting


@dataclass(frozen=True)
class PartitionBounds:
    """Which exchange times are believable. Kalshi opened in June 2021."""

    earliest: datetime = field(
        default=datetime(2021, 1, 1, tzinfo=UTC),
        metadata=setting("KALSHI_EARLIEST_TIME", "rows with an earlier exchange time are set aside"),
    )
    ahead: timedelta = field(
        default=timedelta(hours=48),
        metadata=setting(
            "KALSHI_HOURS_AHEAD",
            "rows with an exchange time further ahead of our clock are set aside",
            unit="h",
            low=1,
            high=24 * 366,
            scale=timedelta(hours=1),
        ),
    )
    behind: timedelta = field(
        default=timedelta(hours=48),
        metadata=setting(
            "KALSHI_HOURS_BEHIND",
            "a message dated so long before its receipt is set aside, unless the one before it in its stream was as"
            " old: a capture that is played again is recorded whole",
            unit="h",
            low=1,
            high=24 * 366 * 100,
            scale=timedelta(hours=1),
        ),
    )
