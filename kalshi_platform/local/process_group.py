"""Child processes: started in sessions of their own, restarted with backoff, stopped with all their descendants.

Each child writes to LOG_DIR/NAME.log (the log of the previous life is kept as NAME.log.1). If this process is killed, a
guardian stops the children (see guardian.py), and the next ProcessGroup on the same folder removes what is left, so no
gatherer stays behind. Embedded PostgreSQL servers are not children: they go on, and are adopted by the next start.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import TracebackType

import kalshi_platform
from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.errors import AnotherWriter, ConfigurationError
from kalshi_platform.local import child_exec, guardian, processes
from kalshi_platform.local.families import FAMILY_VARIABLE, Family, strays
from kalshi_platform.local.file_lock import FileLock

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 30.0
# A child that ran this long was healthy: its next failure counts as the first again.
HEALTHY_AFTER_S = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run. `env` is the whole environment of the child; it is kept out of logs, since it holds secrets."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    restart: bool = False
    stop_signal: signal.Signals = signal.SIGINT
    stop_timeout_s: float = 20.0


@dataclass(frozen=True, slots=True)
class ChildExit:
    """One exit. `code` is negative for a signal; `restart_in_s` is None for a child that stays down."""

    name: str
    pid: int
    code: int
    restart_in_s: float | None


@dataclass(slots=True)
class _Child:
    spec: ChildSpec
    process: subprocess.Popen[bytes]
    family: Family
    started_at: float
    failures: int = 0
    exited_at: float | None = None
    restart_at: float | None = None


def backoff_s(failures: int) -> float:
    """Return the wait before a restart after the nth failure in a row, from 1: 1, 2, 4, 8, 16, 30, 30, … seconds."""
    return min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 10))


class ProcessGroup:
    """The children of one stack; a context manager that stops them all. Safe to use from several threads."""

    def __init__(self, log_dir: Path, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.log_dir = log_dir.absolute()
        self._clock = clock
        self._key = sha256(bytes(self.log_dir.resolve())).hexdigest()[:16]
        self._run = secrets.token_hex(6)
        self._children: dict[str, _Child] = {}
        self._mutex = threading.RLock()
        self._lock = FileLock(self.log_dir / ".lock")
        self._guardian: subprocess.Popen[str] | None = None

    def open(self) -> None:
        """Take the folder, and end what an earlier, killed life left behind. start() does it when it was not done.

        Raises AnotherWriter while another living process manages children there.
        """
        with self._mutex:
            if self._guardian is not None:
                return
            self.log_dir.mkdir(parents=True, exist_ok=True)
            if not self._lock.acquire(wait=False):
                raise AnotherWriter(f"another living process runs its children with logs in {self.log_dir}")
            try:
                self._end_strays()
                self._guardian = self._start_guardian()
            except BaseException:
                self._lock.release()
                raise

    def start(self, spec: ChildSpec) -> int:
        """Start a child and return its pid. Raises ConfigurationError when its program does not exist."""
        with self._mutex:
            self.open()
            known = self._children.get(spec.name)
            if known is not None and (known.exited_at is None or known.restart_at is not None):
                raise ValueError(f"child {spec.name} is already running or about to")
            _rotate(self._log_file(spec.name))
            child = self._spawn(spec)
            self._children.pop(spec.name, None)
            self._children[spec.name] = child
            return child.process.pid

    def pid(self, name: str) -> int | None:
        """Return the pid of a running child."""
        with self._mutex:
            child = self._children.get(name)
            return child.process.pid if child is not None and child.process.poll() is None else None

    def poll(self) -> list[ChildExit]:
        """Notice exits, and restart what is due. Never blocks for long: call it every second or so."""
        with self._mutex:
            exits = []
            for child in self._children.values():
                if child.exited_at is None and child.process.poll() is not None:
                    exits.append(self._exited(child))
                elif child.restart_at is not None and self._clock.monotonic() >= child.restart_at:
                    self._restart_when_clear(child)
            return exits

    def supervise(
        self, stop: threading.Event, *, on_exit: Callable[[ChildExit], None] | None = None, interval_s: float = 0.5
    ) -> None:
        """Poll until `stop` is set; `on_exit` hears of every exit and may set `stop`."""
        while not self._clock.wait(stop, interval_s):
            for gone in self.poll():
                if on_exit is not None:
                    on_exit(gone)

    def restart(self, name: str) -> int:
        """Stop a child with all its descendants and start it again at once; return the new pid."""
        with self._mutex:
            child = self._children[name]
            self._stop(child, child.spec.stop_timeout_s)
            fresh = self._spawn(child.spec)
            self._children[name] = fresh
            return fresh.process.pid

    def stop(self, name: str) -> None:
        """Stop a child with all its descendants; it stays down."""
        with self._mutex:
            child = self._children[name]
            self._stop(child, child.spec.stop_timeout_s)

    def stop_all(self, deadline_s: float = 60.0) -> None:
        """Stop every child, the last started first: its stop signal, its timeout, then SIGKILL.

        After `deadline_s` seconds in all the rest is killed without further waiting.
        """
        with self._mutex:
            end = self._clock.monotonic() + deadline_s
            for child in reversed(self._children.values()):
                self._stop(child, min(child.spec.stop_timeout_s, max(0.0, end - self._clock.monotonic())))
            self._children.clear()
            self._dismiss_guardian()
            self._lock.release()

    def __enter__(self) -> ProcessGroup:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()

    # -- one child ------------------------------------------------------------------------------------------------

    def _spawn(self, spec: ChildSpec) -> _Child:
        program = shutil.which(spec.argv[0], path=spec.env.get("PATH"))
        if program is None:
            raise ConfigurationError([f"child {spec.name}: no program {spec.argv[0]} on this system"])
        token = f"{self._key}.{self._run}/{spec.name}"
        with self._log_file(spec.name).open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(child_exec.__file__), program, *spec.argv],
                cwd=spec.cwd,
                env={**spec.env, FAMILY_VARIABLE: token},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        family = Family(token, process.pid, processes.started_at(process.pid), spec.stop_signal)
        child = _Child(spec, process, family, self._clock.monotonic())
        self._tell_guardian(child)
        log.info("child %s started (pid %d)", spec.name, process.pid)
        return child

    def _exited(self, child: _Child) -> ChildExit:
        now = self._clock.monotonic()
        child.exited_at = now
        child.failures = 1 if now - child.started_at >= HEALTHY_AFTER_S else child.failures + 1
        delay = backoff_s(child.failures) if child.spec.restart else None
        child.restart_at = None if delay is None else now + delay
        code = child.process.returncode
        log.warning(
            "child %s (pid %d) ended with exit code %d, %s",
            child.spec.name,
            child.process.pid,
            code,
            "not restarted" if delay is None else f"restart in {delay:g} s",
        )
        # Descendants outlive their parent (Dagster's runs do); beside a restarted parent they would be second writers.
        child.family.ask()
        return ChildExit(child.spec.name, child.process.pid, code, delay)

    def _restart_when_clear(self, child: _Child) -> None:
        now = self._clock.monotonic()
        if child.family.members():
            if child.exited_at is not None and now - child.exited_at < child.spec.stop_timeout_s:
                return
            child.family.kill()
        try:
            fresh = self._spawn(child.spec)
        except (OSError, ConfigurationError) as error:
            child.failures += 1
            child.restart_at = now + backoff_s(child.failures)
            log.warning("child %s cannot be restarted: %s", child.spec.name, error)
            return
        child.process, child.family, child.started_at = fresh.process, fresh.family, fresh.started_at
        child.exited_at = child.restart_at = None

    def _stop(self, child: _Child, timeout_s: float) -> None:
        child.restart_at = None
        was_running = child.process.poll() is None
        if was_running or child.exited_at is None or child.family.members():
            child.family.ask()
            if not processes.wait_until(lambda: self._gone(child), timeout_s, clock=self._clock):
                log.warning("child %s did not stop within %g s: killing it", child.spec.name, timeout_s)
                child.family.kill()
            code = child.process.wait()
            if child.exited_at is None:
                log.info("child %s (pid %d) stopped with exit code %d", child.spec.name, child.process.pid, code)
        if child.exited_at is None:
            child.exited_at = self._clock.monotonic()

    @staticmethod
    def _gone(child: _Child) -> bool:
        return child.process.poll() is not None and not child.family.members()

    def _log_file(self, name: str) -> Path:
        return self.log_dir / f"{name}.log"

    # -- what outlives us -----------------------------------------------------------------------------------------

    def _end_strays(self) -> None:
        left = strays(self._key, self._run)
        if not left:
            return
        log.warning("ending %d processes that an earlier run left behind", len(left))
        processes.send(left, signal.SIGINT)

        def gone() -> bool:
            # A process that is ending loses its environment, by which strays are known, a moment before it is gone.
            return not strays(self._key, self._run) and not any(processes.is_alive(pid) for pid in left)

        if not processes.wait_until(gone, 20, clock=self._clock, interval_s=0.2):
            processes.send(strays(self._key, self._run), signal.SIGKILL)
            processes.wait_until(gone, 5, clock=self._clock)

    def _start_guardian(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", guardian.__name__],
            cwd="/",
            env={"PYTHONPATH": str(Path(kalshi_platform.__file__).parent.parent), "PATH": "/usr/bin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def _tell_guardian(self, child: _Child) -> None:
        message = {
            "token": child.family.token,
            "leader": child.family.leader,
            "leader_started": child.family.leader_started,
            "signal": int(child.spec.stop_signal),
            "timeout_s": child.spec.stop_timeout_s,
        }
        try:
            assert self._guardian is not None and self._guardian.stdin is not None  # noqa: S101, PT018
            print(json.dumps(message), file=self._guardian.stdin, flush=True)
        except BrokenPipeError:
            log.warning(
                "the guardian process is gone: if this process is killed, its children stay until the next start"
            )

    def _dismiss_guardian(self) -> None:
        if self._guardian is not None:
            try:
                self._guardian.communicate("done\n", timeout=10)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                self._guardian.kill()
                self._guardian.wait()
            self._guardian = None


def _rotate(path: Path) -> None:
    if path.exists():
        path.replace(path.with_name(f"{path.name}.1"))
