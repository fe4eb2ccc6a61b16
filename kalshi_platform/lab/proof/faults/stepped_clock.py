"""A command of the platform in a process whose clock is stepped from outside.

    python -m kalshi_platform.lab.proof.faults.stepped_clock FILE COMMAND …

FILE holds the seconds that the process's clock is off; while it does not exist the clock is right. Everything that the
platform asks for the time is `kalshi_platform.clock.SYSTEM_CLOCK`, which is replaced before anything else is imported:
so a host whose clock is set while it works is tested without an option in the product by which somebody could do that.
What measures spans, `monotonic` and `wait`, goes on as on such a host. What is not moved: the times of log lines, the
kernel's of files, and the database server's own clock.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path

from kalshi_platform import clock
from kalshi_platform.lab.simulated_clock import run_command

_LOOK_S = 0.1


class SteppedClock(clock.SystemClock):
    """The machine's clock plus what the file says, read ten times a second by a thread of its own."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset_ns = 0
        self.look()

    def start(self) -> None:
        """Follow the file until the process ends."""
        threading.Thread(target=self._follow, name="stepped clock", daemon=True).start()

    def look(self) -> None:
        """Take what the file says now."""
        # Half a line that somebody is just writing is read again a moment later.
        with contextlib.suppress(ValueError):
            try:
                self._offset_ns = round(float(self._file.read_text(encoding="utf-8")) * 1e9)
            except OSError:
                self._offset_ns = 0

    def now(self) -> datetime:
        """Return the stepped time, aware, in UTC."""
        return super().now() + timedelta(microseconds=self._offset_ns / 1_000)

    def now_ns(self) -> int:
        """Return the stepped time in nanoseconds since 1970."""
        return super().now_ns() + self._offset_ns

    def _follow(self) -> None:
        never = threading.Event()
        while not self.wait(never, _LOOK_S):
            self.look()


def main() -> None:
    """Run the command."""
    stepped = SteppedClock(Path(sys.argv[1]))
    stepped.start()
    run_command(stepped, sys.argv[2:])


if __name__ == "__main__":
    main()
