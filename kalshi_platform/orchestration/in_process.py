"""Runs jobs of the code location in this process, as runs of the instance that DAGSTER_HOME names."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

import dagster as dg

from kalshi_platform.errors import TransientError
from kalshi_platform.orchestration.build import build, load_code_location
from kalshi_platform.orchestration.old_runs import delete_old_runs
from kalshi_platform.orchestration.partitions import day_key, hour_key

_FIRST, _LAST = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


class RunFailed(TransientError):
    """A run did not succeed; Dagster's page of the run says why."""


class InProcessRuns:
    """The jobs of a code location and its instance. A context manager."""

    def __init__(self) -> None:
        self._definitions = build(load_code_location())
        self._instance = dg.DagsterInstance.get()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._instance.dispose()

    def close_hours(self, hours: Sequence[datetime]) -> None:
        """Close a range of hours, and export them, in one run. Raises RunFailed."""
        self._run("close_hours", {_FIRST: hour_key(hours[0]), _LAST: hour_key(hours[-1])})

    def export_day(self, day: datetime) -> None:
        """Export the daily data sets of a day. Raises RunFailed."""
        self._run("export_days", {_FIRST: day_key(day), _LAST: day_key(day)})

    def retention(self) -> None:
        """Drop what is old and verifiably in the lake. Raises RunFailed."""
        self._run("retention", {})

    def delete_runs(self, before: datetime) -> int:
        """Delete runs that ended before a moment of the machine's clock, by which Dagster dates them."""
        return delete_old_runs(self._instance, before).deleted

    def _run(self, job: str, tags: dict[str, str]) -> None:
        resolved = self._definitions.resolve_job_def(job)
        done = resolved.execute_in_process(instance=self._instance, tags=tags, raise_on_error=False)
        if not done.success:
            raise RunFailed(f"run {done.run_id} of {job} failed")
