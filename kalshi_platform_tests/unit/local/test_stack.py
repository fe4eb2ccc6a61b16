"""What `up` refuses before anything starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.local.simulator_process import SimulationOptions
from kalshi_platform.local.stack import Stack, StackOptions


@pytest.mark.parametrize("name", ["a[b]", "a*", "a?b"])
def test_a_folder_that_dagster_takes_for_a_pattern_is_refused_where_dagster_runs(tmp_path: Path, name: str) -> None:
    options = StackOptions(tmp_path / name / "data", SimulationOptions(), env_file=tmp_path / ".env")
    with pytest.raises(ConfigurationError, match="takes for a pattern: choose another"):
        Stack(options, print).check()
    Stack(replace(options, headless=True), print).check()
    Stack(replace(options, data_dir=tmp_path / "a ü $x 'q' #" / "data"), print).check()
