"""The form of log lines: for people as ever, for machines as JSON, and no secrets in either."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from kalshi_platform.gatherer.threads import log_fields
from kalshi_platform.monitoring.logs import describe_process, formatter
from kalshi_platform.monitoring.settings import LogSettings

SECRET = "hunter2"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    yield io.StringIO()
    describe_process({})


def logger(stream: io.StringIO, settings: LogSettings) -> logging.Logger:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(settings))
    made = logging.Logger("kalshi_platform.test")
    made.addHandler(handler)
    return made


def only_object(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def handle(made: logging.Logger, thread: str, **extra: Any) -> None:
    record = made.makeRecord(
        made.name, logging.WARNING, "", 0, "%s: gone (%d)", ("g1", 7), None, None, {"number": 5, **extra}
    )
    record.created, record.msecs, record.threadName = 1_795_392_000.25, 250.0, thread
    made.handle(record)


def test_a_json_line_says_when_who_and_which_connection(stream: io.StringIO) -> None:
    describe_process({"service": "gatherer/g1", "gatherer": "g1"}, lambda name: log_fields("g1", name))
    handle(logger(stream, LogSettings(format="json")), "g1 books-0")
    assert only_object(stream) == {
        "at": "2026-11-23T00:00:00.250Z",
        "level": "warning",
        "logger": "kalshi_platform.test",
        "event": "g1: gone (7)",
        "service": "gatherer/g1",
        "gatherer": "g1",
        "part": "books-0",
        "connection": "books-0",
        "number": 5,
    }


def test_other_threads_are_parts_or_nothing() -> None:
    assert log_fields("g1", "g1 writer") == {"part": "writer"}
    assert log_fields("g1", "g1 feed")["connection"] == "feed"
    assert log_fields("g1", "MainThread") == {}


def test_lines_for_people_look_as_ever(stream: io.StringIO) -> None:
    handle(logger(stream, LogSettings()), "MainThread")
    assert stream.getvalue() == "2026-11-23T00:00:00Z WARNING kalshi_platform.test: g1: gone (7)\n"


def test_an_exception_is_whole_in_both(stream: io.StringIO) -> None:
    for settings in (LogSettings(), LogSettings(format="json")):
        try:
            int("no number")
        except ValueError:
            logger(stream, settings).exception("failed")
    console, _, rest = stream.getvalue().partition("\n")
    assert console.endswith("failed")
    assert "Traceback" in rest
    last = json.loads(stream.getvalue().splitlines()[-1])
    assert "ValueError: invalid literal" in last["exception"]


@pytest.mark.parametrize("form", ["console", "json"])
def test_secrets_are_masked_even_where_somebody_logs_them(stream: io.StringIO, form: Any) -> None:
    made = logger(stream, LogSettings(format=form))
    made.error("cannot open postgresql://user:%s@host:5432/x", SECRET, extra={"password": SECRET, "note": "n"})
    made.error("-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----", SECRET)
    assert SECRET not in stream.getvalue()
    assert "postgresql://user:***@host:5432/x" in stream.getvalue()
