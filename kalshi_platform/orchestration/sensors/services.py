"""The two supervising sensors: of the gatherers, and of the live merge."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

import dagster as dg

from kalshi_platform import config
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.orchestration.checks.freshness import make_freshness_evaluation
from kalshi_platform.orchestration.failures import describe_problems
from kalshi_platform.orchestration.services import (
    DEDUP_JOB,
    GATHER_JOB,
    Service,
    load_deduplicator_service,
    load_gatherer_to_launch,
    load_services,
)
from kalshi_platform.orchestration.supervision.supervisor import SensorCursor, Supervisor, write_supervisor_heartbeat

_CHECK_EVERY = timedelta(minutes=1)


def make_gatherer_sensor(names: Sequence[str]) -> dg.SensorDefinition:
    """Make the sensor that keeps one run per gatherer alive."""
    supervisor = Supervisor()

    @dg.sensor(
        name="gatherer_sensor",
        job_name=GATHER_JOB,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Keeps exactly one gather run per gatherer alive: launches a gatherer whose switch is on and whose lock "
            "nobody holds, ends runs without a heartbeat, leaves alone what runs outside Dagster or is switched off "
            "(table service_switches). A run that is terminated by hand is launched again while the switch is on: to "
            "keep a gatherer off, launch the job switch_services, or kalshi-platform switch NAME off. Checks once a "
            "minute how fresh the heartbeats are."
        ),
    )
    def gatherers(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _supervise(context, supervisor, [partial(load_gatherer_to_launch, name) for name in names], fresh=True)

    return gatherers


def make_deduplicator_sensor() -> dg.SensorDefinition:
    """Make the sensor that keeps the live merge alive."""
    supervisor = Supervisor()

    @dg.sensor(
        name="deduplicator_sensor",
        job_name=DEDUP_JOB,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Keeps exactly one run of the live merge alive, by the same rules as gatherer_sensor.",
    )
    def deduplicator(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _supervise(context, supervisor, [load_deduplicator_service])

    return deduplicator


def _supervise(
    context: dg.SensorEvaluationContext,
    supervisor: Supervisor,
    loaders: Sequence[Callable[[], Service]],
    *,
    fresh: bool = False,
) -> dg.SensorResult:
    """Do one tick for the services that are configured; `fresh`: check their heartbeats once a minute as well."""
    now = SYSTEM_CLOCK.now()
    write_supervisor_heartbeat(config.state_dir(), now)
    services, problems = load_services(loaders)
    if not services:
        return dg.SensorResult(skip_reason=describe_problems(problems), cursor=context.cursor)
    cursor = SensorCursor.load(context.cursor)
    tick = supervisor.tick(context.instance, services, cursor)
    checks = []
    if fresh and _is_check_due(cursor, now):
        cursor.checked_at = now
        checks.append(make_freshness_evaluation(tick.heartbeats))
    messages = [*tick.messages, *([describe_problems(problems)] if problems else [])]
    if tick.requests:  # a tick with requests shows no skip reason, but its log
        for message in tick.messages:
            context.log.info(message)
    return dg.SensorResult(
        run_requests=tick.requests,
        skip_reason=None if tick.requests else "\n".join(messages),
        asset_events=checks,
        cursor=cursor.dump(),
    )


def _is_check_due(cursor: SensorCursor, now: datetime) -> bool:
    # A clock that was set back must not silence the check until it has caught up.
    return cursor.checked_at is None or abs(now - cursor.checked_at) >= _CHECK_EVERY
