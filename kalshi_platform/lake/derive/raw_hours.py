"""Finds the raw partitions that a day is made from, and refuses those that are not what production's closes say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from kalshi_platform.errors import StaleInput
from kalshi_platform.lake.closes import HourState, are_closes_of
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.layout import Partition
from kalshi_platform.lake.manifest import Manifest, find_manifest
from kalshi_platform.lake.store.objects import ObjectStore

_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class RawPartition:
    """A raw partition as it is published: the folder that it lies in, and its manifest."""

    partition: Partition
    path: str
    manifest: Manifest


@dataclass(frozen=True)
class RawHours:
    """What a day is made from: its hours and those around it, ascending, and the raw partitions by data set."""

    partition: Partition
    hours: tuple[datetime, ...]
    found: Mapping[str, Mapping[datetime, RawPartition]]


def find_raw_hours(store: ObjectStore, partition: Partition, hours: Sequence[HourState]) -> RawHours:
    """Find the raw partitions of a partition's hours. Raises StaleInput where one lacks or is of another close."""
    found: dict[str, dict[datetime, RawPartition]] = {}
    missing: list[tuple[Partition, str]] = []
    for key in partition.dataset.inputs:
        data = DATASETS[key]
        of_data = found.setdefault(key, {})
        for hour in hours:
            raw = Partition(data, hour.hour)
            published = find_manifest(store, raw) if hour.active or hour.closed_at is not None else None
            reason = _objection(hour, None if published is None else published[1])
            if reason is not None:
                missing.append((raw, reason))
            elif published is not None:
                of_data[hour.hour] = RawPartition(raw, *published)
    if missing:
        raise _stale_input(partition, missing)
    return RawHours(partition, tuple(hour.hour for hour in hours), found)


def _objection(hour: HourState, manifest: Manifest | None) -> str | None:
    """Why a raw partition cannot be used; None where it can, or where the hour has no rows."""
    if manifest is None:
        return "is not in the lake" if hour.active else None
    if manifest.state != "closed":
        return "was exported before its hour was closed"
    if not are_closes_of([hour], manifest.closes, manifest.closed_at):
        return "is of another close than production's present one"
    return None


def _stale_input(partition: Partition, missing: Sequence[tuple[Partition, str]]) -> StaleInput:
    named = ", ".join(f"{raw.dataset.key} {raw.key} {reason}" for raw, reason in missing[:_NAMED_AT_MOST])
    more = f" (and {len(missing) - _NAMED_AT_MOST} more)" if len(missing) > _NAMED_AT_MOST else ""
    first = missing[0][0]
    return StaleInput(
        f"{partition.dataset.key} {partition.key} is made from raw hours of the lake: {named}{more}; export them first:"
        f" kalshi-platform export {first.dataset.name} {first.start:%Y-%m-%dT%H}, or all of the last week with"
        " kalshi-platform export --stale",
        missing=[f"{raw.dataset.key} {raw.key}" for raw, _ in missing],
    )
