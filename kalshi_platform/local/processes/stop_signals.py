"""Turns the signals that end a program into one event."""

from __future__ import annotations

import signal
import threading
from types import FrameType


def stop_on_signals(stop: threading.Event) -> None:
    """Set `stop` at SIGINT, SIGTERM and SIGHUP; call from the main thread.

    Works also where a shell started us in the background, with SIGINT ignored.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handle)
