"""The two supervising sensors: gatherers, and the live merge."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

import dagster as dg

from kalshi_platform import config
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.orchestration.checks.freshness import freshness_evaluation
from kalshi_platform.orchestration.failures import describe_problems
from kalshi_platform.orchestration.services import (
    DEDUP_JOB,
    GATHER_JOB,
    Service,
    deduplicator_service,
    gatherer_service,
)
from kalshi_platform.orchestration.supervision.supervisor import (
    Memory,
    Observer,
    Outcome,
    supervise,
    write_supervisor_heartbeat,
)

_CHECK_EVERY = timedelta(minutes=1)


def gatherer_sensor(names: Sequence[str]) -> dg.SensorDefinition:
    """The sensor that keeps one run per gatherer alive."""
    observer = Observer()

    @dg.sensor(
        name="gatherer_sensor",
        job_name=GATHER_JOB,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Keeps exactly one gather run per gatherer alive: relaunches what died, ends what hangs, leaves alone what "
            "runs outside Dagster or is switched off (table service_switches). Says once a minute how fresh they are."
        ),
    )
    def gatherers(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _tick(context, observer, [partial(gatherer_service, name) for name in names], freshness=True)

    return gatherers


def deduplicator_sensor() -> dg.SensorDefinition:
    """The sensor that keeps the live merge alive."""
    observer = Observer()

    @dg.sensor(
        name="deduplicator_sensor",
        job_name=DEDUP_JOB,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Keeps exactly one run of the live merge alive, by the same rules as gatherer_sensor.",
    )
    def deduplicator(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _tick(context, observer, [deduplicator_service])

    return deduplicator


def _tick(
    context: dg.SensorEvaluationContext,
    observer: Observer,
    loaders: Sequence[Callable[[], Service]],
    *,
    freshness: bool = False,
) -> dg.SensorResult:
    now = SYSTEM_CLOCK.now()
    write_supervisor_heartbeat(config.state_dir(), now)
    services, problems = _configured(loaders)
    memory = Memory.load(context.cursor)
    if not services:
        return dg.SensorResult(skip_reason=describe_problems(problems), cursor=context.cursor)
    outcome = supervise(context.instance, services, memory, observer)
    events = _freshness(outcome, memory, now) if freshness else []
    words = [*outcome.words, *([describe_problems(problems)] if problems else [])]
    return dg.SensorResult(
        run_requests=outcome.requests,
        skip_reason=None if outcome.requests else "\n".join(words),
        asset_events=events,
        cursor=memory.dump(),
    )


def _configured(loaders: Sequence[Callable[[], Service]]) -> tuple[list[Service], list[str]]:
    services: list[Service] = []
    problems: dict[str, None] = {}
    for load in loaders:
        try:
            services.append(load())
        except ConfigurationError as error:
            problems.update(dict.fromkeys(error.problems))
    return services, list(problems)


def _freshness(outcome: Outcome, memory: Memory, now: datetime) -> list[dg.AssetCheckEvaluation]:
    # A clock that was set back must not silence this until it has caught up.
    if memory.checked_at is not None and abs(now - memory.checked_at) < _CHECK_EVERY:
        return []
    memory.checked_at = now
    return [freshness_evaluation(outcome.heartbeats)]
