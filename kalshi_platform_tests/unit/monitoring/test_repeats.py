"""The same message at most so many times a minute, then how often it was repeated."""

from __future__ import annotations

import logging

import pytest

from kalshi_platform.monitoring.repeats import WINDOW_S, RepeatHandler, RepeatLimiter
from kalshi_platform_tests.fixtures.clocks import FakeClock


class Kept(logging.Handler):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def record(text: str, *args: object, level: int = logging.WARNING, name: str = "a") -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, args, None)


def test_repeats_beyond_the_limit_are_counted_and_told_at_the_end_of_the_minute() -> None:
    clock = FakeClock()
    limiter = RepeatLimiter(3, clock.monotonic)
    admitted = [limiter.admit(record("lost %s", number)) for number in range(126)]
    assert admitted == [True] * 3 + [False] * 123
    assert limiter.due() == []
    assert limiter.next_due_s() == WINDOW_S
    clock.step(WINDOW_S)
    (line,) = limiter.due()
    assert line.getMessage() == "repeated 123 more times, the last one: lost 125"
    assert (line.name, line.levelno) == ("a", logging.WARNING)
    assert limiter.due() == []
    assert limiter.next_due_s() is None
    assert limiter.admit(record("lost %s", 126))


def test_messages_differ_by_logger_level_and_template_not_by_their_values() -> None:
    limiter = RepeatLimiter(1, FakeClock().monotonic)
    assert limiter.admit(record("lost %s", 1))
    assert not limiter.admit(record("lost %s", 2))
    assert limiter.admit(record("found %s", 2))
    assert limiter.admit(record("lost %s", 2, level=logging.ERROR))
    assert limiter.admit(record("lost %s", 2, name="b"))


def test_a_kind_of_its_own_is_not_hidden_by_a_flood_of_another_in_the_same_words() -> None:
    clock = FakeClock()
    limiter = RepeatLimiter(1, clock.monotonic)

    def alarm(kind: str) -> logging.LogRecord:
        made = record("g1: %s", kind)
        made.repeats_as = kind
        return made

    assert [limiter.admit(alarm("dead_letter")) for _ in range(3)] == [True, False, False]
    assert limiter.admit(alarm("not_authorised"))
    clock.step(WINDOW_S)
    assert [line.getMessage() for line in limiter.due()] == ["repeated 2 more times, the last one: g1: dead_letter"]


def test_a_wrong_log_call_does_not_raise_into_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    handler = RepeatHandler(kept, RepeatLimiter(1, FakeClock().monotonic))
    told: list[logging.LogRecord] = []
    monkeypatch.setattr(handler, "handleError", told.append)
    handler.handle(record("%d of %d", 1, 2))
    handler.handle(record("%d of %d", 1))
    handler.handle(record("other"))
    handler.close()
    assert kept.lines[:2] == ["1 of 2", "other"]
    assert len(told) == 1


def test_a_message_that_comes_rarely_is_always_written() -> None:
    clock = FakeClock()
    limiter = RepeatLimiter(1, clock.monotonic)
    for _ in range(5):
        assert limiter.admit(record("a beat"))
        clock.step(WINDOW_S)
    assert limiter.due() == []


def test_the_handler_tells_what_was_held_back_before_the_next_line_and_at_the_end() -> None:
    clock, kept = FakeClock(), Kept()
    handler = RepeatHandler(kept, RepeatLimiter(1, clock.monotonic))
    for _ in range(3):
        handler.handle(record("lost"))
    clock.step(WINDOW_S)
    handler.handle(record("other"))
    assert kept.lines == ["lost", "repeated 2 more times, the last one: lost", "other"]
    handler.handle(record("other"))
    handler.close()
    assert kept.lines[3:] == ["repeated 1 more times, the last one: other"]
