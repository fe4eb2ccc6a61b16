"""Sensors that send alerts of what only Dagster sees: failed runs, failed checks, services that are not alive.

They also deliver what the merge and closes left in production's table `alerts`, where those have no webhook or could
not reach it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import dagster as dg

from kalshi_platform import config
from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.monitoring.alerts.alert import CHECK_FAILED, RUN_FAILED, SERVICE_NOT_ALIVE
from kalshi_platform.monitoring.alerts.sender import AlertSender
from kalshi_platform.orchestration.failures import describe_problems
from kalshi_platform.orchestration.services import (
    Service,
    load_deduplicator_service,
    load_gatherer_service,
    load_services,
)
from kalshi_platform.orchestration.supervision.age_tracker import AgeTracker
from kalshi_platform.orchestration.supervision.liveness import LivenessProbe, latest_heartbeat
from kalshi_platform.storage.alert_store import open_alert_sender
from kalshi_platform.storage.pool import Database

NOT_ALIVE_AFTER_S = 75.0
"""A service is launched again within seconds of its end, and its last heartbeat may be 45 s old by then."""
NOT_SEEN_AFTER_S = 180.0
"""The first start of a platform takes longer: 95 s from the sensors' first tick on a machine with 30 jobs a core."""
_EVENTS_AT_ONCE = 500
_NAMED_AT_MOST = 3
_INTERRUPTED = "DagsterExecutionInterruptedError"
_SWITCHED_OFF = "KALSHI_ALERT_WEBHOOK_URL is not set: no alarm is sent to anybody"


class _Senders:
    """The sender of this process, made when it is used first: it keeps connections and a thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sender: AlertSender | None = None

    def get(self) -> AlertSender:
        """Return the sender. Raises ConfigurationError."""
        with self._lock:
            if self._sender is None:
                database = Database(
                    config.load_production_url(), name="production", application="kalshi-platform alerts", pool_size=1
                )
                self._sender = open_alert_sender(config.load_alerts(), database, SYSTEM_CLOCK, "dagster", poll_s=5.0)
                self._sender.start()
            return self._sender


class ServiceWatch:
    """Finds services that are switched on and give no sign of life. Keeps connections between ticks."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._probe = LivenessProbe()
        self._ages = AgeTracker(clock)

    def find_silent(self, services: Sequence[Service]) -> Iterator[tuple[str, str]]:
        """Yield name and text of each service that is not alive."""
        self._ages.start_round()
        for name, probed in self._probe.probe(services, deadline_s=5.0).items():
            service = next(each for each in services if each.name == name)
            heartbeat = latest_heartbeat(service, probed, self._ages, self._clock)
            if probed.enabled is False:
                continue
            if heartbeat is None:
                if self._ages.supervising_s > NOT_SEEN_AFTER_S:
                    yield name, "no heartbeat is found in its database or on this host"
            elif heartbeat.age_s <= NOT_ALIVE_AFTER_S:
                continue
            elif heartbeat.stopped:
                yield name, f"it has been {heartbeat.state} for {heartbeat.age_s:.0f} s, and its switch is on"
            else:
                yield name, f"its last heartbeat is {heartbeat.age_s:.0f} s old (state {heartbeat.state})"

    def close(self) -> None:
        """Let go of threads and connections."""
        self._probe.close()


def make_alert_sensors(gatherers: Sequence[str]) -> list[dg.SensorDefinition]:
    """Make both sensors; `gatherers` are the names whose services are watched, beside the deduplicator."""
    senders = _Senders()
    watch = ServiceWatch()
    loaders: list[Callable[[], Service]] = [partial(load_gatherer_service, name) for name in gatherers]
    loaders.append(load_deduplicator_service)

    @dg.run_failure_sensor(
        name="run_failure_alerts",
        minimum_interval_seconds=10,
        monitor_all_code_locations=True,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends an alert of every run that failed, of all code locations, to KALSHI_ALERT_WEBHOOK_URL: of "
        "one job and partition once an hour. Runs that were interrupted with their process are left out.",
    )
    def run_failures(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        return send_run_failure(context, senders.get)

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends alerts of services that are switched on and not alive, and of failed asset checks of "
        "severity ERROR; delivers what merge and closes have raised and could not send.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return send_alerts(context, senders.get, watch, loaders)

    return [run_failures, alerts]


def send_run_failure(context: dg.RunFailureSensorContext, sender: Callable[[], AlertSender]) -> dg.SkipReason | None:
    """Send an alert of a failed run."""
    run = context.dagster_run
    errors = [
        event.step_failure_data.error for event in context.get_step_failure_events() if event.step_failure_data.error
    ]
    if any(error.cls_name == _INTERRUPTED for error in errors):
        return dg.SkipReason(f"run {run.run_id} was interrupted with its process")
    try:
        sending = sender()
    except ConfigurationError as error:
        return dg.SkipReason(describe_problems(error.problems))
    if not sending.is_enabled:
        return dg.SkipReason(_SWITCHED_OFF)
    causes = [_cause(error) for error in errors] or [context.failure_event.message or "no reason was recorded"]
    text = "\n".join([*causes[:_NAMED_AT_MOST], f"run {run.run_id}"])
    sending.send(RUN_FAILED, _describe_run(run), text)
    return None


def send_alerts(
    context: dg.SensorEvaluationContext,
    sender: Callable[[], AlertSender],
    watch: ServiceWatch,
    loaders: Sequence[Callable[[], Service]],
) -> dg.SensorResult:
    """Do one tick. The cursor is the last evaluation of a check that was looked at."""
    try:
        sending = sender()
    except ConfigurationError as error:
        return dg.SensorResult(skip_reason=describe_problems(error.problems), cursor=context.cursor)
    if not sending.is_enabled:  # without a cursor: what fails meanwhile is no news when there is a webhook
        return dg.SensorResult(skip_reason=_SWITCHED_OFF)
    services, problems = load_services(loaders)
    failed, cursor = _read_failed_checks(context.instance, context.cursor)
    silent = list(watch.find_silent(services))
    for name, text in silent:
        sending.send(SERVICE_NOT_ALIVE, name, text)
    for subject, text in failed:
        sending.send(CHECK_FAILED, subject, text)
    lines = [
        f"{len(services)} services watched, {len(silent)} of them not alive",
        f"{len(failed)} failed checks since the last tick",
        *sending.problems(),
        *([describe_problems(problems)] if problems else []),
    ]
    return dg.SensorResult(skip_reason="\n".join(lines), cursor=cursor)


def _read_failed_checks(instance: dg.DagsterInstance, cursor: str | None) -> tuple[list[tuple[str, str]], str]:
    """Return subject and text for the failed checks of severity ERROR since the cursor, and the next cursor.

    A check that failed for several assets is one line of them. Without a cursor nothing is read: what failed before is
    no news.
    """
    chosen = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    if cursor is None or not cursor.isdecimal():
        newest = instance.event_log_storage.get_event_records(dg.EventRecordsFilter(chosen), limit=1)
        return [], str(newest[0].storage_id if newest else 0)
    records = instance.event_log_storage.get_event_records(
        dg.EventRecordsFilter(chosen, after_cursor=int(cursor)), limit=_EVENTS_AT_ONCE, ascending=True
    )
    found: dict[str, list[tuple[str, str]]] = {}
    for record in records:
        event = record.event_log_entry.dagster_event
        evaluation = None if event is None else event.asset_check_evaluation_data
        if evaluation is None or evaluation.passed or evaluation.severity is not dg.AssetCheckSeverity.ERROR:
            continue
        figures = ", ".join(
            f"{name} {value.value}" for name, value in evaluation.metadata.items()
            if isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue | dg.TextMetadataValue)
        )  # fmt: skip
        partition = "" if record.partition_key is None else f"partition {record.partition_key}: "
        run = f"\nrun {record.run_id}" if record.run_id else ""  # a sensor's evaluation has none
        asset = evaluation.asset_key.to_user_string()
        found.setdefault(evaluation.check_name, []).append((asset, f"{partition}{figures or 'failed'}{run}"))
    failed = [one for check, failures in found.items() for one in _describe_failures(check, failures)]
    return failed, str(records[-1].storage_id if records else int(cursor))


def _describe_failures(check: str, failures: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield subject and text of what one check found: of one asset each failure, of several assets one list."""
    assets = sorted({asset for asset, _ in failures})
    if len(assets) == 1:
        yield from ((f"{asset} {check}", text) for asset, text in failures)
        return
    lines = [f"{len(assets)} assets: {', '.join(assets)}"]
    lines += [f"{asset}: {text.replace(chr(10), ', ')}" for asset, text in failures[:_NAMED_AT_MOST]]
    yield check, "\n".join(lines)


def _cause(error: object) -> str:
    """Return what failed in one line: of an error that wraps another, the one inside."""
    cause = getattr(error, "cause", None)
    inner = cause if cause is not None else error
    return str(getattr(inner, "message", inner)).strip().partition("\n")[0]


def _describe_run(run: dg.DagsterRun) -> str:
    """Name a run as people know it: its job or its assets, and its partition or range."""
    tags = run.tags
    name = run.job_name
    if name.startswith("__"):  # materialized by hand, or by a schedule of assets
        keys = sorted(key.to_user_string() for key in run.asset_selection or ())
        more = len(keys) - _NAMED_AT_MOST
        name = ", ".join([*keys[:_NAMED_AT_MOST], *([f"and {more} more"] if more > 0 else [])]) or "assets"
    first = tags.get("dagster/partition") or tags.get("dagster/asset_partition_range_start")
    last = tags.get("dagster/asset_partition_range_end")
    span = first if last is None else f"{first} to {last}"
    return f"{name} {span}" if span else name
