"""Which partitions are missing, failed or out of date, and the fewest runs that put that right."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from kalshi_platform.orchestration.partitions import hour_key, range_request, ranges
from kalshi_platform.orchestration.statuses import UNFINISHED

if TYPE_CHECKING:
    from kalshi_platform.lake.settings import LakeSettings

_log = logging.getLogger(__name__)
LOOK_BACK = timedelta(days=7)
LONGEST_RANGE = 24
"""Partitions in one run: a failure costs at most that much repeated work."""


@dataclass(frozen=True)
class Stage:
    """Assets that share their partitions. `together`: made by one step, so all of them or none.

    A partition of `then` is made anew whenever the same partition of `together` is.
    """

    partitions: dg.TimeWindowPartitionsDefinition
    together: tuple[dg.AssetKey, ...]
    then: tuple[dg.AssetKey, ...] = ()

    @property
    def keys(self) -> tuple[dg.AssetKey, ...]:
        return (*self.together, *self.then)


def lacking(
    stage: Stage,
    keys: Sequence[str],
    done: Mapping[dg.AssetKey, set[str]],
    stale: Iterable[str] = (),
    busy: Iterable[str] = (),
) -> dict[tuple[dg.AssetKey, ...], list[str]]:
    """Which assets each partition lacks: selection → partition keys.

    `done` has the partitions that are there, `stale` those to be made anew, `busy` those that a run is about to make.
    """
    wanted: dict[tuple[dg.AssetKey, ...], list[str]] = defaultdict(list)
    stale, busy = set(stale), set(busy)
    for key in keys:
        if key in busy:
            continue
        if key in stale or any(key not in done[asset] for asset in stage.together):
            selection = stage.keys
        else:
            selection = tuple(asset for asset in stage.then if key not in done[asset])
        if selection:
            wanted[selection].append(key)
    return dict(wanted)


def requests(
    wanted: Mapping[tuple[dg.AssetKey, ...], Sequence[str]],
    parse: Callable[[str], datetime],
    step: timedelta,
    write: Callable[[datetime], str] = hour_key,
) -> list[dg.RunRequest]:
    """One run per selection and stretch of neighbouring partitions."""
    found = [
        (first, last, selection)
        for selection, keys in wanted.items()
        for first, last in ranges(map(parse, keys), step, LONGEST_RANGE)
    ]
    return [range_request(selection, write(first), write(last)) for first, last, selection in sorted(found)]


def materialized(instance: dg.DagsterInstance, stage: Stage, keys: Sequence[str]) -> dict[dg.AssetKey, set[str]]:
    """Of `keys`, the partitions of each asset whose latest attempt succeeded.

    Asked of the events themselves. Dagster's cache of partition states moves a cursor over event numbers, which become
    visible out of order when runs write side by side, and takes a cancelled attempt for none.
    """
    found: dict[dg.AssetKey, set[str]] = {}
    for asset in stage.keys:
        made = set(instance.get_materialized_partitions(asset))
        events = instance.event_log_storage
        without = events.get_latest_asset_partition_materialization_attempts_without_materializations(asset)
        found[asset] = (made - set(without)).intersection(keys)
    return found


def stale_in_lake(
    lake: LakeSettings,
    production_url: str,
    stage: Stage,
    starts: Iterable[datetime],
    now: datetime,
    write: Callable[[datetime], str],
) -> dict[dg.AssetKey, set[str]]:
    """Of the lake's assets of a stage, the partitions that are not what production's closes say.

    Asked of the lake's manifests and of production, because hours are closed, and files lost, without Dagster. What
    production has lost the rows of is left out, and logged: no run can put it right.
    """
    from kalshi_platform.lake.layout import TABLES
    from kalshi_platform.lake.stale import partitions_of, stale_partitions

    tables = {table: dg.AssetKey(["lake", *key.split("/")]) for key, table in TABLES.items()}
    wanted = [table for table, asset in tables.items() if asset in stage.then]
    found: dict[dg.AssetKey, set[str]] = {}
    for each in stale_partitions(lake, production_url, partitions_of(starts, now, wanted)):
        if each.exportable:
            found.setdefault(tables[each.partition.table], set()).add(write(each.partition.start))
        else:
            _log.error(
                "%s %s: %s, and production has lost rows of it: close the hour again, or export it with"
                " --allow-fewer-rows", each.partition.table.key, each.partition.key, each.reason
            )  # fmt: skip
    return found


def without(done: Mapping[dg.AssetKey, set[str]], stale: Mapping[dg.AssetKey, set[str]]) -> dict[dg.AssetKey, set[str]]:
    """The partitions that are there, less those to be made again."""
    return {asset: keys - stale.get(asset, set()) for asset, keys in done.items()}


def being_made(
    instance: dg.DagsterInstance,
    stage: Stage,
    step: timedelta,
    parse: Callable[[str], datetime],
    write: Callable[[datetime], str],
) -> set[str]:
    """Partitions of the stage that runs in progress (or in the queue) are going to make."""
    keys: set[str] = set()
    assets = set(stage.keys)
    for record in instance.get_run_records(dg.RunsFilter(statuses=list(UNFINISHED))):
        run = record.dagster_run
        if run.asset_selection is not None and not assets & set(run.asset_selection):
            continue
        keys |= _keys_of(run.tags, step, parse, write)
    return keys


def _keys_of(
    tags: Mapping[str, Any], step: timedelta, parse: Callable[[str], datetime], write: Callable[[datetime], str]
) -> set[str]:
    single = tags.get("dagster/partition")
    first = tags.get("dagster/asset_partition_range_start", single)
    last = tags.get("dagster/asset_partition_range_end", single)
    if first is None or last is None:
        return set()
    try:
        moment, end = parse(first), parse(last)
    except ValueError:  # a partition of another kind: a gatherer's name, a day
        return set()
    keys = set()
    while moment <= end:
        keys.add(write(moment))
        moment += step
    return keys
