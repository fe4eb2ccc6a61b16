"""Shows how far a command is: bars on a terminal, and a line now and then in logs and pipes."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kalshi_platform.cli.console import print_line
from kalshi_platform.monitoring.plain_text import plain
from kalshi_platform.monitoring.progress import Progress, listening

if TYPE_CHECKING:
    from rich.progress import TaskID

LINE_EVERY_S = 15.0


@contextmanager
def progress_shown(title: str) -> Iterator[None]:
    """Show what is reported (`monitoring.progress`) while the block runs; on a terminal also `title` and the time."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        with _bars_shown(title):
            yield
    else:
        with listening(ProgressLines(print_line, time.monotonic)):
            yield


class ProgressLines:
    """Prints a line of each task that takes long: at most one every LINE_EVERY_S, none of what is over sooner."""

    def __init__(self, print_text: Callable[[str], None], monotonic: Callable[[], float]) -> None:
        self._print = print_text
        self._monotonic = monotonic
        self._printed_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, progress: Progress) -> None:
        """Take a report, from any thread."""
        now = self._monotonic()
        with self._lock:
            if now - self._printed_at.setdefault(progress.task, now) < LINE_EVERY_S:
                return
            self._printed_at[progress.task] = now
        self._print(describe(progress))


def describe(progress: Progress) -> str:
    """Describe a report in a line, such as `merged: 12 of 40`."""
    total = "" if progress.total is None else f" of {progress.total:,}"
    return f"{progress.task}: {progress.done:,}{total}"


@contextmanager
def _bars_shown(title: str) -> Iterator[None]:
    """Draw a line with a clock, and a bar for each task. What is printed or logged meanwhile goes above them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    bars = Bars(*columns, console=Console(file=sys.stdout), transient=True)
    tasks: dict[str, TaskID] = {}
    lock = threading.Lock()

    def show(progress: Progress) -> None:
        with lock:
            if progress.task not in tasks:
                tasks[progress.task] = bars.add_task(escape(plain(progress.task, 60)), total=progress.total)
        bars.update(tasks[progress.task], completed=progress.done, total=progress.total)

    stderr = sys.stderr
    with bars:
        bars.add_task(escape(plain(title, 60)), total=None)
        with _logs_to(sys.stderr, instead_of=stderr), listening(show):
            yield


@contextmanager
def _logs_to(stream: object, *, instead_of: object) -> Iterator[None]:
    """Let log handlers that write to a stream write to another one: rich replaces sys.stderr, and they hold the old."""
    handlers = [each for each in logging.getLogger().handlers if isinstance(each, logging.StreamHandler)]
    moved = [each for each in handlers if each.stream is instead_of]
    for handler in moved:
        handler.setStream(stream)
    try:
        yield
    finally:
        for handler in moved:
            handler.setStream(instead_of)
