"""Waits for something that a slow machine takes long for, and says for what."""

from __future__ import annotations

import threading
from collections.abc import Callable

from kalshi_platform.clock import Clock

SAY_EVERY_S = 15.0
LOOK_EVERY_S = 0.25


def wait_saying(
    what: Callable[[], str],
    probe: Callable[[], bool],
    stop: threading.Event,
    say: Callable[[str], None],
    clock: Clock,
    timeout_s: float,
) -> bool:
    """Wait until `probe` holds; return whether it does. False on `stop` and after `timeout_s`.

    Every SAY_EVERY_S `say` gets a line: for how long it has waited, and for `what`.
    """
    began = clock.monotonic()
    say_at = began + SAY_EVERY_S
    while not probe():
        now = clock.monotonic()
        if now - began >= timeout_s or clock.wait(stop, LOOK_EVERY_S):
            return False
        if now >= say_at:
            say_at += SAY_EVERY_S
            say(f"waiting for {what()} ({now - began:.0f} s)")
    return True
