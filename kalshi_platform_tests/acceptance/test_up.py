"""`kalshi-platform up` as a stranger runs it: the UI, growing tables, Parquet, and nothing left when it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from kalshi_platform_tests.fixtures.stack import (
    ODD_FOLDER,
    ODD_SURROUNDINGS,
    clean_environment,
    command,
    count,
    processes_of,
    read_json,
    wait_for,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600), pytest.mark.xdist_group("stack")]


def ask(ui: str, query: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{ui}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        content: dict[str, Any] = json.load(answer)["data"]
    return content


def asset_nodes(ui: str) -> list[dict[str, Any]]:
    """The assets that the UI shows; none while it does not answer."""
    try:
        return list(ask(ui, "{assetNodes {assetKey {path}}}")["assetNodes"])
    except OSError:
        return []


def started_runs(ui: str) -> list[str]:
    try:
        found = ask(ui, "{runsOrError(filter: {statuses: [STARTED]}) {... on Runs {results {jobName}}}}")
    except OSError:
        return []
    return sorted(run["jobName"] for run in found["runsOrError"]["results"])


@contextlib.contextmanager
def sigint_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_demo_shows_growing_tables_and_parquet_and_ends_without_a_trace(tmp_path: Path) -> None:
    """Started as a shell's background job is: with SIGINT ignored, which every child inherits.

    And in a shell that says much, in a folder of an odd name.
    """
    tmp_path.chmod(0o755)
    data = tmp_path / ODD_FOLDER / "data"
    env = clean_environment(**ODD_SURROUNDINGS)
    log = tmp_path / "up.log"
    with contextlib.ExitStack() as stack:
        with sigint_ignored():
            up = stack.enter_context(command(["up", "--simulate", "--data", str(data)], env, tmp_path, log))
        local = wait_for("local.json", lambda: read_json(data / "local.json"), 60)
        production = local["databases"]["production"]
        wait_for("four long-running runs", lambda: len(started_runs(local["ui"])) >= 4, 300)
        for table in ("orderbook_deltas", "trades", "tickers", "orderbook_snapshots", "markets", "events", "series"):
            wait_for(f"rows in {table}", partial(count, production, table), 120)
        before = count(production, "orderbook_deltas")
        wait_for("growth", lambda: count(production, "orderbook_deltas") > before, 30)
        lake = Path(unquote(urlsplit(local["lake"]).path))
        wait_for("Parquet", lambda: list(lake.glob("open/raw/orderbook_deltas/**/*.parquet")), 90)
        assert "Dagster UI after" in log.read_text(encoding="utf-8", errors="replace")
        assert set(local["metrics"]) == {"deduplicator", "g1", "g2", "g3"}
        for address in local["metrics"].values():
            wait_for(f"health beside {address}", partial(is_healthy, address), 30)
        stopped_at = time.monotonic()
        up.send_signal(signal.SIGTERM)
        assert up.wait(120) == 0, log.read_text(encoding="utf-8", errors="replace")
        assert time.monotonic() - stopped_at < 60, "children were killed by their supervisor, or it waited for one"
    assert processes_of(str(data)) == []


def is_healthy(metrics_address: str) -> bool:
    """Whether a service answers that all is well, beside its metrics."""
    try:
        with urllib.request.urlopen(metrics_address.replace("/metrics", "/healthz"), timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def heed_sigint() -> None:
    """In the child: Ctrl-C works as in a terminal, also where the suite itself was started with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_dagster_dev_alone_works_once_the_databases_are_up(tmp_path: Path) -> None:
    """What the README says: `up --databases-only`, then `dagster dev` in the same folder, without any other setting."""
    tmp_path.chmod(0o755)
    checkout = Path(__file__).parents[2]
    for name in ("workspace.yaml", "dagster.yaml", "pyproject.toml"):
        (tmp_path / name).write_bytes((checkout / name).read_bytes())
    data = tmp_path / "data"
    env = clean_environment(**ODD_SURROUNDINGS)
    with command(["up", "--databases-only", "--data", str(data)], env, tmp_path, tmp_path / "up.log"):
        local = wait_for("local.json", lambda: read_json(data / "local.json"), 60)
        assert local["ui"] is None
        wait_for(".env", (tmp_path / ".env").exists, 10)
        with (tmp_path / "dev.log").open("wb") as log:
            dev = subprocess.Popen(
                [sys.executable, "-m", "dagster", "dev", "-p", "0"],
                env=env, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True, preexec_fn=heed_sigint,  # noqa: PLW1509
            )  # fmt: skip
        try:
            wait_for("definitions", lambda: b"Serving dagster-webserver on" in (tmp_path / "dev.log").read_bytes(), 60)
            address = next(
                word
                for word in (tmp_path / "dev.log").read_text(encoding="utf-8", errors="replace").split()
                if word.startswith("http://127.0.0.1:")
            )
            nodes = wait_for("assets", lambda: asset_nodes(address), 60)
            keys = {"/".join(node["assetKey"]["path"]) for node in nodes}
            assert {"kalshi/websocket", "production/orderbook_deltas", "lake/raw/orderbook_deltas"} <= keys
        finally:
            os.killpg(dev.pid, signal.SIGINT)
            try:
                dev.wait(120)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(dev.pid, signal.SIGKILL)


def test_up_without_a_key_names_what_is_missing_before_anything_starts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kalshi_platform.cli", "up", "--headless"],
        env=clean_environment(), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "KALSHI_API_KEY_ID" in done.stderr
    assert "KALSHI_PRIVATE_KEY_PATH" in done.stderr
    assert not (tmp_path / "data").exists()
