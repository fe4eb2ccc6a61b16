"""One message for one trouble, however often it is met."""

from __future__ import annotations

import logging

import pytest

from kalshi_platform.errors import DatabaseUnavailable, StatementRejected
from kalshi_platform.gatherer.ingest.ingest_counters import IngestCounters
from kalshi_platform.gatherer.ingest.outage import Outage
from kalshi_platform_tests.fixtures.clocks import FakeClock

AWAY = DatabaseUnavailable("connection refused", kind="unreachable")
STARTING = DatabaseUnavailable("the database system is starting up", kind="starting or stopping")


def test_a_kind_of_failure_is_logged_once_even_when_kinds_alternate_and_again_after_minutes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, counters = FakeClock(), IngestCounters()
    outage = Outage("g1", clock, counters, retry_max_s=5.0)
    with caplog.at_level(logging.INFO):
        for _ in range(20):
            for error in (AWAY, STARTING):
                outage.failed(error)
                clock.step(1.0)
        assert len(caplog.records) == 2
        clock.step(300.0)
        outage.failed(AWAY)
        assert len(caplog.records) == 3
        assert "writes_still_failing gatherer=g1 kind=unreachable for_s=340 attempts=41" in caplog.text
        outage.over()
        outage.over()
        assert len(caplog.records) == 4
        outage.failed(AWAY)
        assert len(caplog.records) == 5
    assert counters.outages == 2
    assert counters.database_failure == "unreachable"


def test_attempts_become_rarer_up_to_a_limit() -> None:
    clock = FakeClock()
    outage = Outage("g1", clock, IngestCounters(), retry_max_s=5.0)
    waits = []
    for _ in range(8):
        assert outage.is_due()
        outage.failed(AWAY)
        waits.append(outage.retry_at - clock.monotonic())
        clock.step(waits[-1] + 0.001)
    assert waits == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])


def test_a_refused_statement_names_its_likely_causes() -> None:
    counters = IngestCounters()
    Outage("g1", FakeClock(), counters, 5.0).failed(StatementRejected("permission denied", sqlstate="42501"))
    assert counters.database_failure == "refused"
    assert "schema" in str(counters.database_error)
