"""The plan of a demo's past, and the runs that it launches."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import StartFailed
from kalshi_platform.lab.demo.dagster_runs import DagsterRefused, DagsterRuns
from kalshi_platform.lab.demo.past import PATIENCE_S, DemoPast
from kalshi_platform.lab.demo.plan import CATCH_UP_S, DAY, SETTLED, PastPlan
from kalshi_platform.market.times import HOUR
from kalshi_platform_tests.fixtures.clocks import FakeClock

MOMENTS = st.datetimes(datetime(2026, 1, 2), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(MOMENTS)
def test_past_holds_the_end_of_a_day_whose_next_hour_is_over_and_is_caught_up_in_time(now: datetime) -> None:
    plan = PastPlan.of(now)
    first, last = plan.first_hours
    assert first == plan.begin == plan.day + 22 * HOUR
    assert last == plan.day + DAY
    assert last + HOUR + SETTLED <= now
    assert now - plan.begin <= timedelta(hours=27, minutes=6)
    assert (now - plan.begin).total_seconds() / plan.speed(now) <= CATCH_UP_S + 0.001


@given(MOMENTS)
def test_hours_of_a_past_are_closed_once_each_up_to_the_last_that_is_over(now: datetime) -> None:
    plan = PastPlan.of(now)
    others = plan.other_hours(now)
    last = plan.first_hours[1]
    if others is not None:
        assert others[0] == last + HOUR
        last = others[1]
    assert last + HOUR + SETTLED <= now < last + 2 * HOUR + SETTLED


LOST: dict[str, Any] = {"lost": True}
"""In the place of an answer: the connection ends without one."""
NO_RUN = {"data": {"runsOrError": {"__typename": "Runs", "results": []}}}
LAUNCHED = {"data": {"launchRun": {"__typename": "LaunchRunSuccess", "run": {"runId": "r1"}}}}


class Webserver(BaseHTTPRequestHandler):
    """Answers as Dagster's webserver would, one answer after the other; keeps what was asked."""

    answers: list[dict[str, Any]]
    asked: list[dict[str, Any]]

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.asked.append(json.loads(self.rfile.read(length))["variables"])
        answer = self.answers.pop(0)
        if answer == LOST:
            return
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 - the name that http.server calls it by


@pytest.fixture
def webserver() -> Iterator[tuple[DagsterRuns, type[Webserver]]]:
    handler = type("Handler", (Webserver,), {"answers": [], "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield DagsterRuns(f"http://127.0.0.1:{server.server_port}", FakeClock()), handler
    server.shutdown()
    server.server_close()


def test_run_over_a_range_is_launched_as_a_batch_and_waited_for(
    webserver: tuple[DagsterRuns, type[Webserver]],
) -> None:
    runs, server = webserver
    server.answers += [
        {"data": {"launchRun": {"__typename": "LaunchRunSuccess", "run": {"runId": "r1"}}}},
        {"data": {"runOrError": {"status": "STARTED"}}},
        {"data": {"runOrError": {"status": "SUCCESS"}}},
    ]
    assert runs.launch("close_hours", ["lake/tables"], ("a", "b")) == "r1"
    assert runs.wait("r1", threading.Event())
    params = server.asked[0]["params"]
    assert params["selector"]["assetSelection"] == [{"path": ["lake", "tables"]}]
    assert {each["key"]: each["value"] for each in params["executionMetadata"]["tags"]} == {
        "kalshi/kind": "batch",
        "dagster/asset_partition_range_start": "a",
        "dagster/asset_partition_range_end": "b",
    }


def test_run_that_dagster_does_not_launch_or_that_fails_is_told(
    webserver: tuple[DagsterRuns, type[Webserver]],
) -> None:
    runs, server = webserver
    server.answers += [
        {"data": {"launchRun": {"__typename": "InvalidSubsetError", "message": "no such asset"}}},
        {"data": {"runOrError": {"status": "FAILURE"}}},
        {"errors": [{"message": "syntax"}]},
    ]
    with pytest.raises(DagsterRefused, match="no such asset"):
        runs.launch("close_hours")
    assert not runs.wait("r1", threading.Event())
    with pytest.raises(DagsterRefused, match="syntax"):
        runs.status("r1")
    with pytest.raises(DagsterRefused, match="does not answer"):
        DagsterRuns("http://127.0.0.1:1", SYSTEM_CLOCK).status("r1")


def launches(server: type[Webserver]) -> list[dict[str, Any]]:
    """The launches that the webserver was asked for."""
    return [asked["params"] for asked in server.asked if "params" in asked]


def found(status: str) -> dict[str, Any]:
    """Dagster's answer to the search of a launch's run."""
    return {"data": {"runsOrError": {"__typename": "Runs", "results": [{"runId": "r1", "status": status}]}}}


def test_run_whose_launch_got_no_answer_is_found_and_not_launched_twice(
    webserver: tuple[DagsterRuns, type[Webserver]],
) -> None:
    runs, server = webserver
    server.answers += [NO_RUN, LOST, LOST, found("STARTED")]
    assert runs.launch_surely("close_hours", (), ("a", "b"), threading.Event(), 60.0) == "r1"
    (launch,) = launches(server)
    request = {each["key"]: each["value"] for each in launch["executionMetadata"]["tags"]}["kalshi/demo_request"]
    assert server.asked[-1]["filter"] == {"tags": [{"key": "kalshi/demo_request", "value": request}]}


def test_run_that_was_made_and_never_starts_is_launched_again(
    webserver: tuple[DagsterRuns, type[Webserver]],
) -> None:
    runs, server = webserver
    server.answers += [NO_RUN, LOST, found("NOT_STARTED"), LAUNCHED]
    assert runs.launch_surely("close_hours", (), None, threading.Event(), 60.0) == "r1"
    assert len(launches(server)) == 2


def test_launch_that_dagster_refuses_throughout_is_given_up_with_its_reason(
    webserver: tuple[DagsterRuns, type[Webserver]],
) -> None:
    runs, server = webserver
    refusal = {"data": {"launchRun": {"__typename": "InvalidSubsetError", "message": "no such asset"}}}
    server.answers += [NO_RUN, refusal] * 3
    with pytest.raises(DagsterRefused, match="no such asset"):
        runs.launch_surely("close_hours", (), None, threading.Event(), 10.0)
    assert not server.answers


def test_run_that_dagster_does_not_show_for_a_while_is_waited_for(
    webserver: tuple[DagsterRuns, type[Webserver]],
) -> None:
    runs, server = webserver
    server.answers += [LOST, LOST, {"data": {"runOrError": {"status": "SUCCESS"}}}]
    assert runs.wait("r1", threading.Event(), 60.0)
    server.answers += [LOST, LOST]
    with pytest.raises(DagsterRefused, match="does not answer"):
        runs.wait("r1", threading.Event(), 1.0)


class StackWithoutRuns:
    """A stack whose gatherers never become runs."""

    def is_hosted_by_run(self, gatherer: str) -> bool:
        return gatherer == ""


def test_take_over_that_does_not_come_is_said_and_what_follows_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    past = DemoPast(tmp_path, said.append, FakeClock())
    stop, stack = threading.Event(), cast("Any", StackWithoutRuns())

    def hand_over(stack: Any, stop: threading.Event) -> bool:
        return past._wait(lambda: "the run of g1", lambda: stack.is_hosted_by_run("g1"), stop)

    monkeypatch.setattr(past, "_hand_over", hand_over)
    past._guarded(past._take_over, stack, stop)
    assert f"waited {PATIENCE_S:.0f} s in vain for the run of g1" in said[-1]
    assert past._take_over_ended.is_set()
    with pytest.raises(StartFailed, match="in vain"):
        past._take_over(stack, stop)
    stop.set()
    assert not past._wait(lambda: "anything", lambda: False, stop)
