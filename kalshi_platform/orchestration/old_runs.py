"""Deletes old runs from Dagster's storage, with their events and logs; Dagster itself purges ticks alone.

The run of an asset's last materialization or observation stays, so that every asset keeps its page. What schedules look
at (partitions of the last week) is younger than the fewest days that may be set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

import dagster as dg

from kalshi_platform.orchestration.statuses import ENDED

_PAGE = 500
_MOST = 20_000
"""Runs that one call deletes at most: an instance of years is put right day by day."""


class OldRuns(NamedTuple):
    """`deleted`: runs that went; `kept`: old ones that stay because nothing newer was said of one of their assets."""

    deleted: int
    kept: int


def delete_old_runs(instance: dg.DagsterInstance, before: datetime, partitions: Iterable[str] = ()) -> OldRuns:
    """Delete the runs that ended before a moment. `partitions`: names of static partitions, each with a last event."""
    old = list(_find_old_runs(instance, before))
    if not old:
        return OldRuns(0, 0)
    last = _find_last_runs(instance, tuple(partitions))
    deleted = [run_id for run_id in old if run_id not in last]
    for run_id in deleted:
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        instance.delete_run(run_id)
    return OldRuns(len(deleted), len(old) - len(deleted))


def _find_old_runs(instance: dg.DagsterInstance, before: datetime) -> Iterator[str]:
    chosen = dg.RunsFilter(statuses=list(ENDED), updated_before=before)
    cursor: str | None = None
    for _ in range(_MOST // _PAGE):
        records = instance.get_run_records(chosen, limit=_PAGE, cursor=cursor, ascending=True)
        if not records:
            return
        cursor = records[-1].dagster_run.run_id
        yield from (record.dagster_run.run_id for record in records)


def _find_last_runs(instance: dg.DagsterInstance, partitions: tuple[str, ...]) -> set[str]:
    """Return the runs of the last materialization and observation of each asset, and of each static partition of it."""
    found: set[str] = set()
    for key in instance.all_asset_keys():
        filters = [dg.AssetRecordsFilter(asset_key=key)]
        filters += [dg.AssetRecordsFilter(asset_key=key, asset_partitions=[each]) for each in partitions]
        for chosen in filters:
            for fetch in (instance.fetch_materializations, instance.fetch_observations):
                found |= {record.run_id for record in fetch(chosen, limit=1).records}
    return found
