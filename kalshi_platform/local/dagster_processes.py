"""Names and command lines of Dagster's three processes under `up`: code server, daemon, webserver.

They are children of their own, as in docker/compose.yaml, and not those of one `dagster dev`: that one ends, and with
it every run, when its webserver or its daemon has ended, and never replaces a code server that died. Here each is
started again by itself. A code server's runs (gatherers, the merge) go on while it is away: their locks keep a second
one from writing, and the supervising sensors find them by their heartbeats.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from kalshi_platform.local.processes.process_group import ChildSpec
from kalshi_platform.surroundings import loopback

CODE_SERVER, DAEMON, WEBSERVER = "dagster-code", "dagster-daemon", "dagster-webserver"
DAGSTER = (CODE_SERVER, DAEMON, WEBSERVER)
LOCATION = "kalshi_platform"
"""As in workspace.yaml: Dagster knows sensors and schedules, with what was switched off, by the location's name."""
SERVED_WORKSPACE = "workspace-served.yaml"
HOST = "127.0.0.1"
STOP_TIMEOUT_S = 14.0
CODE_STOP_TIMEOUT_S = 60.0
"""Its runs have 40 s of their own to write what they hold, of which a busy machine shows nothing for a while."""
PATIENCE = dict.fromkeys(
    (
        "DAGSTER_GRPC_TIMEOUT_SECONDS", "DAGSTER_REPOSITORY_GRPC_TIMEOUT_SECONDS",
        "DAGSTER_SCHEDULE_GRPC_TIMEOUT_SECONDS", "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS",
    ),
    "600",
)  # fmt: skip
"""A busy machine may take longer than Dagster's 60 s to start a run, which would then count as failed."""
SHUTDOWN = {"DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD": "5"}
"""Seconds for which a code server that ends waits for calls. By default as long as a call may take, and there always is
one: the webserver listens to the code server for as long as it runs."""
LOCATION_QUERY = """
query Location($name: String!) {
  workspaceLocationEntryOrError(name: $name) {
    ... on WorkspaceLocationEntry { locationOrLoadError { __typename } }
  }
}
"""


def write_served_workspace(home: Path, code_port: int) -> Path:
    """Write the workspace by which daemon and webserver find the running code server."""
    server = {"host": HOST, "port": code_port, "location_name": LOCATION}
    file = home / SERVED_WORKSPACE
    file.write_text(json.dumps({"load_from": [{"grpc_server": server}]}) + "\n", encoding="utf-8")  # JSON is YAML
    return file


def dagster_children(
    home: Path,
    environ: Mapping[str, str],
    ui_port: int,
    code_port: int,
    stop_limit_s: float,
    describe_remaining: Callable[[], str],
) -> list[ChildSpec]:
    """Return the three children in the order of their start.

    The runs are the code server's: what they still have to write is what its stop waits for.
    """
    workspace = str(write_served_workspace(home, code_port))
    python, cwd = sys.executable, Path.cwd()
    environ = {**PATIENCE, **SHUTDOWN, **environ}
    code = (
        *(python, "-m", "dagster", "api", "grpc", "--host", HOST, "--port", str(code_port)),
        *("--module-name", "kalshi_platform.definitions", "--location-name", LOCATION),
    )
    daemon = (python, "-m", "dagster._daemon", "run", "--workspace", workspace)
    webserver = (python, "-m", "dagster_webserver", "-w", workspace, "-h", HOST, "-p", str(ui_port))
    return [
        ChildSpec(
            CODE_SERVER, code, environ, cwd, restart=True, stop_timeout_s=CODE_STOP_TIMEOUT_S,
            stop_limit_s=stop_limit_s, describe_remaining=describe_remaining, descendants_stay=True,
        ),
        ChildSpec(DAEMON, daemon, environ, cwd, restart=True, stop_timeout_s=STOP_TIMEOUT_S),
        ChildSpec(WEBSERVER, webserver, environ, cwd, restart=True, stop_timeout_s=STOP_TIMEOUT_S),
    ]  # fmt: skip


def is_loaded(ui_url: str) -> bool:
    """Whether the webserver answers and has loaded the code location."""
    body = json.dumps({"query": LOCATION_QUERY, "variables": {"name": LOCATION}}).encode()
    request = urllib.request.Request(f"{ui_url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310 - ours
    try:
        with loopback.open(request, timeout=10) as answer:
            entry = json.load(answer)["data"]["workspaceLocationEntryOrError"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(entry and (entry.get("locationOrLoadError") or {}).get("__typename") == "RepositoryLocation")
