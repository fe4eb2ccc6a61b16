"""The Dockerfiles, read by hadolint: `make deployment` has it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", ["docker/Dockerfile", "deploy/aws/Dockerfile"])
def test_hadolint_finds_nothing(name: str) -> None:
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        pytest.skip("hadolint is not installed: `make deployment` has it")
    result = subprocess.run(
        [program, "--no-color", ROOT / name], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout) == (0, "")
