"""Runs a whole platform on one machine: databases, (simulated) exchange, gatherers, live merge, lake, Dagster.

Headless, the gatherers and the merge are children of this process. With the UI they are runs under Dagster, kept alive
by its sensors, and this process watches Dagster itself.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import msgspec

from kalshi_platform import config
from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.exchange.settings import PRODUCTION_REST_URL
from kalshi_platform.gatherer.status.status import GathererStatus, IngestStatus
from kalshi_platform.local.addresses import users_part, write_env_block, write_local_json
from kalshi_platform.local.dagster_processes import CODE_SERVER, DAEMON, DAGSTER, dagster_children
from kalshi_platform.local.databases import DatabaseStack
from kalshi_platform.local.processes import process_table
from kalshi_platform.local.processes.ports import free_block, free_port, is_free
from kalshi_platform.local.processes.process_group import ChildExit, ChildSpec, ProcessGroup
from kalshi_platform.local.simulated_settings import names_left_aside
from kalshi_platform.local.simulator_process import PROGRAM, SimulationOptions, SimulatorAddresses, start_simulator
from kalshi_platform.local.status_lines import byte_text
from kalshi_platform.monitoring.heartbeat import FILE_NAME, Heartbeat, read_file
from kalshi_platform.storage import queries
from kalshi_platform.storage.pool import Database

DEFAULT_UI_PORT = 3000
STOP_TIMEOUT_S = 15.0
"""A child that got its stop signal and makes no progress for so long is killed."""
EXCHANGE_STOP_TIMEOUT_S = 60.0
CONFIGURATION_EXIT_CODE = 2
"""Exit code of a child whose settings cannot work: starting it again would change nothing."""
LOCAL_JSON = "local.json"
_MERGE = "dedup"
_RUNNING = "running"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_ENDED = frozenset({"stopped", "switched off"})
_SQL = queries.load(Path(__file__).with_name("queries.sql"))


class Past(Protocol):
    """A past that a simulated exchange passes through fast; services record it before Dagster's runs take over."""

    @property
    def begin(self) -> datetime:
        """Its first hour, which is also the first that Dagster offers as a partition."""

    def prepare(self) -> None:
        """Called before anything runs by its clock."""

    def simulation(self, given: SimulationOptions) -> SimulationOptions:
        """Return the options of the exchange."""

    def command_line(self, *command: str) -> Sequence[str]:
        """Return how a command of the platform is run by its clock."""

    def settings(self) -> Mapping[str, str]:
        """Return settings of services that record it."""

    def start(self, stack: Stack, stop: threading.Event) -> None:
        """Wait until the services record, let time pass, and go on without waiting. Raises StartFailed."""

    def ui_is_ready(self) -> None:
        """Called once Dagster has loaded the code location."""

    def join(self, timeout_s: float) -> None:
        """Wait for what still works on it, after the stop of the stack was requested."""

    def describe(self) -> str:
        """Return its time while that is not now, for status lines; empty afterwards."""


@dataclass(frozen=True)
class StackOptions:
    """What to bring up. `simulation` None means the configured exchange; `ui_port` None picks 3000, or a free one.

    `past`: of a simulation with the UI. It is left out where production holds rows already.
    """

    data_dir: Path
    simulation: SimulationOptions | None = None
    databases_only: bool = False
    headless: bool = False
    ui_port: int | None = None
    env_file: Path = field(default_factory=lambda: Path.cwd() / ".env")
    past: Past | None = None


class Stack:
    """Brings the parts up in order and takes them down in reverse. A context manager."""

    def __init__(
        self,
        options: StackOptions,
        say: Callable[[str], None],
        clock: Clock = SYSTEM_CLOCK,
        stop: threading.Event | None = None,
    ) -> None:
        self._options = options
        self._stop_requested = stop
        self._say = say
        self._clock = clock
        self._started_at = clock.monotonic()
        given = config.environment_with(users_part(options.env_file))
        is_simulated = options.simulation is not None and not options.databases_only
        self._left_aside = names_left_aside(given) if is_simulated else []
        # Empty, not absent: children read `.env` themselves.
        self._given = given | dict.fromkeys(self._left_aside, "")
        self._names = config.gatherer_names(self._given)
        self._databases = DatabaseStack(options.data_dir, self._names, self._given)
        self.group = ProcessGroup(options.data_dir / "logs", say=say)
        self._stop_limit_s = 0.0
        self._heartbeats_before: dict[str, datetime | None] = {}
        self.environ: dict[str, str] = {}
        self.exchange: SimulatorAddresses | None = None
        self.ui_url: str | None = None
        self.past: Past | None = None
        self._addresses: config.StackAddresses | None = None
        self._past_from: datetime | None = None
        self._caught_up_at: datetime | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the gatherers."""
        return self._names

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
        """Stop Dagster, which would start services again, then services, all at once, the exchange, the databases."""
        try:
            running = self.pids()
            services = [name for name in running if name not in (*DAGSTER, "exchange")]
            for together in (DAGSTER, services):
                self.group.stop(*(name for name in together if name in running))
            self.group.stop_all(deadline_s=self._stop_limit_s)
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
        if self.group.pid(_MERGE) is not None:
            self.group.stop(_MERGE)
        return remains

    def stop_children_of(self, *services: str) -> None:
        """Stop children that host services, a gatherer's name or `dedup`; they write what they hold."""
        self.group.stop(*(service if service == _MERGE else _child_name(service) for service in services))

    def is_hosted_by_run(self, gatherer: str) -> bool:
        """Whether a run of Dagster records under this name."""
        beat = self._heartbeat(gatherer)
        return beat is not None and beat.run_id is not None and beat.state == _RUNNING

    def pid_of(self, gatherer: str) -> int | None:
        """Return the process that records under this name; None: it is not known."""
        beat = self._heartbeat(gatherer)
        return None if beat is None else beat.pid

    def note_caught_up(self, at: datetime) -> None:
        """Publish that the past is over."""
        self._caught_up_at = at
        self.publish()

    def poll(self) -> list[ChildExit]:
        """Start ended children again, and report each; return them.

        Raises ConfigurationError for one that refuses its settings.
        """
        ended = self.group.poll()
        for gone in ended:
            again = "" if gone.restart_in_s is None else f", started again in {gone.restart_in_s:.0f} s"
            if gone.code == CONFIGURATION_EXIT_CODE:
                raise ConfigurationError([f"{gone.name} refuses its settings: {self.log_tail(gone.name)}"])
            self._say(f"{gone.name} (pid {gone.pid}) ended with code {gone.code}{again}")
        return ended

    def wait_for_databases(self, patience_s: float = 60.0) -> None:
        """Wait while a database server is being started again: what gatherers hold can be written then."""
        process_table.wait_until(lambda: not self.problems(), patience_s, clock=self._clock, interval_s=0.2)
        if self.problems():
            return
        # A gatherer tries a database that was away every few seconds, and then writes what waits in its journal.
        if not all(self._ingest(name).is_current for name in self._names):
            self._say("waiting for the gatherers to write what they received while a database was away")
            process_table.wait_until(
                lambda: all(self._ingest(name).is_current for name in self._names),
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
            f"gatherer {name}: {byte_text(size)} wait in its journal; its next start writes them to its database"
            for name in self._names
            if (size := self._ingest(name).behind_bytes)
        ]
        return remains

    def _heartbeat(self, name: str) -> Heartbeat[GathererStatus] | None:
        return read_file(self._options.data_dir / "state" / name / FILE_NAME, GathererStatus)

    def _heartbeat_time(self, name: str) -> datetime | None:
        beat = self._heartbeat(name)
        return None if beat is None else beat.at

    def _ingest(self, name: str) -> IngestStatus:
        beat = self._heartbeat(name)
        return (None if beat is None else beat.details.ingest) or IngestStatus()

    def restart_daemon(self) -> None:
        """Stop and start Dagster's daemon, which evaluates sensors and schedules; runs go on."""
        self.group.restart(DAEMON)

    def restart_dagster(self) -> None:
        """Stop and start Dagster's daemon and code server, with all runs of it."""
        self.group.restart(CODE_SERVER)
        self.group.restart(DAEMON)

    def log_tail(self, name: str, lines_shown: int = 5) -> str:
        """Return the last lines of a child's log as one, for messages."""
        try:
            lines = (self.group.log_dir / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        return " ".join(_COLOURS.sub("", line).strip() for line in lines[-lines_shown:]) or "it printed nothing"

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
        if self._left_aside:
            self._say(f"the exchange is simulated; these settings are left aside: {', '.join(self._left_aside)}")
        self.group.open()
        self._databases.start()
        self._databases.restart_dead_servers(self._say, self._clock)
        self._say(f"databases ready after {self.elapsed_s():.1f} s")
        self._choose_past()
        if options.simulation is not None and not options.databases_only:
            self._start_exchange(options.simulation)
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
        self._addresses = stack
        values = dict.fromkeys(self._left_aside, "") | config.settings_of(stack)
        if self._past_from is not None:
            values["KALSHI_PARTITIONS_START"] = f"{self._past_from:%Y-%m-%dT%H:%M}"
        self.environ = {**self._given, **values}
        write_env_block(options.env_file, values)
        if not options.databases_only:
            if not options.headless:
                self.ui_url = f"http://127.0.0.1:{self._choose_ui_port()}"
            if options.headless or self.past is not None:
                self._start_services()
            else:
                self.start_dagster()
        self.publish()

    def _choose_past(self) -> None:
        """Take the past where there is none yet: one that was recorded before stays the first hour of partitions."""
        self._past_from, self._caught_up_at = read_past(self._options.data_dir / LOCAL_JSON)
        past = self._options.past
        if past is None:
            return
        if self._holds_rows():
            self._say("production holds rows already: the simulated exchange begins now, and not in the past")
            return
        past.prepare()
        self.past, self._past_from, self._caught_up_at = past, past.begin, None

    def _holds_rows(self) -> bool:
        production = Database(self._databases.production, name="production", pool_size=1)
        try:
            with production.transaction() as transaction:
                return bool(transaction.fetch_all(_SQL["merged_rows"]))
        finally:
            production.dispose()

    def _start_exchange(self, simulation: SimulationOptions) -> None:
        program: Sequence[str] = PROGRAM
        if self.past is not None:
            simulation, program = self.past.simulation(simulation), self.past.command_line()
        self.exchange = start_simulator(
            self.group, simulation, config.process_environment(), self._options.data_dir, self._clock,
            EXCHANGE_STOP_TIMEOUT_S, program, self._say, self._stop_requested,
        )  # fmt: skip
        self._say(f"simulated exchange at {self.exchange.rest_url}")

    def publish(self) -> None:
        """Write the addresses, and the processes that run now, to `local.json`."""
        if self._addresses is not None:
            write_local_json(self._options.data_dir / LOCAL_JSON, self._description(self._addresses))

    def _start_services(self) -> None:
        for name in self._names:
            self._child(_child_name(name), partial(self.describe_remaining, name), "gather", name)
        self._child(_MERGE, None, "dedup")
        self._say(f"gatherers {', '.join(self._names)} and the live merge started")

    def _child(self, child: str, describe: Callable[[], str] | None, *command: str) -> None:
        argv, environ = [*PROGRAM, *command], self.environ
        if self.past is not None:
            argv, environ = [*self.past.command_line(*command)], {**environ, **self.past.settings()}
        self._start_child(child, argv, environ, STOP_TIMEOUT_S, describe)

    def _start_child(
        self,
        child: str,
        argv: Sequence[str],
        environ: Mapping[str, str],
        stop_timeout_s: float,
        describe: Callable[[], str] | None,
    ) -> None:
        self.group.start(
            ChildSpec(
                child, argv, environ, Path.cwd(), restart=True, stop_timeout_s=stop_timeout_s,
                stop_limit_s=self._stop_limit_s, describe_remaining=describe,
            )
        )  # fmt: skip

    def describe_remaining(self, name: str) -> str:
        """Describe what an ending gatherer still holds; the text changes while it makes progress."""
        beat = self._heartbeat(name)
        if beat is None:
            return ""
        ingest = self._ingest(name)
        return (
            f"{name} {beat.details.note or beat.state} (heard of at {beat.at:%H:%M:%S},"
            f" {byte_text(ingest.behind_bytes)} not in the database, {ingest.commits:,} commits)"
        )

    def start_dagster(self) -> None:
        """Start Dagster with its UI at `ui_url`."""
        port = urlsplit(str(self.ui_url)).port

        def describe() -> str:
            return "; ".join(filter(None, map(self.describe_remaining, self._names)))

        home = self._dagster_home()
        for child in dagster_children(home, self.environ, port or 0, free_port(), self._stop_limit_s, describe):
            self.group.start(child)

    def _choose_ui_port(self) -> int:
        return self._options.ui_port or (DEFAULT_UI_PORT if is_free(DEFAULT_UI_PORT) else free_port())

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
            "past_from": _moment(self._past_from),
            "caught_up_at": _moment(self._caught_up_at),
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
        names = ("exchange", *map(_child_name, self._names), _MERGE, *DAGSTER)
        found: Mapping[str, int | None] = {name: self.group.pid(name) for name in names}
        return {name: pid for name, pid in found.items() if pid is not None}


def _child_name(gatherer: str) -> str:
    return f"gather-{gatherer}"


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def read_past(path: Path) -> tuple[datetime | None, datetime | None]:
    """Return where the past of an earlier start begins, and when it was caught up; None for what there was not."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        begin, end = (content.get(name) for name in ("past_from", "caught_up_at"))
        return (
            None if begin is None else datetime.fromisoformat(begin),
            None if end is None else datetime.fromisoformat(end),
        )
    except (OSError, ValueError, AttributeError, TypeError):
        return None, None
