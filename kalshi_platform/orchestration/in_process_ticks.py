"""Evaluates the schedules of the code location for moments of any clock, and does what they request in this process.

As Dagster's daemon does by the machine's clock; a simulated platform has one of its own. Of the sensors only those
that request batches are evaluated: whoever runs services outside Dagster sees to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import dagster as dg

from kalshi_platform.orchestration.build import build, load_code_location
from kalshi_platform.orchestration.resources import RESOURCES
from kalshi_platform.orchestration.services import DEDUP_JOB, GATHER_JOB

MINUTE = timedelta(minutes=1)
_SERVICE_JOBS = frozenset({GATHER_JOB, DEDUP_JOB})
_FIRST, _LAST, _ONE = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end", "dagster/partition"


@dataclass(frozen=True)
class DoneRun:
    """A run that ended. `partitions`: the key, or the first and the last one, of those that have partitions."""

    job: str
    run_id: str
    success: bool
    partitions: tuple[str, ...] = ()
    assets: tuple[str, ...] = ()


@dataclass(frozen=True)
class DoneTick:
    """One evaluation. `skipped`: why nothing was requested; `error`: why it could not be evaluated."""

    name: str
    moment: datetime
    runs: Sequence[DoneRun] = ()
    skipped: str = ""
    error: str = ""


class InProcessTicks:
    """The schedules and sensors of the code location and the instance that DAGSTER_HOME names. A context manager."""

    def __init__(self) -> None:
        self._definitions = build(load_code_location())
        self._instance = dg.DagsterInstance.get()
        self._cursors: dict[str, str | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._instance.dispose()

    def due(self, since: datetime, now: datetime) -> list[tuple[datetime, str]]:
        """Return the moments of (since, now] at which schedules are due, with their names, in the order of time."""
        return sorted(
            (moment, schedule.name)
            for schedule in self._schedules().values()
            for moment in cron_moments(str(schedule.cron_schedule), since, now)
        )

    def evaluate(self, schedule_name: str, moment: datetime) -> DoneTick:
        """Evaluate a schedule for a moment, and do its runs one after the other."""
        schedule = self._schedules()[schedule_name]
        context = dg.build_schedule_context(
            instance=self._instance, scheduled_execution_time=moment, resources=RESOURCES,
            repository_def=self._definitions.get_repository_def(),
        )  # fmt: skip
        try:
            data = schedule.evaluate_tick(context)
        except Exception as error:  # noqa: BLE001 - the daemon would record a failed tick, and go on
            return DoneTick(schedule_name, moment, error=f"{type(error).__name__}: {error}")
        runs = [self._run(schedule.job_name, request) for request in data.run_requests or ()]
        return DoneTick(schedule_name, moment, runs, "" if runs else str(data.skip_message or ""))

    def evaluate_sensors(self, moment: datetime) -> list[DoneTick]:
        """Evaluate the sensors that request batches, each with its cursor, and do their runs."""
        done = []
        for sensor in self._definitions.sensors or ():
            if not isinstance(sensor, dg.SensorDefinition) or not sensor.has_jobs or sensor.job_name in _SERVICE_JOBS:
                continue  # also what only looks at runs or alarms of the instance
            context = dg.build_sensor_context(
                instance=self._instance, cursor=self._cursors.get(sensor.name), resources=RESOURCES,
                repository_def=self._definitions.get_repository_def(),
            )  # fmt: skip
            try:
                data = sensor.evaluate_tick(context)
            except Exception as error:  # noqa: BLE001 - the daemon would record a failed tick, and go on
                done.append(DoneTick(sensor.name, moment, error=f"{type(error).__name__}: {error}"))
                continue
            self._cursors[sensor.name] = data.cursor
            runs = [self._run(str(sensor.job_name), request) for request in data.run_requests or ()]
            done.append(DoneTick(sensor.name, moment, runs, "" if runs else str(data.skip_message or "")))
        return done

    def _schedules(self) -> Mapping[str, dg.ScheduleDefinition]:
        found = (each for each in self._definitions.schedules or () if isinstance(each, dg.ScheduleDefinition))
        return {each.name: each for each in found}

    def _run(self, job_name: str, request: dg.RunRequest) -> DoneRun:
        tags = dict(request.tags)
        key = request.partition_key or tags.get(_ONE)
        selection = None if request.asset_selection is None else list(request.asset_selection)
        done = self._definitions.resolve_job_def(request.job_name or job_name).execute_in_process(
            instance=self._instance,
            partition_key=key,
            tags=tags,
            run_config=request.run_config,
            asset_selection=selection,
            raise_on_error=False,
        )
        partitions = (key,) if key is not None else tuple(tags[tag] for tag in (_FIRST, _LAST) if tag in tags)
        assets = tuple(key.to_user_string() for key in selection or ())
        return DoneRun(done.job_def.name, done.run_id, done.success, partitions, assets)


def cron_moments(cron: str, since: datetime, now: datetime) -> Iterator[datetime]:
    """Yield the moments of (since, now] at which a cron expression of minutes and hours, UTC, is due. Pure.

    Raises ValueError for one that names days, months or weekdays, or has ranges.
    """
    minute, hour, *days = cron.split()
    if days != ["*", "*", "*"]:
        raise ValueError(f"{cron!r} names days: only minutes and hours are read here")
    minutes, hours = _numbers(minute, 60), _numbers(hour, 24)
    moment = since.astimezone(UTC).replace(second=0, microsecond=0) + MINUTE
    while moment <= now:
        if moment.minute in minutes and moment.hour in hours:
            yield moment
        moment += MINUTE


def _numbers(text: str, end: int) -> set[int]:
    if text == "*":
        return set(range(end))
    if text.startswith("*/"):
        return set(range(0, end, int(text[2:])))
    return {int(part) for part in text.split(",")}
