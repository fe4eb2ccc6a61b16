"""Runs a whole platform on one machine: databases, (simulated) exchange, gatherers, live merge, lake, Dagster.

Headless, the gatherers and the merge are children of this process. With the UI they are runs under Dagster, kept alive
by its sensors, and this process watches Dagster itself.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec

from kalshi_platform import config
from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.exchange.settings import PRODUCTION_REST_URL
from kalshi_platform.gatherer.journal.spool import bytes_waiting
from kalshi_platform.gatherer.status.status import GathererStatus, WriterStatus
from kalshi_platform.local.addresses import users_part, write_env_block, write_local_json
from kalshi_platform.local.databases import DatabaseStack
from kalshi_platform.local.processes import process_table
from kalshi_platform.local.processes.ports import free_block, free_port, is_free
from kalshi_platform.local.processes.process_group import ChildSpec, ProcessGroup
from kalshi_platform.local.simulator_process import SimulationOptions, SimulatorAddresses, start_simulator
from kalshi_platform.local.status_lines import byte_text
from kalshi_platform.monitoring.heartbeat import FILE_NAME, Heartbeat, read_file
from kalshi_platform.surroundings import loopback

DEFAULT_UI_PORT = 3000
STOP_TIMEOUT_S = 15.0
"""A child that got its stop signal and makes no progress for so long is killed."""
_ENDED = frozenset({"stopped", "switched off"})


@dataclass(frozen=True)
class StackOptions:
    """What to bring up. `simulation` None means the configured exchange; `ui_port` None picks 3000, or a free one."""

    data_dir: Path
    simulation: SimulationOptions | None = None
    databases_only: bool = False
    headless: bool = False
    ui_port: int | None = None
    env_file: Path = field(default_factory=lambda: Path.cwd() / ".env")


class Stack:
    """Brings the parts up in order and takes them down in reverse. A context manager."""

    def __init__(self, options: StackOptions, say: Callable[[str], None], clock: Clock = SYSTEM_CLOCK) -> None:
        self._options = options
        self._say = say
        self._clock = clock
        self._started_at = clock.monotonic()
        self._given = config.environment_with(users_part(options.env_file))
        self._names = config.gatherer_names(self._given)
        self._databases = DatabaseStack(options.data_dir, self._names, self._given)
        self.group = ProcessGroup(options.data_dir / "logs", say=say)
        self._stop_limit_s = 0.0
        self._heartbeats_before: dict[str, datetime | None] = {}
        self.environ: dict[str, str] = {}
        self.exchange: SimulatorAddresses | None = None
        self.ui_url: str | None = None

    def check(self) -> None:
        """Refuse, before anything starts, what could not work later. Raises ConfigurationError."""
        ours = self._options.simulation is not None or self._options.databases_only
        config.check_before_start(self._given, exchange_is_ours=ours)
        # Dagster would find no configuration, or that of another folder, without an error.
        if not self._options.headless and set("*?[") & set(str(self._options.data_dir)):
            raise ConfigurationError(
                [
                    f"the data folder {self._options.data_dir} has * ? or [ in its path, which Dagster takes for a"
                    " pattern: choose another with --data, or use --headless"
                ]
            )
        self._stop_limit_s = config.stop_limit_s(self._given)

    def __enter__(self) -> Self:
        self.check()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop children (newest first), then the databases."""
        try:
            self.group.stop_all(deadline_s=16.0)
        finally:
            self._databases.stop()

    def stop_services(self) -> list[str]:
        """Stop the gatherers, which write what they hold, then the merge, not the databases; return what is wrong."""
        remains = []
        if self.exchange and self.group.pid("exchange") is None:
            remains.append(f"the simulated exchange had ended before: {self.log_tail('exchange')}")
        gatherers = []
        for child in map(_child_name, self._names):
            if self.group.pid(child) is None:
                remains.append(f"{child} did not run at the end: {self.log_tail(child)}")
            else:
                gatherers.append(child)
        self.group.stop(*gatherers)
        if self.group.pid("dedup") is not None:
            self.group.stop("dedup")
        return remains

    def wait_for_databases(self, patience_s: float = 60.0) -> None:
        """Wait while a database server is being started again: what gatherers hold can be written then."""
        process_table.wait_until(lambda: not self.problems(), patience_s, clock=self._clock, interval_s=0.2)
        if self.problems():
            return
        # A gatherer tries a database that was away every few seconds, and then writes what it put on disk.
        if any(self._spooled(name) for name in self._names):
            self._say("waiting for the gatherers to write what they put on disk while a database was away")
            process_table.wait_until(
                lambda: not any(self._spooled(name) for name in self._names),
                self._stop_limit_s,
                clock=self._clock,
                interval_s=0.2,
            )

    def problems(self) -> list[str]:
        """Return what is wrong with the database servers, for status lines."""
        return self._databases.problems()

    def find_remains(self) -> list[str]:
        """Return what waits on disk or was cut short, once everything is stopped."""
        remains: list[str] = []
        if self._options.databases_only:
            return remains
        for name in self._names:
            beat = self._heartbeat(name)
            if beat is None or beat.at == self._heartbeats_before.get(name) or beat.state in _ENDED:
                continue
            remains.append(
                f"gatherer {name} did not end by itself (its last state: {beat.state}): what it had received and not"
                f" written is missing there; it may take up to {self._stop_limit_s:.0f} s (KALSHI_STOP_LIMIT_S)"
            )
        remains += [
            f"gatherer {name}: {byte_text(size)} of records wait in its spool ({self._spool(name)}); its next"
            " start writes them to its database"
            for name in self._names
            if (size := self._spooled(name))
        ]
        return remains

    def _heartbeat(self, name: str) -> Heartbeat[GathererStatus] | None:
        return read_file(self._options.data_dir / "state" / name / FILE_NAME, GathererStatus)

    def _heartbeat_time(self, name: str) -> datetime | None:
        beat = self._heartbeat(name)
        return None if beat is None else beat.at

    def _spool(self, name: str) -> Path:
        return self._options.data_dir / "state" / name / "spool"

    def _spooled(self, name: str) -> int:
        return bytes_waiting(self._spool(name))

    def restart(self, name: str) -> None:
        """Stop and start one child."""
        self.group.restart(name)

    def log_tail(self, name: str) -> str:
        """Return the last lines of a child's log as one, for messages."""
        try:
            lines = (self.group.log_dir / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        return " ".join(line.strip() for line in lines[-5:]) or "it printed nothing"

    def settings(self) -> config.PlatformSettings:
        """All settings of the running stack."""
        return config.load_platform(self.environ)

    def elapsed_s(self) -> float:
        """Return the seconds since the stack was started."""
        return self._clock.monotonic() - self._started_at

    def _start(self) -> None:
        options = self._options
        options.data_dir.mkdir(parents=True, exist_ok=True)
        self._heartbeats_before = {name: self._heartbeat_time(name) for name in self._names}
        self.group.open()
        self._databases.start()
        self._databases.restart_dead_servers(self._say, self._clock)
        self._say(f"databases ready after {self.elapsed_s():.1f} s")
        if options.simulation is not None and not options.databases_only:
            base = config.process_environment()
            self.exchange = start_simulator(self.group, options.simulation, base, options.data_dir, self._clock)
            self._say(f"simulated exchange at {self.exchange.rest_url}")
        home = self._dagster_home()
        stack = config.StackAddresses(
            gatherers={name: (self._databases.timeseries[name], self._databases.catalog[name]) for name in self._names},
            production_url=self._databases.production,
            dagster_url=self._databases.dagster,
            lake_root=self._lake_root(),
            state_dir=options.data_dir / "state",
            dagster_home=home,
            rest_url=self.exchange.rest_url if self.exchange else None,
            ws_url=self.exchange.ws_url if self.exchange else None,
            key_id=self.exchange.key_id if self.exchange else None,
            key_file=Path(self.exchange.key_file).absolute() if self.exchange else None,
            metrics_port=self._metrics_port(),
        )
        values = config.settings_of(stack)
        self.environ = {**self._given, **values}
        write_env_block(options.env_file, values)
        if not options.databases_only:
            if options.headless:
                self._start_services()
            else:
                self._start_dagster(home)
        write_local_json(options.data_dir / "local.json", self._description(stack))

    def _start_services(self) -> None:
        for name in self._names:
            self._child(_child_name(name), partial(self.describe_remaining, name), "gather", name)
        self._child("dedup", None, "dedup")
        self._say(f"gatherers {', '.join(self._names)} and the live merge started")

    def _child(self, child: str, describe: Callable[[], str] | None, *command: str) -> None:
        argv = [sys.executable, "-m", "kalshi_platform.cli", *command]
        self._start_child(child, argv, STOP_TIMEOUT_S, describe)

    def _start_child(
        self, child: str, argv: Sequence[str], stop_timeout_s: float, describe: Callable[[], str] | None
    ) -> None:
        self.group.start(
            ChildSpec(
                child, argv, self.environ, Path.cwd(), restart=True, stop_timeout_s=stop_timeout_s,
                stop_limit_s=self._stop_limit_s, describe_remaining=describe,
            )
        )  # fmt: skip

    def describe_remaining(self, name: str) -> str:
        """Describe what an ending gatherer still holds; the text changes while it makes progress."""
        beat = self._heartbeat(name)
        if beat is None:
            return ""
        writer = beat.details.writer or WriterStatus()
        return (
            f"{name} {beat.details.note or beat.state} (heard of at {beat.at:%H:%M:%S},"
            f" {writer.queued:,} records in memory, {byte_text(self._spooled(name))} on disk,"
            f" {writer.commits:,} commits)"
        )

    def _start_dagster(self, home: Path) -> None:
        port = self._options.ui_port or (DEFAULT_UI_PORT if is_free(DEFAULT_UI_PORT) else free_port())
        self.ui_url = f"http://127.0.0.1:{port}"
        argv = [
            *(sys.executable, "-m", "dagster", "dev", "-w", str(home / "workspace.yaml")),
            *("-h", "127.0.0.1", "-p", str(port)),
        ]
        # The gatherers are runs in this process tree: Dagster's stop is also theirs.
        self._start_child(
            "dagster", argv, 14, lambda: "; ".join(filter(None, map(self.describe_remaining, self._names)))
        )

    def _dagster_home(self) -> Path:
        home = self._options.data_dir / "dagster"
        home.mkdir(parents=True, exist_ok=True)
        for name in ("dagster.yaml", "workspace.yaml"):
            shutil.copyfile(config.deployment_file(name), home / name)
        return home

    def _metrics_port(self) -> int:
        """The merge's port, before those of the gatherers: as given, else free ones."""
        given = self._given.get("KALSHI_METRICS_PORT", "").strip()
        return int(given) if given else free_block(1 + len(self._names))

    def _lake_root(self) -> str:
        return self._given.get("KALSHI_LAKE_ROOT") or (self._options.data_dir / "lake").as_uri()

    def _description(self, stack: config.StackAddresses) -> dict[str, Any]:
        return {
            "databases": {
                "production": stack.production_url,
                "dagster": stack.dagster_url,
                "gatherers": {
                    name: {"timeseries": timeseries, "catalog": catalog}
                    for name, (timeseries, catalog) in stack.gatherers.items()
                },
            },
            "lake": stack.lake_root,
            "ui": self.ui_url,
            "exchange": msgspec.to_builtins(self.exchange)
            if self.exchange
            else {"rest_url": self._given.get("KALSHI_REST_URL", PRODUCTION_REST_URL)},
            "metrics": {
                service: f"http://127.0.0.1:{config.metrics_port(service, stack.metrics_port, self._names)}/metrics"
                for service in ("deduplicator", *self._names)
                if stack.metrics_port
            },
            "state_dir": str(stack.state_dir),
            "logs": str(self.group.log_dir),
            "pid": os.getpid(),
            "processes": self.pids(),
        }

    def pids(self) -> dict[str, int]:
        """Child name → pid, of those that run."""
        names = ("exchange", *map(_child_name, self._names), "dedup", "dagster")
        found: Mapping[str, int | None] = {name: self.group.pid(name) for name in names}
        return {name: pid for name, pid in found.items() if pid is not None}


def _child_name(gatherer: str) -> str:
    return f"gather-{gatherer}"


def wait_for_http(url: str, stop: threading.Event, clock: Clock, timeout_s: float) -> bool:
    """Wait until `url` answers with 200; False on a stop or after `timeout_s`."""
    deadline = clock.monotonic() + timeout_s
    while not stop.is_set() and clock.monotonic() < deadline:
        try:
            with loopback.open(url, timeout=2) as answer:
                if answer.status == 200:
                    return True
        except OSError:
            clock.wait(stop, 0.2)
    return False
