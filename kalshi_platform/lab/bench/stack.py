"""Servers and child processes of a benchmark, in a folder of its own that is removed afterwards.

The caller's settings are left out on purpose: a benchmark must never write to somebody's databases.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from kalshi_platform import config
from kalshi_platform.clock import Clock
from kalshi_platform.local.postgres.server import PostgresServer, PostgresSettings
from kalshi_platform.local.processes import process_table
from kalshi_platform.local.processes.process_group import ChildSpec, ProcessGroup
from kalshi_platform.local.simulator_process import SimulatorAddresses, start_exchange
from kalshi_platform.storage.migrate import DatabaseKind, migrate
from kalshi_platform.storage.pool import Database

SERVER = PostgresSettings(shared_buffers="1GB", max_wal_size="8GB", checkpoint_timeout="15min")
"""Room enough that no checkpoint falls into one run and not into the next; durability as everywhere: all on."""
_EXCHANGE_START_S = 300.0
_OWN = ("KALSHI_", "DAGSTER_", "AWS_")


class BenchStack:
    """A PostgreSQL server and a group of children; a context manager. `folder` must be new or empty."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder.absolute()
        self._clock = clock
        self._never = threading.Event()
        self.group = ProcessGroup(self.folder / "logs")
        self.server = PostgresServer(self.folder / "postgres" / "bench", "bench", SERVER)
        self._env = {key: value for key, value in config.process_environment().items() if not key.startswith(_OWN)}

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.group.open()
            self.server.start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop()
        for pointer in self.folder.glob("postgres/*/cluster.location"):
            shutil.rmtree(Path(pointer.read_text(encoding="utf-8").strip()).parent, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def database(self, name: str, kind: DatabaseKind) -> str:
        """Make a new database with the shipped schema; return its URL."""
        self.server.create_database(name)
        url = self.server.url(name)
        database = Database(url, name=name)
        try:
            migrate(database, kind)
        finally:
            database.dispose()
        return url

    def replay(self, capture: Path, speed: str) -> SimulatorAddresses:
        """Start an exchange that serves `capture` once one client holds all books; return its addresses.

        Raises ExchangeUnavailable.
        """
        arguments = ["replay", str(capture), "--speed", speed, "--wait-subscribers", "1"]
        return start_exchange(
            self.group, arguments, self._env, self.folder, self._clock, start_timeout_s=_EXCHANGE_START_S
        )

    def start(self, name: str, module: str, *arguments: str) -> int:
        """Start `python -m module` as a child; return its pid."""
        argv = [sys.executable, "-m", module, *arguments]
        return self.group.start(ChildSpec(name, argv, self._env, self.folder, restart=False, stop_timeout_s=60))

    def run_host(
        self, name: str, module: str, folder: Path, spec: Mapping[str, Any], timeout_s: float
    ) -> dict[str, Any] | None:
        """Run `python -m module SPEC` in a process of its own; return what it wrote beside the spec as `result.json`.

        `folder` is made; the spec may hold addresses with passwords. None where it ended without a result.
        """
        folder.mkdir()
        path, result = folder / "spec.json", folder / "result.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(spec), encoding="utf-8")
        self.start(name, module, str(path))
        self.wait(lambda: result.exists() or not self.is_running(name), timeout_s)
        self.wait(lambda: not self.is_running(name), 30.0)
        return json.loads(result.read_text(encoding="utf-8")) if result.exists() else None

    def checkpoint(self, url: str) -> None:
        """Write what the server still holds in memory, so that it does not fall into the time that is measured."""
        database = Database(url, name="bench")
        try:
            with database.transaction() as transaction:
                transaction.execute("CHECKPOINT")
        finally:
            database.dispose()

    def is_running(self, name: str) -> bool:
        """Whether a child lives."""
        self.group.poll()
        return self.group.pid(name) is not None

    def server_pids(self) -> set[int]:
        """All processes of the PostgreSQL server."""
        return process_table.find_by_working_directory(self.server.cluster.resolve())

    def log_of(self, name: str) -> str:
        """The end of a child's log."""
        path = self.group.log_dir / f"{name}.log"
        return path.read_text(errors="replace")[-2_000:] if path.exists() else ""

    def monotonic(self) -> float:
        """Seconds of a clock that never steps back."""
        return self._clock.monotonic()

    def wait(self, condition: Callable[[], bool], timeout_s: float, interval_s: float = 0.05) -> bool:
        """Poll until `condition` holds; return whether it does."""
        return process_table.wait_until(condition, timeout_s, clock=self._clock, interval_s=interval_s)

    def _stop(self) -> None:
        try:
            self.group.stop_all(deadline_s=20.0)
        finally:
            self.server.stop()
