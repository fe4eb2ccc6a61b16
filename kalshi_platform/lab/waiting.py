"""Waits for something that another process brings about, while the caller goes on with what waiting means to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from kalshi_platform.clock import Clock

Answer = TypeVar("Answer")


def wait_for_answer(
    probe: Callable[[], Answer], patience_s: float, wait: Callable[[float], None], clock: Clock, every_s: float
) -> Answer | None:
    """Return the first true answer of `probe`; None when there is none within `patience_s`.

    `wait` lets seconds pass, and does meanwhile what must be done.
    """
    deadline = clock.monotonic() + patience_s
    while not (found := probe()):
        if clock.monotonic() > deadline:
            return None
        wait(every_s)
    return found
