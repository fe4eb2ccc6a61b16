"""What a proof is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from kalshi_platform.errors import ConfigurationError

FaultLevel: TypeAlias = Literal["none", "standard", "brutal"]
FAULT_LEVELS: tuple[FaultLevel, ...] = ("none", "standard", "brutal")
SHORTEST_S = {"none": 5.0, "standard": 15.0, "brutal": 60.0}
"""Shorter runs leave no room for warm-up, the faults and cool-down."""


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
        shortest = SHORTEST_S[self.faults]
        if self.seconds < shortest:
            problems.append(f"--seconds is {self.seconds:g}: with --faults {self.faults} use at least {shortest:g}")
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
