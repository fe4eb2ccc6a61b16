"""A clock that runs at another pace than the machine's, from any moment on; processes share it by a file.

    python -m kalshi_platform.lab.simulated_clock FILE COMMAND …
    python -m kalshi_platform.lab.simulated_clock FILE -m MODULE …

runs a command of the platform, or a module, by the clock of FILE. Everything that the platform asks for the time is
`kalshi_platform.clock.SYSTEM_CLOCK`, which is replaced before anything else is imported: no option of the product lets
it record with wrong times. Only `now` is simulated. `monotonic` and `wait` stay seconds of the machine, since timeouts,
backoffs, heartbeats and batches belong to sockets, disks and processes; what waits for a moment of `now` (the minute of
a poll, an opening) reads `pace`. Not simulated: the times of log lines, of files, and of the database server.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from kalshi_platform import clock

LOOK_S = 0.05
LEAD_S = 0.3
"""A change of pace is written this long before it happens, so that every process has read it by then."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MACHINE = clock.SystemClock()


class Piece(NamedTuple):
    """From `wall_ns` on (machine's clock) it is `simulated_ns`, and `speed` simulated seconds pass in a second."""

    wall_ns: int
    simulated_ns: int
    speed: float

    def at(self, wall_ns: int) -> int:
        """Return the simulated time at a moment of the machine's clock, in ns since 1970."""
        return self.simulated_ns + int((wall_ns - self.wall_ns) * self.speed)


def ns_of(moment: datetime) -> int:
    """Return nanoseconds since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1) * 1_000


def catching_up(start_ns: int, speed: float, wall_ns: int) -> list[Piece]:
    """Return pieces that begin at `start_ns` (in the past), run fast until they reach the machine's time, and keep it.

    Raises ValueError when they never would.
    """
    if speed <= 1 or start_ns > wall_ns:
        raise ValueError("only a clock of the past that is faster than the machine's catches up with it")
    needed_ns = int((wall_ns - start_ns) / (speed - 1))
    return [Piece(wall_ns, start_ns, speed), Piece(wall_ns + needed_ns, wall_ns + needed_ns, 1.0)]


class SimulatedClock(clock.SystemClock):
    """Time in straight pieces. Before the first one it stands still at its beginning. Thread-safe."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        """Raise ValueError without a piece."""
        if not pieces:
            raise ValueError("a simulated clock needs a piece of time")
        self._pieces = tuple(pieces)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The pieces, in order of the machine's clock."""
        return self._pieces

    def set_pieces(self, pieces: Sequence[Piece]) -> None:
        """Replace the pieces, of which the coming ones may differ from those before."""
        self._pieces = tuple(pieces) or self._pieces

    def now(self) -> datetime:
        """Return the simulated time, aware, in UTC."""
        return EPOCH + timedelta(microseconds=self.now_ns() // 1_000)

    def now_ns(self) -> int:
        """Return the simulated time in nanoseconds since 1970."""
        wall_ns = super().now_ns()
        piece = self._piece(wall_ns)
        return piece.at(max(wall_ns, piece.wall_ns))

    def pace(self) -> float:
        """Return how many simulated seconds pass in a second now."""
        return self._piece(super().now_ns()).speed

    def _piece(self, wall_ns: int) -> Piece:
        pieces = self._pieces
        for piece in reversed(pieces):
            if piece.wall_ns <= wall_ns:
                return piece
        return Piece(pieces[0].wall_ns, pieces[0].simulated_ns, 0.0)


class ClockFile:
    """The file by which the processes of one simulation share their clock: a line `wall_ns simulated_ns speed` each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, pieces: Sequence[Piece]) -> None:
        """Replace the clock, in one step for readers."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        lines = (f"{piece.wall_ns} {piece.simulated_ns} {piece.speed!r}\n" for piece in pieces)
        unfinished.write_text("".join(lines), encoding="utf-8")
        unfinished.replace(self.path)

    def read(self) -> list[Piece]:
        """Return the pieces. Raises OSError, and ValueError when it holds something else."""
        lines = (line.split() for line in self.path.read_text(encoding="utf-8").splitlines())
        return [Piece(int(wall), int(simulated), float(speed)) for wall, simulated, speed in lines]

    def clock(self) -> SimulatedClock:
        """Return a clock that follows the file until the process ends."""
        found = SimulatedClock(self.read())
        threading.Thread(target=self._follow, args=(found,), name="simulated clock", daemon=True).start()
        return found

    def change_speed(self, speed: float, lead_s: float = LEAD_S) -> Piece:
        """Let the clock run at another speed `lead_s` from now on (0: let it stand still); return the new piece."""
        pieces = self.read()
        wall_ns = MACHINE.now_ns() + int(lead_s * 1e9)
        kept = [piece for piece in pieces if piece.wall_ns <= wall_ns] or pieces[:1]
        piece = Piece(wall_ns, kept[-1].at(max(wall_ns, kept[-1].wall_ns)), speed)
        self.write([*kept, piece])
        return piece

    def _follow(self, followed: SimulatedClock) -> None:
        never = threading.Event()
        read_at = 0
        while not never.wait(LOOK_S):
            with contextlib.suppress(OSError, ValueError):
                changed_at = self.path.stat().st_mtime_ns
                if changed_at != read_at:
                    followed.set_pieces(self.read())
                    read_at = changed_at


def run_command(replacement: clock.Clock, arguments: Sequence[str]) -> None:
    """Run a command of the platform (or `-m MODULE …`) by another clock, before anything of it is imported."""
    clock.SYSTEM_CLOCK = replacement  # type: ignore[assignment]
    module, rest = "kalshi_platform.cli", list(arguments)
    if rest[:1] == ["-m"]:
        module, rest = rest[1], rest[2:]
    sys.argv = ["kalshi-platform", *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=False)


def command_line(file: Path, *command: str) -> list[str]:
    """Return how a command of the platform is run by the clock of a file."""
    return [sys.executable, "-m", "kalshi_platform.lab.simulated_clock", str(file), *command]


if __name__ == "__main__":
    run_command(ClockFile(Path(sys.argv[1])).clock(), sys.argv[2:])
