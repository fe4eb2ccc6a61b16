"""Findings → is it proven, and why not. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kalshi_platform.proof.examine import Findings
from kalshi_platform.proof.inject import InjectedFault
from kalshi_platform.proof.options import FaultLevel
from kalshi_platform.proof.tables import MARKETS

MOST_EXCESS_US = 2_000_000
LEAST_PUBLISHED = 0.95


@dataclass(frozen=True)
class Ran:
    """What a run was, and what was done in it. Times in µs of the exchange's clock; `seconds` as measured."""

    level: FaultLevel
    gatherers: tuple[str, ...]
    rate: float
    seconds: float
    run: tuple[int, int]
    published: int
    faults: Sequence[InjectedFault]
    left_in_spools: int = 0
    silent: tuple[str, ...] = ()
    """Gatherers that did not record again after the last fault."""

    @property
    def published_share(self) -> float:
        """Published messages as a share of rate × seconds."""
        return self.published / (self.rate * self.seconds) if self.seconds else 0.0

    @property
    def may_lose(self) -> bool:
        """A single gatherer cannot record what it did not get; it must then say so."""
        return len(self.gatherers) == 1 and self.level != "none"


def objections(ran: Ran, found: Findings) -> list[str]:
    """Return why the run proves nothing, or proves a defect; empty when it is proven."""
    said = []
    for table in found.tables:
        if table.doubled:
            said.append(f"{table.name}: {table.doubled:,} rows are doubled")
        if table.wrong:
            said.append(f"{table.name}: {table.wrong:,} rows are wrong")
        if table.missing and not (ran.may_lose and table.name != MARKETS.name):
            said.append(f"{table.name}: {table.missing:,} rows are missing")
        if table.lake is not None and table.lake.found != table.production.found:
            said.append(f"{table.name}: the lake has {table.lake.found:,} rows, production {table.production.found:,}")
    if found.merge_lost:
        said.append(f"{found.merge_lost:,} deltas that a gatherer recorded are not in production")
    if found.holes.undeclared:
        said.append(
            f"{found.holes.undeclared:,} holes ({found.holes.undeclared_rows:,} deltas) lie where the ledger claims"
            " to be whole"
        )
    if found.undeclared_messages:
        said.append(
            f"{found.undeclared_messages:,} trades, tickers or lifecycle events are missing while a connection lived"
        )
    if found.holes.worst_excess_us > MOST_EXCESS_US:
        said.append(
            f"up to {found.holes.worst_excess_us / 1e6:.3f} s of a market are declared as a hole without need, per"
            f" fault; {MOST_EXCESS_US / 1e6:g} s are allowed"
        )
    for name, books in (("production", found.books), ("the lake", found.lake_books)):
        if books.wrong:
            said.append(f"{len(books.wrong):,} books at the end are wrong in {name}: {', '.join(books.wrong[:3])}")
        if books.open and not ran.may_lose:
            said.append(f"{len(books.open):,} books at the end cannot be told from {name}: {', '.join(books.open[:3])}")
    said += [f"fault {fault.name} had no effect that could be observed" for fault in ran.faults if fault.effect is None]
    said += [f"{name} did not record again after the last fault" for name in ran.silent]
    if ran.published_share < LEAST_PUBLISHED:
        said.append(
            f"only {ran.published_share:.0%} of {ran.rate:g} messages/s were published; the machine is too slow"
        )
    if ran.left_in_spools:
        said.append(f"{ran.left_in_spools:,} bytes of records were left in the gatherers' spools")
    return said
