"""Two gatherers and the platform as three code servers, as on three hosts, under one webserver and one daemon."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from kalshi_platform import config
from kalshi_platform.local.processes.ports import free_ports
from kalshi_platform.market.parts import MarketPart
from kalshi_platform_tests.fixtures.demo import ask
from kalshi_platform_tests.fixtures.exchange import running_exchange
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.stack import clean_environment, rows, wait_for
from kalshi_platform_tests.integration.deploy.stack import by_make_deployment

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600), pytest.mark.xdist_group("stack"), by_make_deployment]

CHECKOUT = Path(__file__).parents[2]
SHARDS = {"g1": MarketPart(1, 2), "g2": MarketPart(2, 2)}
RUNS = """
{runsOrError(filter: {statuses: [STARTED]})
  {... on Runs {results {runId jobName tags {key value} repositoryOrigin {repositoryLocationName}}}}}
"""
LOCATIONS = "{workspaceOrError {... on Workspace {locationEntries {name locationOrLoadError {__typename}}}}}"


def test_the_runs_of_each_gatherer_execute_on_its_own_host(
    database_factory: DatabaseFactory, merge_templates: None, tmp_path: Path
) -> None:
    gatherers = {
        name: {
            config.timeseries_variable(name): database_factory("template_timeseries"),
            config.catalog_variable(name): database_factory("template_catalog"),
        }
        for name in SHARDS
    }
    production = database_factory("template_production")
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_bytes((CHECKOUT / "dagster.yaml").read_bytes())
    dagster = clean_environment(
        DAGSTER_HOME=str(home), DAGSTER_DATABASE_URL=database_factory(), KALSHI_STATE_DIR=str(tmp_path / "dagster")
    )
    code_ports = dict(zip(("g1", "g2", "platform"), free_ports(3), strict=True))
    (ui_port,) = free_ports(1)
    workspace = tmp_path / "workspace.yaml"
    servers = [
        {"grpc_server": {"host": "127.0.0.1", "port": port, "location_name": name}} for name, port in code_ports.items()
    ]
    workspace.write_text(json.dumps({"load_from": servers}))
    with running_exchange(tmp_path, markets=16, rate=60) as exchange, ExitStack() as processes:
        client = {
            "KALSHI_REST_URL": exchange.rest_url,
            "KALSHI_WS_URL": exchange.ws_url,
            "KALSHI_API_KEY_ID": exchange.key_id,
            "KALSHI_PRIVATE_KEY_PATH": str(exchange.key_file),
            "KALSHI_GATHERERS": ",".join(SHARDS),
        }
        # What a host needs is there, and nothing else: a gatherer's knows no database but its own.
        hosts: dict[str, dict[str, str]] = {
            name: {
                **dagster, **client, **urls,
                "KALSHI_ROLE": f"gatherer:{name}",
                "KALSHI_MARKET_SHARD": str(SHARDS[name]),
                "KALSHI_STATE_DIR": str(tmp_path / name),
            }
            for name, urls in gatherers.items()
        }  # fmt: skip
        hosts["platform"] = {
            **dagster, **client, **gatherers["g1"], **gatherers["g2"],
            "KALSHI_ROLE": "platform",
            "KALSHI_STATE_DIR": str(tmp_path / "platform"),
            "KALSHI_PRODUCTION_DATABASE_URL": production,
            "KALSHI_LAKE_ROOT": f"file://{tmp_path / 'lake'}",
        }  # fmt: skip
        code_servers = {
            name: processes.enter_context(running(tmp_path / f"{name}.log", environ, *grpc(name, code_ports[name])))
            for name, environ in hosts.items()
        }
        wait_for("three code servers", lambda: all(is_serving(tmp_path / f"{name}.log") for name in hosts), 180)
        daemon = ("dagster._daemon", "run", "--workspace", str(workspace))
        webserver = ("dagster_webserver", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(ui_port))
        processes.enter_context(running(tmp_path / "daemon.log", dagster, *daemon))
        processes.enter_context(running(tmp_path / "webserver.log", dagster, *webserver))
        ui = f"http://127.0.0.1:{ui_port}"
        wait_for("three loaded locations", lambda: loaded(ui) == set(code_ports), 180)

        found = wait_for("a run of each service", partial(locations_of_runs, ui), 240)
        assert found == {"gatherer/g1": "g1", "gatherer/g2": "g2", "deduplicator": "platform"}
        for name, urls in gatherers.items():
            url = urls[config.timeseries_variable(name)]
            wait_for(f"deltas of {name}", partial(rows, url, "SELECT 1 FROM orderbook_deltas LIMIT 1"), 120)
            pid = rows(url, "SELECT pid FROM heartbeats WHERE service = %s", [f"gatherer/{name}"])[0][0]
            worker = psutil.Process(pid)
            assert code_servers[name].pid in {parent.pid for parent in worker.parents()}, name
            assert worker.environ()["KALSHI_ROLE"] == f"gatherer:{name}"
            tickers = {ticker for (ticker,) in rows(url, "SELECT DISTINCT ticker FROM orderbook_deltas")}
            assert all(map(SHARDS[name].holds, tickers)), name
        merged = "SELECT count(DISTINCT gatherer) FROM orderbook_deltas"
        wait_for("both halves in production", lambda: rows(production, merged) == [(2,)], 120)


def grpc(location: str, port: int) -> tuple[str, ...]:
    return (
        *("dagster", "api", "grpc", "--host", "127.0.0.1", "--port", str(port)),
        *("--module-name", "kalshi_platform.definitions", "--location-name", location),
    )


@contextmanager
def running(log: Path, environ: Mapping[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module of Python in a session of its own; at the end it, and what it started, is gone."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=dict(environ), cwd=log.parent, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        own = psutil.Process(process.pid)
        started = own.children(recursive=True)
        for each in (*started, own):  # its runs first: a server waits for them
            with suppress(psutil.NoSuchProcess):
                each.terminate()
        with suppress(AssertionError):
            wait_for("the end of the processes", lambda: not any(map(is_alive, (*started, own))), 10)
        for each in (*started, own):
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait(20)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still works: one that has ended and that its parent has not waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_serving(log: Path) -> bool:
    """Whether the code server that writes this log has loaded its definitions and listens."""
    return b"Started Dagster code server" in log.read_bytes()


def loaded(ui: str) -> set[str]:
    try:
        entries = ask(ui, LOCATIONS)["workspaceOrError"]["locationEntries"]
    except OSError:
        return set()
    return {e["name"] for e in entries if (e["locationOrLoadError"] or {}).get("__typename") == "RepositoryLocation"}


def locations_of_runs(ui: str) -> dict[str, str] | None:
    """By service, the location in which its run executes; None until all three have one."""
    try:
        found: list[dict[str, Any]] = ask(ui, RUNS)["runsOrError"]["results"]
    except OSError:
        return None
    services = {}
    for run in found:
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        services[tags.get("kalshi/service", run["jobName"])] = run["repositoryOrigin"]["repositoryLocationName"]
    return services if len(services) == 3 else None
