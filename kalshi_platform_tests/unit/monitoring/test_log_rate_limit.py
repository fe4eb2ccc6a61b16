"""The same event at most so many times a minute, then how often it was held back."""

from __future__ import annotations

import io
import logging
import threading

import pytest

from kalshi_platform.monitoring.event_log import Event
from kalshi_platform.monitoring.log_rate_limit import WINDOW_S, LogRateLimit
from kalshi_platform.monitoring.logs import set_up_logging
from kalshi_platform.monitoring.settings import LogSettings
from kalshi_platform_tests.fixtures.clocks import FakeClock


class Rig(logging.Handler):
    """A handler under a limit, which keeps what it writes."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.limit = LogRateLimit(limit, self.clock.monotonic, self.handle)
        self.addFilter(self.limit)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def take(self) -> list[str]:
        lines = [record.getMessage() for record in self.records]
        self.records.clear()
        return lines

    def log(self, message: object, *args: object, level: int = logging.WARNING, name: str = "a") -> None:
        self.handle(logging.LogRecord(name, level, "", 0, message, args, None))


def test_repeats_beyond_the_limit_are_counted_and_reported_before_the_next_line_after_a_minute() -> None:
    rig = Rig(3)
    for number in range(126):
        rig.log(Event("record_lost", {"number": number}))
    assert rig.take() == ["record_lost number=0", "record_lost number=1", "record_lost number=2"]
    rig.log(Event("other", {}))
    assert rig.take() == ["other"]
    rig.clock.step(WINDOW_S)
    rig.log(Event("other", {}), name="b", level=logging.INFO)
    report, _ = rig.records
    assert (report.name, report.levelno) == ("a", logging.WARNING)
    assert rig.take() == ['repeats_held_back count=123 last="record_lost number=125"', "other"]
    rig.log(Event("record_lost", {"number": 126}))
    assert rig.take() == ["record_lost number=126"]


def test_events_differ_by_logger_level_and_name_not_by_their_fields() -> None:
    rig = Rig(1)
    rig.log(Event("lost", {"number": 1}))
    rig.log(Event("lost", {"number": 2}))
    rig.log(Event("found", {"number": 2}))
    rig.log(Event("lost", {"number": 3}), level=logging.ERROR)
    rig.log(Event("lost", {"number": 4}), name="b")
    assert rig.take() == ["lost number=1", "found number=2", "lost number=3", "lost number=4"]


def test_plain_messages_differ_by_template_not_by_their_values() -> None:
    rig = Rig(1)
    for number in range(3):
        rig.log("lost %d", number)
    rig.log("found %d", 3)
    assert rig.take() == ["lost 0", "found 3"]


def test_a_wrong_log_call_does_not_raise_into_its_caller() -> None:
    rig = Rig(1)
    rig.log("%d of %d", 1, 2)
    rig.log("%d of %d", 1)
    rig.limit.report(at_once=True)
    assert rig.take() == ["1 of 2", 'repeats_held_back count=1 last="%d of %d"']


def test_an_event_that_comes_rarely_is_always_written() -> None:
    rig = Rig(1)
    for _ in range(5):
        rig.log(Event("beat", {}))
        rig.clock.step(WINDOW_S)
    assert rig.take() == ["beat"] * 5


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """The root logger without handlers; those of others are back afterwards."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    return root


def test_the_end_of_logging_reports_what_was_held_back(root: logging.Logger) -> None:
    stream = io.StringIO()
    set_up_logging(LogSettings(repeats_per_minute=1), stream=stream)
    for _ in range(3):
        root.warning("lost")
    root.handlers[0].close()
    first, last = stream.getvalue().splitlines()
    assert first.endswith("root: lost")
    assert last.endswith("root: repeats_held_back count=2 last=lost")


def test_the_end_of_logging_writes_nothing_to_a_stream_that_is_closed(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = io.StringIO()
    set_up_logging(LogSettings(repeats_per_minute=1), stream=stream)
    for _ in range(3):
        root.warning("lost")
    stream.close()
    root.handlers[0].close()
    assert capsys.readouterr().err == ""
