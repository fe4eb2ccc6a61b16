"""Kills of a running platform: how they are told, and that Dagster understands what is asked of it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kalshi_platform.lab.proof.healing import dagster_client
from kalshi_platform.lab.proof.healing.healing import table
from kalshi_platform.lab.proof.healing.kills import Kill
from kalshi_platform.local import dagster_processes

AT = datetime(2026, 11, 20, tzinfo=UTC)


def test_each_kill_is_a_line_with_its_seconds() -> None:
    kills = [
        Kill("kill", "g1", AT, 0, effect="follows every book", works_again_s=12.34),
        Kill("close_killed", None, AT, 0),
    ]
    assert table(kills)[2:] == [
        "| kill g1 | 12.3 s | follows every book |",
        "| close killed | not | no effect was observed |",
    ]


def test_the_process_of_a_run_is_the_newest_that_its_events_name(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [
        {"__typename": "EngineEvent", "message": "Started process for run (pid: 17)."},
        {"__typename": "ExecutionStepStartEvent", "message": "Started execution of step"},
        {"__typename": "EngineEvent", "message": "Executing steps in process (pid: 18)"},
    ]
    client = dagster_client.DagsterClient("http://127.0.0.1:1")
    monkeypatch.setattr(client, "_ask", lambda *_: {"logsForRun": {"events": events}})
    assert (client.pid("r"), client.has_begun("r")) == (18, True)
    del events[:]
    assert not client.has_begun("r")
    with pytest.raises(dagster_client.DagsterAway, match="no event of run r"):
        client.pid("r")


def test_queries_fit_the_schema_of_the_installed_dagster() -> None:
    from dagster_graphql.schema import create_schema
    from graphql import parse, validate

    schema = create_schema().graphql_schema
    asked = [getattr(dagster_client, name) for name in ("_LAUNCH", "_RUN", "_RETRIES", "_EVENTS")]
    for query in (*asked, dagster_processes.LOCATION_QUERY):
        assert validate(schema, parse(query)) == []
