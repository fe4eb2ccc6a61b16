"""A proof's stack whose processes share a simulated clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from kalshi_platform.clock import Clock
from kalshi_platform.lab.proof.faults.stack import ProofStack
from kalshi_platform.lab.proof.options import ProofOptions
from kalshi_platform.lab.simulated_clock import MACHINE, ClockFile, Piece, SimulatedClock, command_line, ns_of
from kalshi_platform.local.simulator_process import SimulationOptions

MARKET_LIFE = ("--open-after", "600", "--settle-after", "600")
"""Everybody has a newborn market long before it opens, also at high speed."""


@dataclass(frozen=True)
class Births:
    """How many events are born, and about how long their markets trade."""

    per_minute: float
    life_s: float


class SimulatedStack(ProofStack):
    """A context manager. Its clock begins at `start` with the pace of the machine; `clock` is what everybody reads."""

    def __init__(
        self,
        options: ProofOptions,
        start: datetime,
        speed: float,
        births: Births,
        say: Callable[[str], None],
        machine: Clock,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`speed` is the highest that the clock will have: the exchange grants read tokens for it.

        `settings`: further ones of everything that runs.
        """
        super().__init__(options, say, machine)
        self._settings = dict(settings or {})
        self.clock_file = ClockFile(options.data_dir.absolute() / "clock")
        self.clock_file.write([Piece(MACHINE.now_ns(), ns_of(start), 1.0)])
        self.clock: SimulatedClock = self.clock_file.clock()
        self._simulation = SimulationOptions(
            options.markets, 0.0, options.seed, self.truth_folder,
            more=(
                *MARKET_LIFE, "--births", f"{births.per_minute:g}", "--life", f"{births.life_s:g}",
                "--read-rate", f"{200 * max(1.0, speed):g}",
                "--backpressure",
            ),
        )  # fmt: skip

    def more_settings(self) -> dict[str, str]:
        """Return the further settings."""
        return self._settings

    def command_line(self, child: str, *command: str) -> list[str]:  # noqa: ARG002 - all have the same clock
        """Run every command by the shared clock."""
        return command_line(self.clock_file.path, *command)
