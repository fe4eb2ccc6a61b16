"""Runs child processes: each in a session of its own, restarted with backoff, stopped with all its descendants.

A child that was sent its stop signal and still works (writes its last records, say) is waited for, up to a limit.
Each child writes to LOG_DIR/NAME.log (the log of the previous life is kept as NAME.log.1). If this process is killed,
the orphan reaper stops the children, and the next ProcessGroup on the same folder ends what is left, so no gatherer
stays behind. Embedded PostgreSQL servers are not children: they go on, and are adopted by the next start.
"""

from __future__ import annotations

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
from typing import Self

from filelock import FileLock, Timeout

from kalshi_platform.backoff import exponential
from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.errors import AnotherWriter, ConfigurationError
from kalshi_platform.local.processes import child_exec, process_table
from kalshi_platform.local.processes.orphan_reaper import OrphanReaper
from kalshi_platform.local.processes.process_tree import TREE_VARIABLE, ProcessTree, orphans
from kalshi_platform.monitoring.event_log import event_logger

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 30.0
HEALTHY_AFTER_S = 60.0
"""A child that ran this long was healthy: its next failure counts as the first again."""
REPORT_EVERY_S = 10.0
"""How often it is reported for what a stop waits."""
WORKING_SHARE = 0.03
"""An ending child that uses more of a processor than this works; one that only polls uses less."""

_log = event_logger(__name__)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run. `env` is the whole environment of the child; it is kept out of logs, since it holds secrets.

    After its stop signal it has `stop_timeout_s` to end; while it makes progress it has more, up to `stop_limit_s` in
    all. Progress is a changed text of `describe_remaining`, which says what it still has to do, or processor time used.
    `descendants_stay`: when it ends by itself its descendants go on, and its next life runs beside them; a stop or a
    restart of it ends them all the same.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    restart: bool = False
    stop_signal: signal.Signals = signal.SIGINT
    stop_timeout_s: float = 20.0
    stop_limit_s: float | None = None
    describe_remaining: Callable[[], str] | None = None
    descendants_stay: bool = False

    @property
    def longest_stop_s(self) -> float:
        """The time from the stop signal after which the child is killed, whatever it does."""
        return max(self.stop_timeout_s, self.stop_limit_s or 0.0)


@dataclass(frozen=True, slots=True)
class ChildExit:
    """How a child ended. `code` is negative for a signal; `restart_in_s` is None for a child that stays down."""

    name: str
    pid: int
    code: int
    restart_in_s: float | None


@dataclass(slots=True)
class _Child:
    spec: ChildSpec
    process: subprocess.Popen[bytes]
    tree: ProcessTree
    started_at: float
    failures: int = 0
    exited_at: float | None = None
    restart_at: float | None = None


def backoff_s(failures: int) -> float:
    """Return the wait before a restart after the nth failure in a row, from 1: 1, 2, 4, 8, 16, 30, 30, … seconds."""
    return exponential(FIRST_BACKOFF_S, LONGEST_BACKOFF_S, failures - 1)


class ProcessGroup:
    """The children of one stack; a context manager that stops them all. Safe to use from several threads."""

    def __init__(
        self, log_dir: Path, *, clock: Clock = SYSTEM_CLOCK, say: Callable[[str], None] = lambda _text: None
    ) -> None:
        """`say` gets a line for people about what a stop waits for, every REPORT_EVERY_S."""
        self.log_dir = log_dir.absolute()
        self.killed: list[str] = []
        """Children that were killed because they did not end in time."""
        self._say = say
        self._clock = clock
        self._key = sha256(bytes(self.log_dir.resolve())).hexdigest()[:16]
        self._run = secrets.token_hex(6)
        self._children: dict[str, _Child] = {}
        self._mutex = threading.RLock()
        self._lock = FileLock(self.log_dir / ".lock", 0, mode=0o600, thread_local=False, fallback_to_soft=False)
        self._reaper: OrphanReaper | None = None

    def open(self) -> None:
        """Lock the folder, and end what an earlier, killed life left behind; start() does it when it was not done.

        Raises AnotherWriter while another living process manages children there.
        """
        with self._mutex:
            if self._reaper is not None:
                return
            self.log_dir.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout:
                raise AnotherWriter(f"another living process runs its children with logs in {self.log_dir}") from None
            try:
                self._end_orphans()
                self._reaper = OrphanReaper()
            except BaseException:
                self._lock.release(force=True)
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
        """Detect exits, and restart what is due. Never blocks for long: call it every second or so."""
        with self._mutex:
            exits = []
            for child in self._children.values():
                if child.exited_at is None and child.process.poll() is not None:
                    exits.append(self._record_exit(child))
                elif child.restart_at is not None and self._clock.monotonic() >= child.restart_at:
                    self._restart_when_descendants_ended(child)
            return exits

    def restart(self, name: str) -> int:
        """Stop a child with all its descendants and start it again at once; return the new pid."""
        with self._mutex:
            child = self._children[name]
            child.tree.terminate()
            self._stop(child, child.spec.stop_timeout_s)
            fresh = self._spawn(child.spec)
            self._children[name] = fresh
            return fresh.process.pid

    def stop(self, *names: str) -> None:
        """Stop children with all their descendants, all at once; they stay down."""
        with self._mutex:
            children = [self._children[name] for name in names]
            for child in children:
                child.restart_at = None
                child.tree.terminate()
            for child in children:
                self._stop(child, child.spec.stop_timeout_s)

    def stop_all(self, deadline_s: float = 60.0) -> None:
        """Stop every child, the last started first: its stop signal, its timeout, then SIGKILL.

        After `deadline_s` seconds in all the rest is killed without further waiting, unless it makes progress.
        """
        with self._mutex:
            end = self._clock.monotonic() + deadline_s
            for child in reversed(self._children.values()):
                if self._has_members(child):
                    child.tree.terminate()
                self._stop(child, min(child.spec.stop_timeout_s, max(0.0, end - self._clock.monotonic())))
            self._children.clear()
            if self._reaper is not None:
                self._reaper.dismiss()
                self._reaper = None
            self._lock.release(force=True)

    def __enter__(self) -> Self:
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
                env={**spec.env, TREE_VARIABLE: token},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        tree = ProcessTree.of_child(token, process.pid, spec.stop_signal)
        child = _Child(spec, process, tree, self._clock.monotonic())
        assert self._reaper is not None  # noqa: S101 - open() started it
        self._reaper.register(tree, spec.longest_stop_s)
        _log.info("child_started", child=spec.name, pid=process.pid)
        return child

    def _record_exit(self, child: _Child) -> ChildExit:
        now = self._clock.monotonic()
        child.exited_at = now
        child.failures = 1 if now - child.started_at >= HEALTHY_AFTER_S else child.failures + 1
        delay = backoff_s(child.failures) if child.spec.restart else None
        child.restart_at = None if delay is None else now + delay
        code = child.process.returncode
        restart = {"restart": "none"} if delay is None else {"restart_in_s": delay}
        _log.warning("child_ended", child=child.spec.name, pid=child.process.pid, exit_code=code, **restart)
        if not child.spec.descendants_stay:
            # Descendants outlive their parent; beside a restarted parent they would be second ones of their kind.
            child.tree.terminate()
        return ChildExit(child.spec.name, child.process.pid, code, delay)

    def _restart_when_descendants_ended(self, child: _Child) -> None:
        now = self._clock.monotonic()
        if not child.spec.descendants_stay and child.tree.members():
            if child.exited_at is not None and now - child.exited_at < child.spec.stop_timeout_s:
                return
            child.tree.kill()
        try:
            fresh = self._spawn(child.spec)
        except (OSError, ConfigurationError) as error:
            child.failures += 1
            child.restart_at = now + backoff_s(child.failures)
            _log.warning("child_restart_failed", child=child.spec.name, error=error)
            return
        child.process, child.tree, child.started_at = fresh.process, fresh.tree, fresh.started_at
        child.exited_at = child.restart_at = None

    def _stop(self, child: _Child, timeout_s: float) -> None:
        """Wait for a child that was sent its stop signal, and kill it when it does not end."""
        child.restart_at = None
        if self._has_members(child):
            if not self._wait_for_end(child, timeout_s):
                _log.warning("child_killed", child=child.spec.name, reason="it did not stop in time")
                self.killed.append(child.spec.name)
                child.tree.kill()
            code = child.process.wait()
            if child.exited_at is None:
                _log.info("child_stopped", child=child.spec.name, pid=child.process.pid, exit_code=code)
        if child.exited_at is None:
            child.exited_at = self._clock.monotonic()

    @staticmethod
    def _has_members(child: _Child) -> bool:
        return child.process.poll() is None or child.exited_at is None or bool(child.tree.members())

    def _wait_for_end(self, child: _Child, timeout_s: float) -> bool:
        """Wait while there is time or progress; return whether the child and its descendants have ended."""
        spec, began = child.spec, self._clock.monotonic()
        limit = began + max(timeout_s, spec.stop_limit_s or 0.0)
        progress, progressed_at, report_at = _StopProgress(child), began, began + REPORT_EVERY_S
        while not process_table.wait_until(lambda: self._has_ended(child), min(0.5, timeout_s), clock=self._clock):
            now = self._clock.monotonic()
            if spec.stop_limit_s is not None and progress.was_made_over(now - progressed_at):
                progressed_at = now
            if now >= min(progressed_at + timeout_s, limit):
                return False
            if now >= report_at:
                report_at += REPORT_EVERY_S
                what = f": {progress.remaining}" if progress.remaining else ""
                self._say(f"waiting for {spec.name} to end ({now - began:.0f} s, at most {limit - began:.0f} s){what}")
        return True

    @staticmethod
    def _has_ended(child: _Child) -> bool:
        return child.process.poll() is not None and not child.tree.members()

    def _log_file(self, name: str) -> Path:
        return self.log_dir / f"{name}.log"

    # -- what an earlier life left ------------------------------------------------------------------------------------

    def _end_orphans(self) -> None:
        left = orphans(self._key, self._run)
        if not left:
            return
        _log.warning("orphans_ended", processes=len(left))
        process_table.send_signal(left, signal.SIGINT)

        def gone() -> bool:
            # A process that is ending loses its environment, by which orphans are known, a moment before it is gone.
            return not orphans(self._key, self._run) and not any(process_table.is_alive(pid) for pid in left)

        if not process_table.wait_until(gone, 20, clock=self._clock, interval_s=0.2):
            process_table.send_signal(orphans(self._key, self._run), signal.SIGKILL)
            process_table.wait_until(gone, 5, clock=self._clock)


class _StopProgress:
    """Decides whether an ending child still works."""

    def __init__(self, child: _Child) -> None:
        self._child = child
        self._cpu_s = self._used_s()
        self.remaining = self._describe_remaining()

    def was_made_over(self, over_s: float) -> bool:
        """Whether there was progress since the last time that there was some, `over_s` ago."""
        remaining, cpu_s = self._describe_remaining(), self._used_s()
        made = remaining != self.remaining or cpu_s - self._cpu_s > max(0.02, WORKING_SHARE * over_s)
        self.remaining = remaining
        if made:
            self._cpu_s = cpu_s
        return made

    def _describe_remaining(self) -> str:
        describe = self._child.spec.describe_remaining
        return "" if describe is None else describe()

    def _used_s(self) -> float:
        return process_table.total_cpu_s(self._child.tree.members())


def _rotate(path: Path) -> None:
    if path.exists():
        path.replace(path.with_name(f"{path.name}.1"))
