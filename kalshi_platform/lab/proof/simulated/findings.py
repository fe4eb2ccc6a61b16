"""One comparison of a simulated day: what was compared, what differs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Compared:
    """`problems` are clauses for people, none when all is equal; `figures` say how much was compared."""

    name: str
    figures: Mapping[str, float] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def as_text(self) -> str:
        """One line, and one for each problem."""
        figures = ", ".join(f"{value:,.10g} {name}" for name, value in self.figures.items())
        return "\n".join([f"{self.name}: {figures}", *(f"  WRONG: {problem}" for problem in self.problems)])
