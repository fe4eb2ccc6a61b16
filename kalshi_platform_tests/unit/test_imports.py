"""Importing a module reads no environment and fails for none: every module, with nothing set and with nonsense set."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import kalshi_platform
import kalshi_platform_tests

PACKAGE = Path(kalshi_platform.__file__).parent
IMPORT_EVERYTHING = """
import importlib, os, pkgutil, socket, sys

def refuse(*args, **keywords): raise SystemExit("a socket was opened")
socket.socket.connect = refuse

class Watched(type(os.environ)):
    def __getitem__(self, key):
        reader = sys._getframe(1)
        while reader.f_globals["__name__"] in ("os", "_collections_abc"):
            reader = reader.f_back
        module = reader.f_globals["__name__"]
        if module.startswith("kalshi_platform"): raise SystemExit(f"{key} was read by {module}")
        return super().__getitem__(key)

os.environ.__class__ = Watched
import kalshi_platform
names = [module.name for module in pkgutil.walk_packages(kalshi_platform.__path__, "kalshi_platform.")]
assert len(names) > 200, len(names)
for name in names:
    if not name.endswith(".__main__"):
        importlib.import_module(name)
"""


def variables() -> list[str]:
    """Every variable of ours that the package names, and those of one gatherer."""
    text = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    found = set(re.findall(r"\b(?:KALSHI_[A-Z0-9_]*[A-Z0-9]|DAGSTER_DATABASE_URL)\b", text))
    return sorted(found | {"KALSHI_G1_TIMESERIES_DATABASE_URL", "KALSHI_G1_CATALOG_DATABASE_URL"})


@pytest.mark.parametrize("kind", ["empty", "hostile"])
def test_every_module_in_an_empty_or_hostile_environment_is_imported(kind: str, tmp_path: Path) -> None:
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(PACKAGE.parent)}
    if kind == "hostile":
        names = variables()
        assert {"KALSHI_PARTITIONS_START", "KALSHI_ROLE", "KALSHI_GATHERERS"} <= set(names)
        environ |= dict.fromkeys(names, "\x01 nonsense://?#")
        (tmp_path / ".env").write_bytes(b"KALSHI_ROLE=\xff\n")  # not UTF-8: reading it would fail
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Tests that use private modules of Dagster, because there is no public way to the same.
PRIVATE_IN_TESTS = {
    "acceptance/test_code_servers.py",  # the daemon as a module
    "integration/deploy/test_ecs_runs.py",  # a run with the origin that a code server gives it
    "integration/deploy/test_kubernetes_runs.py",  # the same
    "integration/orchestration/conftest.py",  # one SQLite file for the events of all runs, and a context variable
    "integration/orchestration/test_hour_buckets.py",  # the daemon's own function, in this process
    "integration/orchestration/test_instance_storage.py",  # an instance from another folder's dagster.yaml
    "integration/orchestration/test_backfill.py",  # the daemon's own function, in this process
    "integration/orchestration/test_retention.py",  # an instance of its own in PostgreSQL
    "integration/test_compose.py",  # what Dagster's own queue accepts of a dagster.yaml
}
# The daemon's command line, as `dagster dev` writes it: the script dagster-daemon need not be on the PATH.
PRIVATE_IN_PACKAGE = {"local/dagster_processes.py": ["dagster._daemon"]}
_PRIVATE = re.compile(r"\bdagster(?:_\w+)?\._\w+")


def test_no_module_uses_a_private_module_of_dagster() -> None:
    found = {
        str(path.relative_to(PACKAGE)): _PRIVATE.findall(path.read_text(encoding="utf-8"))
        for path in PACKAGE.rglob("*.py")
    }
    assert {name: uses for name, uses in found.items() if uses} == PRIVATE_IN_PACKAGE


def test_only_named_tests_use_private_modules_of_dagster() -> None:
    folder = Path(kalshi_platform_tests.__file__).parent
    found = {
        str(path.relative_to(folder))
        for path in folder.rglob("*.py")
        if path != Path(__file__) and _PRIVATE.search(path.read_text(encoding="utf-8"))
    }
    assert found == PRIVATE_IN_TESTS
