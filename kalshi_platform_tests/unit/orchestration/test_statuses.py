"""Every status of a run is either ended or unfinished, and the supervisor knows what to do about each of the latter."""

from __future__ import annotations

import dagster as dg

from kalshi_platform.orchestration.statuses import ENDED, UNFINISHED
from kalshi_platform.orchestration.supervision.runs import _STATES


def test_every_status_has_its_place() -> None:
    assert set(ENDED) | set(UNFINISHED) == set(dg.DagsterRunStatus)
    assert not set(ENDED) & set(UNFINISHED)
    assert dg.DagsterRunStatus.SUSPENDED in UNFINISHED
    assert set(_STATES) == set(UNFINISHED)
