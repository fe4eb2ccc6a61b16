"""What a proof is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from kalshi_platform.errors import ConfigurationError

FaultLevel: TypeAlias = Literal["none", "standard", "brutal", "databases", "kills"]
FAULT_LEVELS: tuple[FaultLevel, ...] = ("none", "standard", "brutal", "databases", "kills")
DATABASE_AWAY_S = 30.0
"""How long the plan `databases` stops each gatherer's server."""
_SHORTEST_S = {
    "none": (5.0, 0.0), "standard": (15.0, 0.0), "brutal": (60.0, 0.0), "databases": (10.0, DATABASE_AWAY_S + 15.0),
    "kills": (10.0, 13.0),
}  # fmt: skip


def shortest_s(level: FaultLevel, gatherers: int) -> float:
    """Seconds that warm-up, the faults of a plan with their recovery, and cool-down need at least."""
    base, each = _SHORTEST_S[level]
    return base + each * gatherers


@dataclass(frozen=True, kw_only=True)
class ProofOptions:
    """`rate` is messages per second of the whole venue. `data_dir` must be empty or not exist.

    `keep` leaves databases, lake, logs and truth where they are.
    """

    seconds: float
    gatherers: int
    rate: float
    markets: int
    seed: int
    faults: FaultLevel
    data_dir: Path
    keep: bool = False
    json_file: Path | None = None
    plot_file: Path | None = None

    def check(self) -> None:
        """Raise one ConfigurationError that names everything that cannot work."""
        problems = []
        shortest = shortest_s(self.faults, max(1, self.gatherers))
        if self.seconds < shortest:
            problems.append(
                f"--seconds is {self.seconds:g}: with --faults {self.faults} and {self.gatherers} gatherers use at"
                f" least {shortest:g}"
            )
        if not 1 <= self.gatherers <= 9:
            problems.append(f"--gatherers is {self.gatherers}: use 1 to 9")
        if self.rate < 20:
            problems.append(f"--rate is {self.rate:g}: use at least 20 messages per second")
        if self.markets < 5:
            problems.append(f"--markets is {self.markets}: use at least 5")
        if self.data_dir.exists() and (not self.data_dir.is_dir() or any(self.data_dir.iterdir())):
            problems.append(f"--data names {self.data_dir}, which holds something already: name an empty or new folder")
        for option, file in (("--json", self.json_file), ("--plot", self.plot_file)):
            if file is not None and not file.absolute().parent.is_dir():
                problems.append(f"{option} names {file}, but there is no such folder: make it first")
        if self.plot_file is not None and self.plot_file.suffix.lower() != ".png":
            problems.append(f"--plot names {self.plot_file}: its name must end in .png")
        if problems:
            raise ConfigurationError(problems)

    @property
    def names(self) -> tuple[str, ...]:
        """The gatherers' names."""
        return tuple(f"g{number}" for number in range(1, self.gatherers + 1))
