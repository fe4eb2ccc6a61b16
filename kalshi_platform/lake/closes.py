"""The hours of a partition as production sees them: which are closed, by which close, and whether their rows are there.

This is the lake's only reading of production's closes: what an export may call closed, what its manifest names, and
what makes a partition stale follow from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from kalshi_platform.lake import queries
from kalshi_platform.lake.layout import Partition
from kalshi_platform.storage.read import ArrowSnapshot


@dataclass(frozen=True)
class HourState:
    """One hour. `active`: it got rows. `reopened`: rows came after its close. `close_id` names its latest close."""

    hour: datetime
    active: bool
    closed_at: datetime | None
    close_no: int | None
    close_id: str | None
    reopened: bool


@dataclass(frozen=True)
class CountedRows:
    """What the closes of a partition's hours counted of the table that it is made from.

    `gone`: hours that lost rows since.
    """

    rows: int
    gone: tuple[datetime, ...]


def hour_states(snapshot: ArrowSnapshot, low: datetime, high: datetime) -> list[HourState]:
    """The hours of [low, high), ascending."""
    rows = snapshot.table(queries.closes_query(low, high)).to_pylist()
    return [
        HourState(row["hour"], row["active"], row["closed_at"], row["close_no"], row["close_id"], row["reopened"])
        for row in rows
    ]


def counted_rows(snapshot: ArrowSnapshot, partition: Partition) -> CountedRows:
    """What production had of a partition when its hours were closed; nothing of one that the lake makes of its own."""
    if partition.dataset.builder is not None:
        return CountedRows(0, ())
    rows = snapshot.table(queries.closed_rows_query(partition)).to_pylist()
    return CountedRows(sum(row["rows"] or 0 for row in rows), tuple(row["hour"] for row in rows if row["is_gone"]))


def unclosed(partition: Partition, hours: Sequence[HourState]) -> list[HourState]:
    """Of the hours that a partition is made from, those not closed that would have to be, or whose rows came since.

    Of a day only the hours that got rows must be closed: recording may have begun in the middle of it.
    """
    wanted = [hour for hour in hours if partition.dataset.kind == "hourly" or hour.active]
    return [hour for hour in wanted if hour.closed_at is None or hour.reopened]


def closes_of(hours: Iterable[HourState]) -> dict[str, str]:
    """The closes of some hours, as a manifest names them."""
    return {f"{hour.hour:%Y-%m-%dT%H}": hour.close_id for hour in hours if hour.close_id is not None}


def are_closes_of(hours: Iterable[HourState], closes: Mapping[str, str], closed_at: datetime | None) -> bool:
    """Whether what a manifest names are the present closes of some hours; version 0.1.0 wrote down only when."""
    if closes:
        return closes == closes_of(hours)
    return closed_at == max((hour.closed_at for hour in hours if hour.closed_at is not None), default=None)
