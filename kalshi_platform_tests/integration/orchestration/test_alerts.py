"""Alarms that reach people: one of every kind, by its own way, in a form that Slack takes, and once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close.close_store import replace_alarms
from kalshi_platform.deduplicator.merge.alarms import raise_alarm
from kalshi_platform.gatherer.status.alarms import Alarms
from kalshi_platform.monitoring.alerts.alert import KINDS
from kalshi_platform.monitoring.alerts.alert_store import LocalAlertStore
from kalshi_platform.monitoring.alerts.health_watch import HealthWatch
from kalshi_platform.monitoring.alerts.sender import AlertSender, send_test
from kalshi_platform.monitoring.settings import AlertSettings
from kalshi_platform.orchestration.sensors.alerts import ServiceWatch, send_alerts, send_run_failure
from kalshi_platform.orchestration.services import Service
from kalshi_platform.storage.alert_store import deliver_waiting, open_alert_sender
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.storage import MigratedTemplate
from kalshi_platform_tests.fixtures.webhook import Receiver, running_receiver

HOUR = datetime(2026, 11, 30, 10, tzinfo=UTC)
CHECKED = dg.AssetKey(["production", "trades"])
PATIENT_S = 30.0


@dataclass
class Receiving:
    """A production database, and a webhook that alerts of it go to."""

    production: Database
    receiver: Receiver
    settings: AlertSettings
    instance: dg.DagsterInstance

    @contextmanager
    def sender(self, database: Database | None = None) -> Iterator[AlertSender]:
        """A process that sends alerts of production, from its start to its end."""
        sender = open_alert_sender(self.settings, database or self.production, SYSTEM_CLOCK, "dagster")
        sender.start()
        yield sender
        assert sender.close(PATIENT_S)

    def raise_in_merge(self, kind: str, subject: str = "g1") -> None:
        with self.production.transaction() as transaction:
            raise_alarm(transaction, kind, subject, "batch 7 is not there")

    def deliver(self) -> None:
        """What a close does at its end."""
        deliver_waiting(self.settings, self.production, SYSTEM_CLOCK)

    def change(self, statement: str, *parameters: object) -> None:
        with self.production.transaction() as transaction:
            transaction.execute(statement, parameters)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.production.transaction() as transaction:
            return transaction.fetch_all(query)


@pytest.fixture
def receiving(
    database_factory: DatabaseFactory, migrated_template: MigratedTemplate, tmp_path: Path
) -> Iterator[Receiving]:
    """Production is migrated and empty."""
    production = Database(database_factory(migrated_template("production")), name="production")
    with running_receiver() as receiver, dg.DagsterInstance.ephemeral() as instance:
        settings = AlertSettings(webhook_url=receiver.url, folder=tmp_path, spacing_s=0.0, first_pause_s=0.05)
        yield Receiving(production, receiver, settings, instance)
    production.dispose()


@dg.job
def broken() -> None:
    @dg.op
    def fail() -> None:
        raise dg.Failure(description="settings are missing or wrong: <none> & nothing")

    fail()


def failure_of(instance: dg.DagsterInstance, job: dg.JobDefinition) -> dg.RunFailureSensorContext:
    """What Dagster hands to a run-failure sensor."""
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    [event] = [each for each in result.all_events if each.event_type is dg.DagsterEventType.RUN_FAILURE]
    return dg.build_run_status_sensor_context(
        sensor_name="run_failure_alerts", dagster_instance=instance, dagster_run=run, dagster_event=event
    ).for_run_failure()


class EveryKind:
    """Raises one alarm of a kind by its way; each call is a process of its own."""

    def __init__(self, receiving: Receiving) -> None:
        self.receiving = receiving
        self.failure = failure_of(receiving.instance, broken)

    def raise_one(self, kind: str) -> None:
        by_section: dict[str, Callable[[str], None]] = {
            "3.3": self._of_gatherer, "7.2": self._of_merge, "7.3": self._of_close, "7.6": self._of_dagster,
        }  # fmt: skip
        by_section[KINDS[kind].section](kind)

    def _of_gatherer(self, kind: str) -> None:
        settings = self.receiving.settings
        assert settings.folder is not None
        store = LocalAlertStore(settings.folder / "g1" / "alerts.json", SYSTEM_CLOCK)
        sender = AlertSender(settings, store, SYSTEM_CLOCK, "gatherer/g1")
        sender.start()
        Alarms("gatherer/g1", sender).raise_alarm(kind, "books-0: expected 5, got 7")
        assert sender.close(PATIENT_S)

    def _of_merge(self, kind: str) -> None:
        self.receiving.raise_in_merge(kind)
        self.receiving.deliver()

    def _of_close(self, kind: str) -> None:
        with self.receiving.production.transaction() as transaction:
            replace_alarms(transaction, HOUR, [(kind, f"MARKET-{n:02}", "does not come out") for n in range(20)])
        self.receiving.deliver()

    def _of_dagster(self, kind: str) -> None:
        match kind:
            case "run_failed":
                with self.receiving.sender() as sender:
                    send_run_failure(self.failure, lambda: sender)
            case "check_failed" | "service_not_alive":
                self.tick(kind)
            case "service_unhealthy" | "service_degraded":
                watch = HealthWatch()
                bad = ["no data for 120 s"]
                reasons, troubles = (bad, []) if kind == "service_unhealthy" else ([], bad)
                with self.receiving.sender() as sender:
                    for now_s in (0.0, 1_000.0):
                        for found, text in watch.update(reasons, troubles, now_s):
                            sender.send(found, "deduplicator", text)
            case "alert_test":
                send_test(self.receiving.settings, SYSTEM_CLOCK)
            case _:
                pytest.fail(f"say how {kind} is raised")

    def tick(self, kind: str) -> None:
        """Some ticks of the sensor, a quarter of a minute apart."""
        clock = FakeClock(SYSTEM_CLOCK.now())
        watch = ServiceWatch(clock)
        service = Service("deduplicator", "dedup_live", None, self.receiving.production.url, None)
        loaders = [lambda: service] if kind == "service_not_alive" else []
        cursor: str | None = None
        with self.receiving.sender() as sender:
            for number in range(14):
                context = dg.build_sensor_context(instance=self.receiving.instance, cursor=cursor)
                cursor = send_alerts(context, lambda: sender, watch, loaders).cursor
                clock.step(15.0)
                if kind == "check_failed" and number == 0:
                    evaluate_check(self.receiving.instance, passed=False)
        watch.close()


def evaluate_check(
    instance: dg.DagsterInstance,
    *,
    passed: bool,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    asset: dg.AssetKey = CHECKED,
) -> None:
    evaluation = dg.AssetCheckEvaluation(
        asset_key=asset, check_name="no_duplicate_trade_ids", passed=passed, severity=severity,
        metadata={"duplicates": 3},
    )  # fmt: skip
    instance.report_runless_asset_event(evaluation)


def test_one_alarm_of_each_kind_arrives_once_in_the_form_that_slack_takes(receiving: Receiving) -> None:
    every = EveryKind(receiving)
    for kind in KINDS:
        every.raise_one(kind)
        if kind != "alert_test":
            every.raise_one(kind)
    receiver = receiving.receiver
    assert (sorted(receiver.kinds()), receiver.refusals) == (sorted(KINDS), [])
    texts = dict(zip(receiver.kinds(), (message["text"] for message in receiver.messages), strict=True))
    assert f"hour {HOUR:%Y-%m-%dT%H}\nMARKET-00: does not come out\n" in texts["book_proof"]
    assert "and 15 more, in the table close_alarms" in texts["book_proof"]
    assert "settings are missing or wrong: &lt;none&gt; &amp; nothing" in texts["run_failed"]
    assert "no heartbeat is found" in texts["service_not_alive"]


def test_alarm_is_sent_again_after_an_hour_and_says_how_often_it_was_raised(receiving: Receiving) -> None:
    for _ in range(3):
        receiving.raise_in_merge("gatherer_restarted")
        receiving.deliver()
    assert len(receiving.receiver.messages) == 1
    receiving.change("UPDATE alerts SET sent_at = sent_at - %s", timedelta(minutes=61))
    receiving.raise_in_merge("gatherer_restarted")
    receiving.deliver()
    assert len(receiving.receiver.messages) == 2
    assert "raised 3 times since the last message" in receiving.receiver.messages[1]["text"]


def test_what_no_process_could_deliver_is_delivered_by_the_next_one(receiving: Receiving) -> None:
    receiving.receiver.answers = [500] * 3
    receiving.raise_in_merge("rows_refused")
    receiving.deliver()
    assert receiving.receiver.messages == []
    rows = receiving.rows("SELECT is_waiting, last_error, claimed_until FROM alerts")
    assert rows == [(True, "the webhook answers HTTP 500: no_service", None)]
    receiving.receiver.answers = []
    with receiving.sender():
        receiving.receiver.wait_for(messages=1)
    assert receiving.rows("SELECT is_waiting, times FROM alerts") == [(False, 0)]


def test_alarm_claimed_by_one_process_is_not_sent_by_another(receiving: Receiving) -> None:
    claim = "UPDATE alerts SET claimed_until = clock_timestamp() + %s"
    receiving.raise_in_merge("rows_refused")
    receiving.change(claim, timedelta(minutes=2))
    receiving.deliver()
    assert receiving.receiver.messages == []
    receiving.change(claim, timedelta(seconds=-1))  # it died
    receiving.deliver()
    assert receiving.receiver.kinds() == ["rows_refused"]


def test_alarms_while_production_is_away_are_sent_once_from_this_host(receiving: Receiving) -> None:
    away = Database(receiving.production.url.rsplit("/", 1)[0] + "/no_such_database", name="production")
    for _ in range(2):  # two lives of a process
        with receiving.sender(away) as sender:
            sender.send("service_unhealthy", "deduplicator", "production away")
    away.dispose()
    with receiving.sender() as sender:  # it is back within the hour
        for kind in ("service_unhealthy", "service_degraded"):
            sender.send(kind, "deduplicator", "the catalogs are not merged")
    assert sorted(receiving.receiver.kinds()) == ["service_degraded", "service_unhealthy"]


def test_passing_and_old_checks_and_a_service_that_is_switched_off_are_no_alarm(receiving: Receiving) -> None:
    instance = receiving.instance
    receiving.change("INSERT INTO service_switches (service, enabled) VALUES ('deduplicator', false)")
    EveryKind(receiving).tick("service_not_alive")
    evaluate_check(instance, passed=False)  # before the first tick
    watch = ServiceWatch()
    with receiving.sender() as sender:
        first = send_alerts(dg.build_sensor_context(instance), lambda: sender, watch, [])
        evaluate_check(instance, passed=True)
        evaluate_check(instance, passed=False, severity=dg.AssetCheckSeverity.WARN)
        second = send_alerts(dg.build_sensor_context(instance, cursor=first.cursor), lambda: sender, watch, [])
    watch.close()
    assert receiving.receiver.messages == []
    assert "0 failed checks since the last tick" in str(second.skip_reason)


def test_check_that_fails_for_several_assets_at_once_is_one_alarm_that_names_them(receiving: Receiving) -> None:
    instance, watch = receiving.instance, ServiceWatch()
    evaluate_check(instance, passed=True)
    with receiving.sender() as sender:
        first = send_alerts(dg.build_sensor_context(instance), lambda: sender, watch, [])
        for name in ("trades", "tickers", "events", "series", "markets"):
            evaluate_check(instance, passed=False, asset=dg.AssetKey(["production", name]))
        send_alerts(dg.build_sensor_context(instance, cursor=first.cursor), lambda: sender, watch, [])
    watch.close()
    (message,) = receiving.receiver.messages
    assert "no_duplicate_trade_ids" in message["text"]
    assert (
        "5 assets: production/events, production/markets, production/series, production/tickers, production/trades"
        in message["text"]
    )
    assert "production/trades: duplicates 3" in message["text"]


def test_sensors_without_a_webhook_skip_and_say_so(receiving: Receiving) -> None:
    idle = open_alert_sender(AlertSettings(), receiving.production, SYSTEM_CLOCK, "dagster")
    watch = ServiceWatch()
    result = send_alerts(dg.build_sensor_context(receiving.instance), lambda: idle, watch, [])
    skipped = send_run_failure(failure_of(receiving.instance, broken), lambda: idle)
    watch.close()
    for reason in (result.skip_reason, skipped):
        assert "KALSHI_ALERT_WEBHOOK_URL is not set" in str(reason)
