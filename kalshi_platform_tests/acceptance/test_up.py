"""`kalshi-platform up` as a stranger runs it: the UI, growing tables, Parquet, and nothing left when it ends."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil
import pytest
from dotenv import dotenv_values

from kalshi_platform_tests.fixtures.demo import SLOW_S, Demo, ask, check_outcomes, running_demo, started_runs
from kalshi_platform_tests.fixtures.secret_search import SecretSearch, of_key
from kalshi_platform_tests.fixtures.stack import (
    ODD_SURROUNDINGS,
    clean_environment,
    command,
    count,
    processes_of,
    read_json,
    wait_for,
)
from kalshi_platform_tests.fixtures.webhook import PATH as WEBHOOK_PATH
from kalshi_platform_tests.fixtures.webhook import running_receiver

MARKED = {
    # Nothing of these is needed: they only stand in the environment of every process.
    "AWS_ACCESS_KEY_ID": "MARKEDKEYID77F0C3",
    "AWS_SECRET_ACCESS_KEY": "marked/s3+secret=9d2b",
    "AWS_SESSION_TOKEN": "marked-session-31aa",
    "KALSHI_ICEBERG_TOKEN": "marked-iceberg-b0c4",
}
HOLD_SECRETS = {".env", "local.json", "server.json", "exchange-key.pem"}

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1200), pytest.mark.xdist_group("stack")]


def asset_nodes(ui: str) -> list[dict[str, Any]]:
    """The assets that the UI shows; none while it does not answer."""
    try:
        return list(ask(ui, "{assetNodes {assetKey {path}}}")["assetNodes"])
    except OSError:
        return []


CHECKED = {"all_gatherers_read", "coverage_share", "identity_agreement", "exchange_time_goes_forward"}


def test_the_demo_closes_a_past_goes_on_and_ends_without_a_trace(tmp_path: Path) -> None:
    with (
        running_receiver() as receiver,
        running_demo(tmp_path, **MARKED, KALSHI_ALERT_WEBHOOK_URL=receiver.url) as demo,
    ):
        demo.wait_for_line("Dagster UI after")
        begin = datetime.fromisoformat(demo.local["past_from"])
        assert begin.hour == 22
        demo.wait_for_line("three things to try")
        commands = wait_for("commands", lambda: pasted_commands(demo.printed), 10)
        outcomes = {
            asset: wait_for(asset, partial(check_outcomes, demo.ui, asset), 60)
            for asset in ("production/orderbook_deltas", "production/book_checkpoints", "production/trades")
        }
        assert set(outcomes["production/orderbook_deltas"]) >= CHECKED
        assert all(passed for checks in outcomes.values() for passed in checks.values()), outcomes
        for dataset in ("processed/quotes", "aggregates/candles_1m", "processed/trades"):
            assert list(demo.lake.glob(f"{dataset}/date={begin:%Y-%m-%d}/*.parquet")), dataset
        for line in commands:
            done = subprocess.run(
                ["/bin/bash", "-c", line], env=clean_environment(), cwd=demo.folder, capture_output=True, check=False
            )
            assert done.returncode == 0, (line, done.stdout, done.stderr)
        assert demo.local["caught_up_at"] is not None
        wait_for("four long-running runs", lambda: len(started_runs(demo.ui)) >= 4, SLOW_S)
        production = demo.local["databases"]["production"]
        before = count(production, "orderbook_deltas")
        wait_for("growth", lambda: count(production, "orderbook_deltas") > before, 120)
        wait_for("Parquet", lambda: list(demo.lake.glob("open/raw/orderbook_deltas/**/*.parquet")), SLOW_S)
        assert set(demo.local["metrics"]) == {"deduplicator", "g1", "g2", "g3"}
        for address in demo.local["metrics"].values():
            wait_for(f"health beside {address}", partial(is_healthy, address), 60)
        assert open_to_others(demo) == []
        search = search_for_secrets(demo)
        for url in (production, demo.local["databases"]["dagster"]):
            assert search.in_database(url) == []
        assert demo.stop() == 0, demo.printed
        assert receiver.requests == 0, receiver.messages
        assert "left aside: KALSHI_ALERT_WEBHOOK_URL, KALSHI_ICEBERG_TOKEN" in demo.printed
        assert "child_killed" not in demo.printed
        data = str(demo.data)
    assert processes_of(data) == []
    assert search.in_files(tmp_path, may_hold=lambda path: path.name in HOLD_SECRETS) == []
    for path in (each for each in tmp_path.rglob("*") if each.name in HOLD_SECRETS):
        assert path.stat().st_mode & 0o077 == 0, path


def open_to_others(demo: Demo) -> list[str]:
    """Where the demo's processes listen for other machines: UI, code server, metrics, exchange, and its databases.

    Database servers are no descendants of `up`: they are found by their ports.
    """
    databases = demo.local["databases"]
    urls = [databases["production"], *(url for pair in databases["gatherers"].values() for url in pair.values())]
    ports = {urlsplit(url).port for url in urls}
    up = psutil.Process(demo.process.pid)
    listening: set[tuple[str, int]] = set()
    for process in [up, *up.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            listening |= listeners(process.net_connections("inet"))
    listening |= {each for each in listeners(psutil.net_connections("inet")) if each[1] in ports}
    found = [f"{ip}:{port}" for ip, port in listening if not is_loopback(ip)]
    assert len(listening) >= 10, listening  # four servers of databases, UI, exchange, four metrics
    return found


def is_loopback(ip: str) -> bool:
    """Whether only this machine reaches it; gRPC binds an IPv4 address as one of IPv6."""
    address = ipaddress.ip_address(ip)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def listeners(sockets: Iterable[Any]) -> set[tuple[str, int]]:
    """The addresses of those that wait for connections."""
    return {(each.laddr.ip, each.laddr.port) for each in sockets if each.status == psutil.CONN_LISTEN}


def search_for_secrets(demo: Demo) -> SecretSearch:
    """Look for the marks, the databases' passwords, and the key that signs requests to the simulated exchange."""
    settings = {key: str(value) for key, value in dotenv_values(demo.folder / ".env").items()}
    passwords = {
        f"password of {key}": unquote(str(urlsplit(value).password)).encode()
        for key, value in settings.items()
        if "DATABASE_URL" in key
    }
    assert len(passwords) == 8
    key = of_key(Path(settings["KALSHI_PRIVATE_KEY_PATH"]).read_bytes())
    marked = {name: value.encode() for name, value in MARKED.items()}
    return SecretSearch({**passwords, **key, **marked, "path of the webhook": WEBHOOK_PATH.encode()})


def pasted_commands(printed: str) -> list[str]:
    """The commands that it says to try, without the one that kills a process."""
    tried = printed.partition("three things to try")[2].splitlines()[1:4]
    return [line.partition(":")[2].strip() for line in tried if "kill -9" not in line] if len(tried) == 3 else []


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
            wait_for(
                "definitions", lambda: b"Serving dagster-webserver on" in (tmp_path / "dev.log").read_bytes(), SLOW_S
            )
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
