"""Alerts: the message, what is sent once an hour, and a receiver that is away, refuses, or is slow."""

from __future__ import annotations

import html
import json
import logging
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import ConnectionLost, RequestRejected
from kalshi_platform.monitoring.alerts.alert import KINDS, Alert, DueAlert
from kalshi_platform.monitoring.alerts.alert_store import KEPT_FOR, LocalAlertStore
from kalshi_platform.monitoring.alerts.health_watch import DEGRADED_FOR_S, UNHEALTHY_FOR_S, HealthWatch
from kalshi_platform.monitoring.alerts.sender import AlertSender, send_test
from kalshi_platform.monitoring.alerts.slack import slack_message
from kalshi_platform.monitoring.alerts.webhook import Webhook
from kalshi_platform.monitoring.settings import AlertSettings
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.webhook import PATH, running_receiver, slack_refusal

AT = datetime(2026, 11, 30, 10, 0, tzinfo=UTC)
MINUTE_S = 60.0


def alert(kind: str = "gap", subject: str = "gatherer/g1", text: str = "lost", at: datetime = AT) -> Alert:
    return Alert(kind, subject, text, at)


def settings(url: str | None, **changes: Any) -> AlertSettings:
    return AlertSettings(webhook_url=url, spacing_s=0.0, first_pause_s=0.05, **changes)


# -- the message


@given(kind=st.sampled_from(sorted(KINDS)), subject=st.text(), text=st.text(max_size=300), repeat=st.integers(0, 200))
@example(kind="gap", subject="<!channel>", text="a & b < c > d &amp; <@U1>", repeat=1)
@example(kind="book_proof", subject="&" * 5_000, text="\ud800<&>\x00\u202e" * 1_000, repeat=10)
def test_message_of_any_text_is_one_that_slack_takes(kind: str, subject: str, text: str, repeat: int) -> None:
    message = slack_message(DueAlert(alert(kind, subject, text * repeat), 3), "host")
    assert slack_refusal(json.dumps(message).encode()) is None


def test_message_says_kind_subject_text_time_and_where_it_is_explained() -> None:
    text = slack_message(DueAlert(alert("gap", text="expected 5 <, got 7"), 14), "deduplicator on m1")["text"]
    assert html.unescape(text) == (
        ":information_source: *gap* gatherer/g1\nexpected 5 <, got 7\n"
        "info, 2026-11-30 10:00:00 UTC, raised 14 times since the last message, from deduplicator on m1;"
        " see docs/operations.md, section 3.3"
    )


def test_message_holds_no_password_of_a_url() -> None:
    due = DueAlert(alert(text="no route to postgresql://kalshi:hunter2@db/x"))
    assert "hunter2" not in json.dumps(slack_message(due, "host"))


@pytest.mark.parametrize(
    "message",
    [
        {"text": "a", "blocks": []},
        {"text": "a", "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "b" * 3_001}}]},
        {"text": "<!channel>", "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "b"}}]},
        {"text": "a & b", "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "b"}}]},
        {"text": "a", "blocks": [{"type": "paragraph", "text": "b"}]},
        {"text": "a", "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "b"}}], "username": "c"},
    ],
)
def test_receiver_refuses_what_slack_refuses(message: dict[str, Any]) -> None:
    assert slack_refusal(json.dumps(message).encode()) is not None


# -- once an hour


def test_store_gives_a_kind_and_subject_once_an_hour_and_counts_the_rest(tmp_path: Path) -> None:
    clock = FakeClock(AT)
    store = LocalAlertStore(tmp_path / "alerts.json", clock)
    store.record([alert(), alert(), alert("error"), alert(subject="gatherer/g2")])
    due = store.claim(10)
    assert sorted((each.alert.key, each.times) for each in due) == [
        (("error", "gatherer/g1"), 1), (("gap", "gatherer/g1"), 2), (("gap", "gatherer/g2"), 1),
    ]  # fmt: skip
    for each in due:
        store.mark_sent(each)
    clock.step(59 * MINUTE_S)
    # Another process on the same folder: a restart.
    store = LocalAlertStore(tmp_path / "alerts.json", clock)
    store.record([alert(text="again"), alert(text="again")])
    assert (store.claim(10), store.count_waiting()) == ([], 0)
    clock.step(2 * MINUTE_S)
    store.record([alert(text="and again", at=clock.now())])
    assert [(each.alert.text, each.times) for each in store.claim(10)] == [("and again", 3)]


def test_store_keeps_what_waits_over_a_restart_and_gives_it_up_after_a_day(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock(AT)
    LocalAlertStore(tmp_path / "alerts.json", clock).record([alert()])
    store = LocalAlertStore(tmp_path / "alerts.json", clock)
    assert [each.alert for each in store.claim(10)] == [alert()]
    clock.step(KEPT_FOR.total_seconds() + 1)
    store.record([alert("error", at=clock.now())])
    assert [each.alert.kind for each in store.claim(10)] == ["error"]
    assert "alerts_given_up count=1" in caplog.text


def test_store_of_a_clock_that_was_set_back_silences_nothing() -> None:
    clock = FakeClock(AT)
    store = LocalAlertStore(None, clock)
    store.record([alert()])
    store.mark_sent(store.claim(1)[0])
    clock.set_wall(-5 * 3600)
    store.record([alert(at=clock.now())])
    assert store.count_waiting() == 1


@pytest.mark.parametrize("content", [b"", b"{}", b'[{"alert": 1}]', b"\xff"])
def test_store_whose_file_cannot_be_read_begins_empty(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "alerts.json").write_bytes(content)
    store = LocalAlertStore(tmp_path / "alerts.json", FakeClock(AT))
    store.record([alert()])
    assert store.count_waiting() == 1


def test_store_that_cannot_be_written_works_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    store = LocalAlertStore(tmp_path / "file" / "alerts.json", FakeClock(AT))
    store.record([alert()])
    store.mark_sent(store.claim(1)[0])
    store.record([alert()])
    assert (store.count_waiting(), "alerts_not_kept" in caplog.text) == (0, True)


# -- health


def test_health_that_stays_bad_is_an_alert_once_an_hour() -> None:
    watch = HealthWatch()
    found = [
        (now, kind)
        for now in range(0, 8_000, 5)
        for kind, _ in watch.update(["no data"], ["the journal is 80 % full"], float(now))
    ]
    assert found == [
        (UNHEALTHY_FOR_S, "service_unhealthy"),
        (DEGRADED_FOR_S, "service_degraded"),
        (UNHEALTHY_FOR_S + 3_600, "service_unhealthy"),
        (DEGRADED_FOR_S + 3_600, "service_degraded"),
        (UNHEALTHY_FOR_S + 7_200, "service_unhealthy"),
        (DEGRADED_FOR_S + 7_200, "service_degraded"),
    ]


def test_health_that_recovers_in_time_is_no_alert() -> None:
    watch = HealthWatch()
    for now in range(0, 2_000, 10):
        reasons = [] if now % int(UNHEALTHY_FOR_S) == 0 else ["no data"]
        assert not list(watch.update(reasons, [], float(now)))


# -- delivery


def test_sender_delivers_each_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with running_receiver() as receiver:
        store = LocalAlertStore(None, SYSTEM_CLOCK)
        for _ in range(2):  # two lives of a process
            sender = AlertSender(settings(receiver.url), store, SYSTEM_CLOCK, "gatherer/g1")
            sender.start()
            for kind in ("gap", "gap", "error", "gap"):
                sender.send(kind, "gatherer/g1", "lost")
            assert sender.close(30)
    assert sorted(receiver.kinds()) == ["error", "gap"]
    assert "alert_delivered" in caplog.text
    assert PATH not in caplog.text


def test_sender_without_webhook_or_below_the_least_severity_does_nothing() -> None:
    sender = AlertSender(settings(None), LocalAlertStore(None, SYSTEM_CLOCK), SYSTEM_CLOCK, "gatherer/g1")
    sender.start()
    sender.send("gap", "gatherer/g1", "lost")
    assert (sender.close(0), sender.waiting) == (True, 0)
    with running_receiver() as receiver:
        store = LocalAlertStore(None, SYSTEM_CLOCK)
        sender = AlertSender(settings(receiver.url, least_severity="error"), store, SYSTEM_CLOCK, "gatherer/g1")
        sender.start()
        for kind in ("gap", "clock_offset", "price_scale"):
            sender.send(kind, "gatherer/g1", "text")
        assert sender.close(30)
        assert receiver.kinds() == ["price_scale"]


def test_alert_that_another_process_recorded_below_the_least_severity_is_not_sent() -> None:
    store = LocalAlertStore(None, SYSTEM_CLOCK)
    store.record([alert(kind, at=SYSTEM_CLOCK.now()) for kind in ("gap", "clock_offset", "price_scale")])
    with running_receiver() as receiver:
        sender = AlertSender(settings(receiver.url, least_severity="error"), store, SYSTEM_CLOCK, "dagster")
        sender.start()
        assert sender.close(30)
        assert (receiver.kinds(), store.count_waiting()) == (["price_scale"], 0)


class ClaimedElsewhere(LocalAlertStore):
    """Gives each alert once, as if another process then had it; `waiting` of them are not delivered yet."""

    def __init__(self, clock: FakeClock, waiting: int) -> None:
        super().__init__(None, clock)
        self.waiting = waiting
        self.claims = 0
        self.claimed_often = threading.Event()

    def claim(self, limit: int) -> list[DueAlert]:
        self.claims += 1
        if self.claims >= 10:
            self.claimed_often.set()
        return super().claim(limit) if self.claims == 1 else []

    def count_waiting(self) -> int:
        return self.waiting


@pytest.mark.parametrize(("waiting", "pause_s"), [(0, 5.0), (1, 1.0)])
def test_sender_polls_slowly_after_a_failure_whose_alert_another_process_delivers(waiting: int, pause_s: float) -> None:
    clock = FakeClock(AT)
    store = ClaimedElsewhere(clock, waiting)
    with running_receiver() as receiver:
        receiver.answers = [500]
        sender = AlertSender(
            AlertSettings(webhook_url=receiver.url, spacing_s=0.0), store, clock, "dagster", poll_s=5.0
        )
        sender.send("gap", "gatherer/g1", "lost")
        sender.start()
        assert store.claimed_often.wait(60)
        sender.close(30)
    assert min(clock.waits[1:]) == pause_s


def test_sender_whose_webhook_is_away_says_so_and_delivers_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_receiver() as receiver:
        receiver.answers = [503, 404]
        sender = AlertSender(
            settings(receiver.url), LocalAlertStore(tmp_path / "a.json", SYSTEM_CLOCK), SYSTEM_CLOCK, "gatherer/g1"
        )
        sender.start()
        sender.send("gap", "gatherer/g1", "lost")
        receiver.wait_for(requests=1)
        sender.send("gap", "gatherer/g1", "lost again")
        receiver.wait_for(messages=1)
        assert sender.close(30)
        assert receiver.requests == 3
        [message] = receiver.messages
    assert "raised 2 times since the last message" in message["text"]
    assert 'alert_not_delivered owner=gatherer/g1 error="the webhook answers HTTP 503: no_service"' in caplog.text
    assert PATH not in caplog.text


def test_sender_at_its_end_with_the_webhook_away_leaves_what_waits_for_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "alerts.json"
    with running_receiver() as receiver:
        url = receiver.url
    sender = AlertSender(settings(url), LocalAlertStore(path, SYSTEM_CLOCK), SYSTEM_CLOCK, "gatherer/g1")
    sender.start()
    sender.send("gap", "gatherer/g1", "lost")
    assert not sender.close(30)
    [problem] = sender.problems()
    assert problem.startswith("1 alerts are not delivered: the webhook is not reached: ")
    with running_receiver() as receiver:
        sender = AlertSender(settings(receiver.url), LocalAlertStore(path, SYSTEM_CLOCK), SYSTEM_CLOCK, "gatherer/g1")
        sender.start()
        receiver.wait_for(messages=1)
        assert sender.close(30)
        assert (sender.problems(), receiver.kinds()) == ([], ["gap"])


def test_message_that_the_receiver_refuses_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    with running_receiver() as receiver:
        receiver.answers = [400]
        sender = AlertSender(settings(receiver.url), LocalAlertStore(None, SYSTEM_CLOCK), SYSTEM_CLOCK, "gatherer/g1")
        sender.send("gap", "gatherer/g1", "lost")
        sender.send("error", "gatherer/g1", "code 1")
        sender.start()
        assert sender.close(30)
        assert len(receiver.kinds()) == 1
    assert "alert_refused" in caplog.text


def test_flood_of_alerts_is_bounded_and_said(caplog: pytest.LogCaptureFixture) -> None:
    sender = AlertSender(
        settings("http://127.0.0.1:9/x"), LocalAlertStore(None, FakeClock()), FakeClock(), "gatherer/g1"
    )
    for number in range(1_010):
        sender.send("gap", f"gatherer/{number}", "lost")
    assert caplog.text.count("alerts_given_up") == 10


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, RequestRejected), (403, ConnectionLost), (404, ConnectionLost), (410, ConnectionLost), (429, ConnectionLost),
     (500, ConnectionLost), (302, ConnectionLost)],
)  # fmt: skip
def test_answer_of_the_receiver_says_whether_to_try_again(status: int, error: type[Exception]) -> None:
    with running_receiver() as receiver:
        receiver.answers = [status]
        receiver.headers = {"Retry-After": "30", "Location": receiver.url}
        with pytest.raises(error, match=f"HTTP {status}") as raised:
            Webhook(settings(receiver.url)).post({"text": "a"})
        assert PATH not in str(raised.value)
        assert receiver.requests == 1
        assert getattr(raised.value, "retry_after_s", 30) == 30


def test_test_message_arrives() -> None:
    with running_receiver() as receiver:
        send_test(settings(receiver.url), SYSTEM_CLOCK)
        assert receiver.kinds() == ["alert_test"]


def test_pause_of_a_sender_grows_with_each_failure_and_obeys_the_receiver() -> None:
    clock = FakeClock(AT)
    with running_receiver() as receiver:
        receiver.answers = [500, 500, 429]
        receiver.headers = {"Retry-After": "120"}
        sender = AlertSender(settings(receiver.url), LocalAlertStore(None, clock), clock, "gatherer/g1")
        sender.send("gap", "gatherer/g1", "lost")
        sender.start()
        receiver.wait_for(messages=1)
        assert sender.close(30)
    # The fake clock moves by what the thread waits: the receiver names 120 s each time.
    assert clock.now() - AT >= timedelta(seconds=3 * 120)
