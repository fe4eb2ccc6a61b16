"""What a run of the test rig leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.lab.recording_stack import RecordingStack
from kalshi_platform.local.simulator_process import SimulationOptions


@pytest.mark.parametrize("error", [None, ValueError])
def test_only_the_logs_stay_and_only_after_an_error(error: type[Exception] | None, tmp_path: Path) -> None:
    said: list[str] = []
    stack = RecordingStack(tmp_path / "run", ["g1"], SimulationOptions(), said.append, SYSTEM_CLOCK)
    for name in ("logs/operator.log", "lake/part", "exchange.json"):
        (stack.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (stack.folder / name).touch()
    stack.__exit__(error, None, None)
    left = sorted(str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*") if each.is_file())
    assert left == ([] if error is None else ["run/logs/operator.log"])
    assert bool(said) is (error is not None)
