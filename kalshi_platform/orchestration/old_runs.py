"""Deletes old runs from Dagster's storage, with their events and logs; Dagster itself purges ticks alone.

The run of an asset's last materialization or observation stays, so that every asset keeps its page. What schedules look
at (partitions of the last week) is younger than the fewest days that may be set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import dagster as dg

from kalshi_platform.orchestration.statuses import ENDED
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("old_runs.sql"))

_PAGE = 500
_MOST = 20_000
"""Runs that one call deletes at most: an instance of years is put right day by day."""


class OldRuns(NamedTuple):
    """`deleted`: runs that went; `kept`: old ones that stay because nothing newer was said of one of their assets.

    `checks`: evaluations of asset checks that went; `events`: events of those that a sensor made, without a run.
    """

    deleted: int
    kept: int
    checks: int
    events: int = 0


def delete_old_runs(
    instance: dg.DagsterInstance,
    before: datetime,
    partitions: Iterable[str] = (),
    *,
    services: Mapping[str, datetime] = MappingProxyType({}),
) -> OldRuns:
    """Delete the runs that ended before a moment, and the evaluations of asset checks before it.

    `partitions`: names of static partitions, each with a last event. `services`: jobs of long-running runs, and the
    moment for them: each is a day of events, one a minute and asset.
    """
    chosen = [dg.RunsFilter(statuses=list(ENDED), updated_before=before)]
    chosen += [
        dg.RunsFilter(job_name=job, statuses=list(ENDED), updated_before=moment) for job, moment in services.items()
    ]
    old = list(dict.fromkeys(run_id for each in chosen for run_id in _find_runs(instance, each)))
    last = _find_last_runs(instance, tuple(partitions)) if old else set()
    deleted = [run_id for run_id in old if run_id not in last]
    for run_id in deleted:
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        instance.delete_run(run_id)
    return OldRuns(len(deleted), len(old) - len(deleted), *_delete_checks(instance, before))


def _delete_checks(instance: dg.DagsterInstance, before: datetime) -> tuple[int, int]:
    """Delete old evaluations of checks, which the deletion of a run leaves; they are a third of what a close takes.

    Returns how many went, and how many events of evaluations without a run.
    """
    moment = f"'{before.astimezone(UTC):%Y-%m-%d %H:%M:%S}'"
    storage: Any = instance.event_log_storage  # both of its kinds, PostgreSQL and SQLite, give a connection
    with storage.index_connection() as connection:
        checks, events = (
            int(connection.exec_driver_sql(_SQL[name].format(before=moment)).rowcount)
            for name in ("delete_checks", "delete_check_events")
        )
    return checks, events


def _find_runs(instance: dg.DagsterInstance, chosen: dg.RunsFilter) -> Iterator[str]:
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
