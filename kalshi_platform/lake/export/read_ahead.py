"""Read in one thread what another one writes: driver and Parquet writer both work outside the interpreter lock."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class _End(Generic[T]):
    """What comes after the last item: the error that ended the reading, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


@contextmanager
def read_ahead(items: Iterator[T], depth: int = 2) -> Iterator[Iterator[T]]:
    """Yield an iterator over `items`, which a thread reads up to `depth` items ahead; an error comes out in its place.

    When the block ends the thread has ended too, and `items` may be closed.
    """
    waiting: queue.Queue[T | _End[T]] = queue.Queue(depth)
    stop = threading.Event()

    def read() -> None:
        end: _End[T] = _End()
        try:
            for item in items:
                waiting.put(item)
                if stop.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            end = _End(error)
        waiting.put(end)

    thread = threading.Thread(target=read, name="read ahead", daemon=True)
    thread.start()
    try:
        yield _until_end(waiting)
    finally:
        stop.set()
        while thread.is_alive():
            # The thread may wait for room in the queue.
            with contextlib.suppress(queue.Empty):
                waiting.get(timeout=0.05)
        thread.join()


def _until_end(waiting: queue.Queue[T | _End[T]]) -> Iterator[T]:
    while True:
        item = waiting.get()
        if not isinstance(item, _End):
            yield item
            continue
        if item.error is not None:
            raise item.error
        return
