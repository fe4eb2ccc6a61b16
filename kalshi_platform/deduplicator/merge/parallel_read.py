"""Reads all gatherers side by side, each with a deadline, so that one that hangs delays none of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import pyarrow as pa

from kalshi_platform.clock import Clock
from kalshi_platform.errors import KalshiPlatformError

Result = TypeVar("Result")


class PendingRead(Generic[Result]):
    """One read of one gatherer in a daemon thread: a server that hangs must not hold up the end of the process."""

    def __init__(self, name: str, task: Callable[[], Result]) -> None:
        self._task = task
        self._done = threading.Event()
        self.result: Result | None = None
        self.error: Exception | None = None
        threading.Thread(target=self._run, name=f"read-{name}", daemon=True).start()

    def _run(self) -> None:
        try:
            self.result = self._task()
        except Exception as error:  # noqa: BLE001 - raised or recorded by the thread that gathers
            self.error = error
        finally:
            self._done.set()

    def wait(self, timeout_s: float) -> bool:
        """Return whether there is a result or an error within `timeout_s`."""
        return self._done.wait(max(0.0, timeout_s))


class ParallelReader(Generic[Result]):
    """Reads of gatherers that may outlast a pass: a later pass gathers a late result, and none is started twice."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pending: dict[str, PendingRead[Result]] = {}

    def gather(
        self, tasks: Mapping[str, Callable[[], Result]], timeout_s: float
    ) -> tuple[dict[str, Result], dict[str, Exception]]:
        """Run a task per gatherer; return results and errors by gatherer.

        A gatherer without either after `timeout_s` has a TimeoutError, and its task goes on.
        """
        for name, task in tasks.items():
            if name not in self._pending:
                self._pending[name] = PendingRead(name, task)
        deadline = self._clock.monotonic() + timeout_s
        results: dict[str, Result] = {}
        errors: dict[str, Exception] = {}
        for name in tasks:
            read = self._pending[name]
            if not read.wait(deadline - self._clock.monotonic()):
                errors[name] = TimeoutError(f"no answer within {timeout_s:g} s; still waiting for it")
                continue
            del self._pending[name]
            if read.error is not None:
                errors[name] = read.error
            else:
                results[name] = read.result  # type: ignore[assignment]
        return results, errors


def describe_read_error(error: Exception) -> str:
    """Return what to record about a gatherer that cannot be read. Raises errors that are not expected of a read."""
    if isinstance(error, KalshiPlatformError | TimeoutError):
        return str(error)
    if isinstance(error, pa.ArrowException | OverflowError | ValueError):
        # A value of this gatherer that cannot be converted does not hold up the others.
        return f"its rows cannot be read: {type(error).__name__}: {error}"
    raise error
