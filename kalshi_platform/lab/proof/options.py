"""What a proof is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from kalshi_platform.lab.run_options import RunOptions

FaultLevel: TypeAlias = Literal[
    "none", "standard", "brutal", "databases", "kills", "ground", "day", "weeks", "healing", "operation"
]
DATABASE_AWAY_S = 30.0
"""How long the plan `databases` stops each gatherer's server."""
_SHORTEST_S = {
    "none": (5.0, 0.0), "standard": (15.0, 0.0), "brutal": (60.0, 0.0), "databases": (10.0, DATABASE_AWAY_S + 15.0),
    "kills": (10.0, 13.0), "ground": (40.0, 0.0), "day": (0.0, 0.0), "weeks": (0.0, 0.0), "healing": (0.0, 0.0),
    "operation": (0.0, 0.0),
}  # fmt: skip


def shortest_s(level: FaultLevel, gatherers: int) -> float:
    """Seconds that warm-up, the faults of a plan with their recovery, and cool-down need at least."""
    base, each = _SHORTEST_S[level]
    return base + each * gatherers


@dataclass(frozen=True, kw_only=True)
class ProofOptions(RunOptions):
    """`faults`: which plan is carried out."""

    faults: FaultLevel

    def length_problems(self) -> list[str]:
        """What is wrong with `seconds`."""
        shortest = shortest_s(self.faults, max(1, self.gatherers))
        if self.seconds >= shortest:
            return []
        return [
            f"--seconds is {self.seconds:g}: with --faults {self.faults} and {self.gatherers} gatherers use at"
            f" least {shortest:g}"
        ]
