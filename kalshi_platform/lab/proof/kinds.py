"""A fault that was done, and what it was seen to do. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

RECOVERY_S = 60.0
"""So long may it take until everybody records again."""


@dataclass
class InjectedFault:
    """A fault that was done. `at_us` by the exchange's clock; `effect` None as long as none was observed.

    `broken`: what was seen meanwhile that must not be, a clause each.
    """

    kind: str
    gatherer: str | None
    at: datetime
    at_us: int
    until_us: int = 0
    effect: str | None = None
    broken: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For people: what, and to whom."""
        what = self.kind.replace("_", " ")
        return what if self.gatherer is None else f"{what} {self.gatherer}"
