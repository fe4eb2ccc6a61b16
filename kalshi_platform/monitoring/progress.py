"""Reports how far long work is, to whatever shows it: rooms report, and a command listens. Writes nothing by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Progress:
    """`done` of `total` steps of a task; `total` is None where it is not known."""

    task: str
    done: int
    total: int | None


Listener: TypeAlias = Callable[[Progress], None]
_listeners: list[Listener] = []


def report_progress(task: str, done: int, total: int | None = None) -> None:
    """Report that `done` steps of a task are done; from any thread. Costs nothing while nobody listens."""
    for listener in tuple(_listeners):
        listener(Progress(task, done, total))


def report_each(task: str, items: Sequence[ItemT] | Iterable[ItemT]) -> Iterator[ItemT]:
    """Go through items, and report each that is done."""
    total = len(items) if isinstance(items, Sequence) else None
    report_progress(task, 0, total)
    for number, item in enumerate(items, 1):
        yield item
        report_progress(task, number, total)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` with every report while the block runs, from the thread that reports."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
