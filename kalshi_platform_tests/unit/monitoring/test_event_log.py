"""Events as text and as fields."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kalshi_platform.monitoring.event_log import TEXT_LIMIT, Event, event_logger

LOGGER = "kalshi_platform.test_event_log"


def test_an_event_is_logged_with_level_name_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, LOGGER):
        event_logger(LOGGER).warning("sessions_restarted", reason="journal_damaged", gatherer="g1")
    (record,) = caplog.records
    assert (record.name, record.levelno) == (LOGGER, logging.WARNING)
    assert record.getMessage() == "sessions_restarted reason=journal_damaged gatherer=g1"
    assert isinstance(record.msg, Event)
    assert record.msg.fields == {"reason": "journal_damaged", "gatherer": "g1"}
    assert record.funcName == "test_an_event_is_logged_with_level_name_and_fields"


def test_an_exception_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        int("no number")
    except ValueError:
        event_logger(LOGGER).exception("parse_failed", text="no number")
    assert 'parse_failed text="no number"' in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "a=7"),
        (True, "a=true"),
        ("", 'a=""'),
        ("x=1 b=2", 'a="x=1 b=2"'),
        ('say "x" \\ y', r'a="say \"x\" \\ y"'),
        ("line\nforged", r'a="line\nforged"'),
        ("\x1b[2J", r"a=\x1b[2J"),
        (["g1", "g2"], "a=g1,g2"),
        ({"g2", "g1"}, "a=g1,g2"),
        (Path("/tmp/x y"), 'a="/tmp/x y"'),
        (datetime(2026, 11, 23, tzinfo=UTC), "a=2026-11-23T00:00:00+00:00"),
        (ValueError("no such row"), 'a="no such row"'),
    ],
)
def test_a_field_has_one_unambiguous_harmless_text(value: object, text: str) -> None:
    assert str(Event("e", {"a": value, "none": None})) == f"e {text}"


def test_a_long_field_leaves_room_for_those_behind_it() -> None:
    shown = str(Event("e", {"frame": "x" * 100_000, "gatherer": "g1"}))
    assert shown.endswith(" gatherer=g1")
    assert len(shown) < TEXT_LIMIT + 100


def test_secrets_are_masked_by_their_names() -> None:
    assert str(Event("e", {"password": "hunter2", "api_key": "x"})) == "e password=*** api_key=***"
