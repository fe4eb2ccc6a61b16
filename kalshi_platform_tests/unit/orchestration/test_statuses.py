"""Every status of a run is either ended or unfinished, and the supervisor knows what to do about each of the latter."""

from __future__ import annotations

import dagster as dg

from kalshi_platform.orchestration.statuses import ENDED, UNFINISHED
from kalshi_platform.orchestration.supervision.supervisor import RUN_STATES


def test_every_status_of_dagster_is_ended_or_unfinished() -> None:
    assert set(ENDED) | set(UNFINISHED) == set(dg.DagsterRunStatus)
    assert not set(ENDED) & set(UNFINISHED)
    assert dg.DagsterRunStatus.SUSPENDED in UNFINISHED
    assert set(RUN_STATES) == set(UNFINISHED)
