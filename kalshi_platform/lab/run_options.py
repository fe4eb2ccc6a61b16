"""Options of the commands that run gatherers against a simulated exchange and then judge them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kalshi_platform.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """`rate`: messages per second of the exchange, of which every gatherer gets all. `data_dir`: empty or new.

    `keep` leaves databases, logs and whatever else the run made where they are.
    """

    seconds: float
    gatherers: int
    rate: float
    markets: int
    seed: int
    data_dir: Path
    keep: bool = False
    json_file: Path | None = None
    plot_file: Path | None = None

    def check(self) -> None:
        """Raise one ConfigurationError that names everything that cannot work."""
        problems = self.length_problems()
        if not 1 <= self.gatherers <= 9:
            problems.append(f"--gatherers is {self.gatherers}: use 1 to 9")
        problems += self.rate_problems()
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

    def rate_problems(self) -> list[str]:
        """What is wrong with `rate`."""
        return [] if self.rate >= 20 else [f"--rate is {self.rate:g}: use at least 20 messages per second"]

    def length_problems(self) -> list[str]:
        """What is wrong with `seconds`."""
        return []

    @property
    def names(self) -> tuple[str, ...]:
        """The gatherers' names."""
        return tuple(f"g{number}" for number in range(1, self.gatherers + 1))
