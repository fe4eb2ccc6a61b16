"""The form of log lines: for people and, as JSON, for machines; no secrets in either."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from kalshi_platform.gatherer.threads import log_fields
from kalshi_platform.monitoring.event_log import EventLogger
from kalshi_platform.monitoring.logs import describe_process, formatter, make_our_records_plain, set_up_logging
from kalshi_platform.monitoring.settings import LogSettings

SECRET = "hunter2"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    yield io.StringIO()
    describe_process({})


def logger(stream: io.StringIO, settings: LogSettings) -> logging.Logger:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(settings))
    made = logging.Logger("kalshi_platform.test")  # noqa: LOG001 - known to nobody else
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


def test_a_json_line_has_time_service_and_connection(stream: io.StringIO) -> None:
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


def test_a_json_line_of_an_event_has_its_fields_as_keys(stream: io.StringIO) -> None:
    made = EventLogger(logger(stream, LogSettings(format="json")))
    made.warning("sessions_restarted", reason="journal_damaged", sessions=3, note=EVIL, password=SECRET, until=None)
    found = only_object(stream)
    assert found["event"] == "sessions_restarted"
    assert (found["reason"], found["sessions"], found["until"]) == ("journal_damaged", 3, None)
    assert not CONTROLS.search(found["note"])
    assert SECRET not in stream.getvalue()


def test_a_line_of_an_event_for_people_has_its_fields_behind_the_name(stream: io.StringIO) -> None:
    made = EventLogger(logger(stream, LogSettings()))
    made.warning("sessions_restarted", reason="journal damaged", sessions=3, note=EVIL, password=SECRET, until=None)
    line = stream.getvalue()
    assert ' kalshi_platform.test: sessions_restarted reason="journal damaged" sessions=3 note=' in line
    assert not CONTROLS.search(line)
    assert line.count("\n") == 1
    assert SECRET not in line


def test_other_threads_are_parts_or_nothing() -> None:
    assert log_fields("g1", "g1 writer") == {"part": "writer"}
    assert log_fields("g1", "g1 feed")["connection"] == "feed"
    assert log_fields("g1", "MainThread") == {}


def test_a_plain_message_for_people_is_one_line(stream: io.StringIO) -> None:
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


FORGED = "2026-11-23T00:00:00Z INFO    kalshi_platform.gatherer: all is well"
EVIL = f"Cup\n{FORGED}\r\x1b[2J\x1b]0;title\x07\x9b31m\x7f\u2028\u2029\u202e\u2066\ud800end"
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def fail(text: str) -> None:
    raise ValueError(text)


@pytest.mark.parametrize("form", ["console", "json"])
def test_text_from_the_wire_neither_forges_lines_nor_reaches_the_terminal(stream: io.StringIO, form: Any) -> None:
    made = logger(stream, LogSettings(format=form))
    made.warning("market %s: refused", EVIL, extra={"title": EVIL, "nested": {EVIL: [EVIL, b"\x1b", EVIL]}})
    try:
        fail(EVIL)
    except ValueError:
        made.exception("failed")
    text = stream.getvalue()
    assert not CONTROLS.search(text)
    assert all(not line.startswith("2026-11-23T00:00:00Z") for line in text.split("\n"))
    assert text.count("end") >= 2, "everything is shown, in another form"
    if form == "json":
        first, second = (json.loads(line) for line in text.splitlines())
        assert not CONTROLS.search(first["event"] + first["title"] + str(first["nested"]) + second["exception"])
        assert "\n" not in first["event"]
    else:
        assert r"market Cup\n2026" in text
        assert "Traceback" in text


@pytest.mark.parametrize("form", ["console", "json"])
def test_fields_are_bounded(stream: io.StringIO, form: Any) -> None:
    made = logger(stream, LogSettings(format=form))
    made.warning("frame: %s", "x" * 1_000_000)
    try:
        fail("y" * 1_000_000)
    except ValueError:
        made.exception("failed")
    assert len(stream.getvalue()) < 30_000
    assert "more characters)" in stream.getvalue()
    assert "characters left out" in stream.getvalue()


@pytest.mark.parametrize("form", ["console", "json"])
def test_logged_secrets_are_masked(stream: io.StringIO, form: Any) -> None:
    made = logger(stream, LogSettings(format=form))
    made.error("cannot open postgresql://user:%s@host:5432/x", SECRET, extra={"password": SECRET, "note": "n"})
    made.error("-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----", SECRET)
    assert SECRET not in stream.getvalue()
    assert "postgresql://user:***@host:5432/x" in stream.getvalue()


@pytest.fixture
def plain_records() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    make_our_records_plain()
    yield
    logging.setLogRecordFactory(before)


@pytest.mark.usefixtures("plain_records")
def test_a_record_without_a_name_is_made_as_ever() -> None:
    """Dagster makes one for every event of a run."""
    assert logging.makeLogRecord({"msg": "x"}).getMessage() == "x"


@pytest.mark.usefixtures("plain_records")
def test_where_the_handlers_are_anothers_our_records_are_harmless_by_themselves(stream: io.StringIO) -> None:
    handler = logging.StreamHandler(stream)
    ours, other = logging.getLogger("kalshi_platform.test_records"), logging.getLogger("another.test_records")
    for made in (ours, other):
        made.addHandler(handler)
    try:
        ours.warning("market %s", EVIL)
        try:
            fail(EVIL)
        except ValueError:
            ours.exception("failed")
        assert not CONTROLS.search(stream.getvalue())
        assert all(not line.startswith("2026-11-23") for line in stream.getvalue().split("\n"))
        assert "Traceback" in stream.getvalue()
        other.warning("as\x07ever")
        assert "as\x07ever" in stream.getvalue()
    finally:
        for made in (ours, other):
            made.removeHandler(handler)


def test_a_failed_thread_is_logged_like_everything_else(capsys: pytest.CaptureFixture[str]) -> None:
    root, hook = logging.getLogger(), threading.excepthook
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    try:
        for each in handlers:
            root.removeHandler(each)
        set_up_logging(LogSettings(), stream=stream)
        thread = threading.Thread(target=fail, args=(EVIL,), name="writer")
        thread.start()
        thread.join()
    finally:
        threading.excepthook = hook
        root.handlers[:] = handlers
        root.setLevel(level)
    assert "thread_failed thread=writer" in stream.getvalue()
    assert not CONTROLS.search(stream.getvalue() + capsys.readouterr().err)
