"""A real `kalshi-platform up --simulate` as a child process, and its databases once more after its end."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from dotenv import dotenv_values

from kalshi_platform import config
from kalshi_platform.clock import Clock
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.lab.proof.errors import ProofFailed
from kalshi_platform.lab.proof.healing.dagster_client import DagsterClient
from kalshi_platform.lab.proof.options import ProofOptions
from kalshi_platform.lab.recording_stack import OWN_VARIABLES, remove_folder
from kalshi_platform.lab.simulator_client import SimulatorClient
from kalshi_platform.local.databases import DatabaseStack
from kalshi_platform.local.processes import process_table
from kalshi_platform.local.processes.ports import free_port
from kalshi_platform.local.processes.process_group import ChildSpec, ProcessGroup
from kalshi_platform.monitoring.heartbeat import FILE_NAME, Heartbeat, read_file
from kalshi_platform.orchestration.supervision.supervisor import SUPERVISOR_HEARTBEAT

UP = "up"
PRESENT_ONLY = ("--no-past",)
"""Options by which `up --simulate` has no simulated past."""
STOP_S, STOP_LIMIT_S = 90.0, 240.0


class UpStack:
    """Starts `up` in an empty folder and stops it; a context manager. The exchange begins silent, with a ledger."""

    def __init__(self, options: ProofOptions, say: Callable[[str], None], clock: Clock) -> None:
        self.folder = options.data_dir.absolute()
        self.data = self.folder / "data"
        self.truth_folder = self.folder / "truth"
        self.lake_folder = self.data / "lake"
        self._options = options
        self._say = say
        self._clock = clock
        self._group = ProcessGroup(self.folder / "logs", say=say)
        self._again: DatabaseStack | None = None
        own = config.process_environment()
        self._base = {key: value for key, value in own.items() if not key.startswith(OWN_VARIABLES)}
        self._ui_port = free_port()
        self.dagster = DagsterClient(self.ui_url)
        self.environ: dict[str, str] = {}
        self.settings: config.PlatformSettings

    @property
    def ui_url(self) -> str:
        """Where the UI is."""
        return f"http://127.0.0.1:{self._ui_port}"

    @property
    def logs(self) -> Path:
        """Where the children of `up` write."""
        return self.data / "logs"

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        options = self._options
        argv = [
            *(sys.executable, "-m", "kalshi_platform.cli", "up", "--simulate", *PRESENT_ONLY),
            *("--data", str(self.data), "--port", str(self._ui_port), "--truth", str(self.truth_folder)),
            *("--rate", "0", "--markets", str(options.markets), "--seed", str(options.seed)),
        ]
        environ = self._base | {"KALSHI_GATHERERS": ",".join(options.names)}
        try:
            self._group.start(
                ChildSpec(UP, argv, environ, self.folder, stop_timeout_s=STOP_S, stop_limit_s=STOP_LIMIT_S)
            )
        except BaseException:
            self._group.stop_all()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            self._group.stop_all(deadline_s=STOP_LIMIT_S)
        finally:
            if self._again is not None:
                self._again.stop()
        if not self._options.keep:
            remove_folder(self.folder, self.data)

    # -- what runs

    def check(self) -> None:
        """Raise ProofFailed when `up` has ended."""
        self._group.poll()
        if self._group.pid(UP) is None:
            raise ProofFailed(f"`up` has ended: {' '.join(self.told().splitlines()[-5:])}")

    def told(self) -> str:
        """What `up` has printed so far."""
        try:
            return (self._group.log_dir / f"{UP}.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def is_described(self) -> bool:
        """Whether `up` has written where everything is; then `settings` and `venue` are there."""
        if not (self.data / "local.json").exists():
            return False
        from_file = dotenv_values(self.folder / ".env")
        self.environ = self._base | {name: value for name, value in from_file.items() if value is not None}
        self.settings = config.load_platform(self.environ)
        return True

    def local(self) -> dict[str, Any]:
        """What `up` says of itself."""
        content: dict[str, Any] = json.loads((self.data / "local.json").read_text(encoding="utf-8"))
        return content

    @property
    def venue(self) -> SimulatorClient:
        """The exchange's control channel."""
        return SimulatorClient(str(self.local()["exchange"]["control_url"]))

    def heartbeat(self, gatherer: str) -> Heartbeat[GathererStatus] | None:
        """The last one that a gatherer wrote to its folder."""
        return read_file(self.data / "state" / gatherer / FILE_NAME, GathererStatus)

    def supervisor_heartbeat(self) -> str:
        """What the supervising sensors wrote with their last tick."""
        try:
            return (self.data / "state" / SUPERVISOR_HEARTBEAT).read_text(encoding="utf-8")
        except OSError:
            return ""

    def owns(self, pid: int) -> bool:
        """Whether a process is a child of this `up`, and not of another one on this machine."""
        return pid in process_table.find_descendants([self._group.pid(UP) or 0])

    def server_pid(self, name: str) -> int:
        """The postmaster of an embedded server."""
        folder = self.data / "postgres" / name
        pointer = folder / "cluster.location"
        cluster = Path(pointer.read_text(encoding="utf-8").strip()) if pointer.exists() else folder / "cluster"
        return int((cluster / "postmaster.pid").read_text(encoding="utf-8").split()[0])

    # -- the end

    def stop_exchange(self, wait: Callable[[Callable[[], bool], float], bool]) -> None:
        """End the exchange, which finishes its ledger. `wait` waits for something, at most for some seconds."""
        pid = int(self.local()["exchange"]["pid"])
        os.kill(pid, signal.SIGINT)
        if not wait(lambda: not process_table.is_alive(pid), STOP_S):
            raise ProofFailed("the exchange does not end, so its ledger is not whole")

    def stop_up(self) -> None:
        """Stop `up` as Ctrl-C does."""
        self._group.stop(UP)
        if UP in self._group.killed:
            raise ProofFailed(f"`up` did not stop within {STOP_LIMIT_S:.0f} s")

    def start_databases(self) -> None:
        """Start the databases alone, for the comparison; `settings` names them then."""
        self._again = databases = DatabaseStack(self.data, self._options.names, {})
        databases.start()
        changes = {
            "KALSHI_PRODUCTION_DATABASE_URL": databases.production,
            "DAGSTER_DATABASE_URL": databases.dagster,
        }
        for name in self._options.names:
            changes[config.timeseries_variable(name)] = databases.timeseries[name]
            changes[config.catalog_variable(name)] = databases.catalog[name]
        self.environ = self.environ | changes
        self.settings = config.load_platform(self.environ)
