"""The decisions of the watchdog, and its requests to Dagster."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.local.watchdog import (
    RELOAD_MUTATION,
    Action,
    ReloadFailed,
    Watchdog,
    decide,
    reload_code_location,
)
from kalshi_platform_tests.fixtures.clocks import FakeClock


@pytest.mark.parametrize(
    ("silent_s", "last_action", "since_action_s", "expected"),
    [
        (44.9, Action.NOTHING, 1e9, Action.NOTHING),
        (45.0, Action.NOTHING, 1e9, Action.RELOAD),
        (45.0, Action.RESTART, 119.9, Action.NOTHING),  # still starting
        (45.0, Action.RESTART, 120.0, Action.RELOAD),
        (60.0, Action.RELOAD, 39.0, Action.NOTHING),  # the reload has its time
        (85.0, Action.RELOAD, 40.0, Action.RELOAD),
        (120.0, Action.RELOAD, 39.0, Action.NOTHING),
        (120.0, Action.RELOAD, 40.0, Action.RESTART),
        (500.0, Action.RESTART, 119.0, Action.NOTHING),
        (500.0, Action.RESTART, 120.0, Action.RESTART),
    ],
)
def test_decision(silent_s: float, last_action: Action, since_action_s: float, expected: Action) -> None:
    assert decide(silent_s, last_action, since_action_s) is expected


class Stack:
    """A Dagster that beats while it is healthy, and records what the watchdog does to it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.last_beat: str | None = None
        self.healthy = True
        self.readable = True
        self.done: list[tuple[Action, float]] = []
        self.begun = self.clock.monotonic()
        self.watchdog = Watchdog(self.beat, self.reload, self.restart, clock=self.clock)

    def beat(self) -> str | None:
        if not self.readable:
            raise DatabaseUnavailable("the server is away")
        return self.last_beat

    def reload(self) -> None:
        self.done.append((Action.RELOAD, self.clock.monotonic() - self.begun))
        raise ReloadFailed("no answer")

    def restart(self) -> None:
        self.done.append((Action.RESTART, self.clock.monotonic() - self.begun))

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.step(1)
            if self.healthy:
                self.last_beat = self.clock.now().isoformat()
            self.watchdog.tick()


def test_a_beating_supervisor_is_left_alone() -> None:
    stack = Stack()
    stack.run(3600)
    assert stack.done == []


def test_silence_brings_reloads_then_a_restart_then_patience() -> None:
    stack = Stack()
    stack.run(200)
    stack.healthy = False
    stack.run(250)
    assert stack.done == [(Action.RELOAD, 250), (Action.RELOAD, 290), (Action.RESTART, 330), (Action.RESTART, 450)]


def test_a_dagster_that_never_beats_gets_its_start_time_first() -> None:
    stack = Stack()
    stack.healthy = False
    stack.run(119)
    assert stack.done == []
    stack.run(1)
    assert stack.done == [(Action.RESTART, 120)]


def test_an_unreadable_heartbeat_decides_nothing() -> None:
    stack = Stack()
    stack.run(130)
    stack.healthy = stack.readable = False
    stack.run(600)
    assert stack.done == []


@pytest.mark.parametrize("set_by_s", [8 * 3600, -2 * 3600])
def test_a_clock_that_is_set_neither_makes_a_living_supervisor_silent_nor_hides_a_dead_one(set_by_s: float) -> None:
    stack = Stack()
    stack.run(200)
    stack.clock.set_wall(set_by_s)
    stack.run(200)
    assert stack.done == []
    stack.healthy = False
    stack.clock.set_wall(-set_by_s)
    stack.run(60)
    assert stack.done == [(Action.RELOAD, 450)]


def test_after_everybody_was_held_up_heartbeats_get_time_to_come_back() -> None:
    stack = Stack()
    stack.run(200)
    stack.clock.step(8 * 3600)
    stack.healthy = False
    stack.run(20)
    stack.healthy = True
    stack.run(300)
    assert stack.done == []


# -- the request ------------------------------------------------------------------------------------------------------


@contextmanager
def webserver(status: int, answer: object) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append({"path": self.path, "type": self.headers["Content-Type"], **body})
            payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reloaded(entry: object) -> dict[str, object]:
    return {"data": {"reloadRepositoryLocation": entry}}


LOADED = {
    "__typename": "WorkspaceLocationEntry",
    "loadStatus": "LOADED",
    "locationOrLoadError": {"__typename": "RepositoryLocation"},
}


def test_reload_asks_for_the_location_by_name() -> None:
    with webserver(200, reloaded(LOADED)) as (url, requests):
        reload_code_location(url, "kalshi_platform")
    assert requests == [
        {
            "path": "/graphql",
            "type": "application/json",
            "query": RELOAD_MUTATION,
            "variables": {"location": "kalshi_platform"},
        }
    ]


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (200, reloaded({"__typename": "RepositoryLocationNotFound", "message": "no such place"}), "no such place"),
        (
            200,
            reloaded(LOADED | {"locationOrLoadError": {"__typename": "PythonError", "message": "SyntaxError"}}),
            "SyntaxError",
        ),
        (200, {"errors": [{"message": "unknown field"}]}, "unknown field"),
        (200, b"<html>", "something else"),
        (200, {"data": None}, "something else"),
        (502, {}, "HTTP 502"),
    ],
)
def test_a_refused_reload_raises_with_its_reason(status: int, answer: object, message: str) -> None:
    with webserver(status, answer) as (url, _), pytest.raises(ReloadFailed, match=message):
        reload_code_location(url, "kalshi_platform")


def test_a_dead_webserver_is_a_failed_reload() -> None:
    with webserver(200, {}) as (url, _):
        pass
    with pytest.raises(ReloadFailed, match="does not answer"):
        reload_code_location(url, "kalshi_platform")


def test_the_mutation_fits_the_schema_of_the_installed_dagster() -> None:
    from dagster_graphql.schema import create_schema
    from graphql import parse, validate

    assert validate(create_schema().graphql_schema, parse(RELOAD_MUTATION)) == []
