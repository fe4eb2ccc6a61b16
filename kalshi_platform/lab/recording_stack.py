"""Gatherers under test: a simulated exchange, a database server per gatherer, the gatherers, in a folder of their own.

The caller's settings are left out on purpose: a test must never write to a user's databases or lake.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from kalshi_platform import config
from kalshi_platform.clock import Clock
from kalshi_platform.errors import TransientError
from kalshi_platform.gatherer.status.status import GathererStatus, IngestStatus
from kalshi_platform.lab.simulator_client import SimulatorClient
from kalshi_platform.local.databases import DatabaseStack
from kalshi_platform.local.postgres.server import PostgresServer
from kalshi_platform.local.processes.process_group import ChildSpec, ProcessGroup
from kalshi_platform.local.simulator_process import SimulationOptions, start_simulator
from kalshi_platform.monitoring.heartbeat import read_file

EXCHANGE_STOP_S = 60.0
"""The exchange writes the rest of its ledger when it is stopped."""
STOP_LIMIT_S = 180.0
"""A service that works is not killed before."""
OWN_VARIABLES = ("KALSHI_", "DAGSTER_", "AWS_")


class NotRunning(TransientError):
    """A child that should run does not."""


class RecordingStack:
    """Brings everything up and takes it down; a context manager. A subclass may start more in `start_more`.

    `venue`, `settings` and `environ` (of its children) are there once it is started.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        simulation: SimulationOptions,
        say: Callable[[str], None],
        clock: Clock,
        *,
        keep: bool = False,
    ) -> None:
        """`folder` is removed at the end unless `keep` says otherwise; after an error its logs stay."""
        self.folder = folder.absolute()
        self.names = tuple(names)
        self.lake_folder = self.folder / "lake"
        self.group = ProcessGroup(self.folder / "logs")
        self._simulation = simulation
        self._say = say
        self._clock = clock
        self._keep = keep
        self._databases = DatabaseStack(self.folder, self.names, {})
        self.venue: SimulatorClient
        self.settings: config.PlatformSettings
        self.environ: dict[str, str]

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_exc: object) -> None:
        self.stop()
        if self._keep:
            return
        if kind is None:
            remove_folder(self.folder, self.folder)
        else:
            # The error may name them, and nothing else tells what happened.
            remove_folder(self.folder, self.folder, but=self.group.log_dir)
            self._say(f"logs are kept in {self.group.log_dir}")

    def stop(self) -> None:
        """Stop all processes, then the databases."""
        try:
            self.group.stop_all(deadline_s=20.0)
        finally:
            self._databases.stop()

    def stop_exchange(self) -> None:
        """Stop the exchange; its ledger is finished then."""
        self.group.stop("exchange")

    def stop_gatherers(self) -> None:
        """Stop the gatherers, which write what is left."""
        self.group.stop(*(f"gather-{name}" for name in self.names))

    def pid(self, gatherer: str) -> int | None:
        """The process of a gatherer, None while it is down."""
        return self.group.pid(f"gather-{gatherer}")

    def kill(self, gatherer: str) -> int:
        """SIGKILL a gatherer; the process group starts it again. Returns the pid it had. Raises NotRunning."""
        pid = self.pid(gatherer)
        if pid is None:
            raise NotRunning(f"gatherer {gatherer} does not run; see {self.group.log_dir}")
        os.kill(pid, signal.SIGKILL)
        return pid

    def server(self, gatherer: str) -> PostgresServer:
        """The database server of a gatherer, or that of `production`."""
        return self._databases.server(gatherer)

    @property
    def dagster_url(self) -> str:
        """The database of Dagster's storage."""
        return self._databases.dagster

    def status(self, gatherer: str) -> GathererStatus:
        """Return the status in the gatherer's last heartbeat file; one without anything when there is none."""
        heartbeat = read_file(self.settings.gatherers[gatherer].heartbeat_file, GathererStatus)
        return GathererStatus() if heartbeat is None else heartbeat.details

    def ingest_status(self, gatherer: str) -> IngestStatus:
        """Return the ingest's part of `status`."""
        return self.status(gatherer).ingest or IngestStatus()

    def start_gatherers(self) -> None:
        """Start every gatherer that does not run."""
        for name in self.names:
            if self.pid(name) is None:
                self.start_service(f"gather-{name}", self.environ, "gather", name)

    def prepare_exchange(self) -> None:
        """For subclasses: what is done to the running exchange before anybody connects."""

    def metrics_port(self) -> int:
        """For subclasses: the first of the ports at which merge and gatherers serve metrics and health; 0: nowhere."""
        return 0

    def more_settings(self) -> dict[str, str]:
        """For subclasses: further settings of everything that runs."""
        return {}

    def start_more(self, environ: dict[str, str]) -> None:
        """For subclasses: start what else belongs to the stack; `environ` names everything that runs."""

    def start_service(self, child: str, environ: dict[str, str], *command: str) -> None:
        """Start a command of this package as a child that is started again whenever it ends."""
        # In a folder of its own no `.env` of the caller is read.
        argv = self.command_line(child, *command)
        self.group.start(
            ChildSpec(child, argv, environ, self.folder, restart=True, stop_timeout_s=30, stop_limit_s=STOP_LIMIT_S)
        )

    def command_line(self, child: str, *command: str) -> list[str]:  # noqa: ARG002 - for subclasses
        """How a command of this package is run as the child `child`; a subclass may put something around it."""
        return [sys.executable, "-m", "kalshi_platform.cli", *command]

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        started = self._clock.monotonic()
        self.group.open()
        self._databases.start()
        self._say(
            f"databases of {len(self.names)} gatherers and of production: {self._clock.monotonic() - started:.1f} s"
        )
        base = {key: value for key, value in config.process_environment().items() if not key.startswith(OWN_VARIABLES)}
        addresses = start_simulator(
            self.group, self._simulation, base, self.folder, self._clock, EXCHANGE_STOP_S, self.command_line("exchange")
        )
        self.venue = SimulatorClient(addresses.control_url)
        self.prepare_exchange()
        databases = self._databases
        self.environ = environ = base | config.settings_of(
            config.StackAddresses(
                gatherers={name: (databases.timeseries[name], databases.catalog[name]) for name in self.names},
                production_url=databases.production,
                dagster_url=databases.dagster,
                lake_root=self.lake_folder.as_uri(),
                state_dir=self.folder / "state",
                dagster_home=self.folder,
                rest_url=addresses.rest_url,
                ws_url=addresses.ws_url,
                key_id=addresses.key_id,
                key_file=Path(addresses.key_file).absolute(),
                metrics_port=self.metrics_port(),
            )
        )
        environ |= self.more_settings()
        self.settings = config.load_platform(environ)
        self.start_gatherers()
        self.start_more(environ)


def remove_folder(folder: Path, data: Path, but: Path | None = None) -> None:
    """Remove a folder, except `but` in it, and the files of embedded servers below `data` that lie elsewhere."""
    for pointer in data.glob("postgres/*/cluster.location"):
        shutil.rmtree(Path(pointer.read_text(encoding="utf-8").strip()).parent, ignore_errors=True)
    if but is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for each in folder.iterdir():
        if each == but:
            continue
        if each.is_dir():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)
