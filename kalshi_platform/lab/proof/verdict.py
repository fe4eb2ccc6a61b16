"""Findings → is it proven, and why not. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kalshi_platform.lab.proof.comparison.fault_windows import LOSING, Unexplained
from kalshi_platform.lab.proof.comparison.tables import DELTAS, MARKETS, TICKERS, TRADES
from kalshi_platform.lab.proof.examine import Aside, Findings
from kalshi_platform.lab.proof.faults import expected_alarms as alarms
from kalshi_platform.lab.proof.faults.expected_alarms import Sighting
from kalshi_platform.lab.proof.kinds import InjectedFault
from kalshi_platform.lab.proof.options import FaultLevel
from kalshi_platform.market.times import datetime_from_us

MARGIN_US = 1_000_000
EXCESS_SLACK_US = 250_000
MOST_EXCESS_US = 2 * MARGIN_US + EXCESS_SLACK_US
"""A claim ends one margin before a loss and begins one after it, counted from message to message of the gatherer's own
connection; the loss is measured by those of the whole exchange. The slack is for the time between two messages."""
LEAST_PUBLISHED = 0.95


@dataclass(frozen=True)
class RunRecord:
    """What a run was, and what was done in it. Times in µs of the exchange's clock; `seconds` as measured.

    `counted`: what the exchange says that it published since its start, by kind.
    """

    level: FaultLevel
    gatherers: tuple[str, ...]
    rate: float
    seconds: float
    run: tuple[int, int]
    published: int
    faults: Sequence[InjectedFault]
    counted: Mapping[str, int] = field(default_factory=dict)
    left_in_journals: int = 0
    silent: tuple[str, ...] = ()
    """Gatherers that did not record again after the last fault."""
    aside: Aside | None = None
    sightings: Sequence[Sighting] = ()
    """What a person would have seen of the run; None of it is asked for but of the plan `ground`."""

    @property
    def published_share(self) -> float:
        """Published messages as a share of rate × seconds."""
        return self.published / (self.rate * self.seconds) if self.seconds else 0.0

    @property
    def may_lose(self) -> bool:
        """A single gatherer cannot record what it did not get; it must then say so."""
        return len(self.gatherers) == 1 and any(fault.kind in LOSING for fault in self.faults)


def failures(record: RunRecord, found: Findings) -> list[str]:
    """Return why the run proves nothing, or proves a defect; empty when it is proven."""
    said = _of_tables(record, found)
    if found.merge_lost:
        said.append(f"{found.merge_lost:,} deltas that a gatherer recorded are not in production")
    if found.holes.undeclared:
        said.append(
            f"{found.holes.undeclared:,} holes ({found.holes.undeclared_rows:,} deltas) lie where production's coverage"
            " claims to be whole"
        )
    said += [
        f"the ledger of {name} claims {rows:,} deltas of {len(of):,} markets that it does not have: {_names(of)}"
        for name, (rows, of) in found.false_claims.items()
        if rows
    ]
    said += _of_coverage(record, found)
    if found.undeclared_messages:
        said.append(
            f"{found.undeclared_messages:,} trades, tickers or lifecycle events are missing while a connection lived,"
            " or with no fault near"
        )
    said += _of_unexplained(record, found)
    if found.holes.worst_excess_us > MOST_EXCESS_US:
        said.append(
            f"up to {found.holes.worst_excess_us / 1e6:.3f} s of a market are declared as a hole without need, at one"
            f" place; {MOST_EXCESS_US / 1e6:g} s are allowed"
        )
    said += _of_books(record, found)
    said += [
        f"fault {fault.name} had no effect that could be observed" for fault in record.faults if fault.effect is None
    ]
    said += [f"fault {fault.name}: {clause}" for fault in record.faults for clause in fault.broken]
    if record.level == "ground":
        said += alarms.missing(record.faults, record.sightings, record.gatherers)
    said += [f"{name} did not record again after the last fault" for name in record.silent]
    said += _of_ledger(record, found)
    said += [*found.sent.problems, *found.rebuilt.problems]
    if record.published_share < LEAST_PUBLISHED:
        said.append(
            f"only {record.published_share:.0%} of {record.rate:g} messages/s were published; the machine is too slow"
        )
    if record.left_in_journals:
        said.append(f"{record.left_in_journals:,} bytes of the gatherers' journals were not in their databases")
    return said


def _of_tables(record: RunRecord, found: Findings) -> list[str]:
    said = []
    for table in found.tables:
        if table.doubled:
            said.append(f"{table.name}: {table.doubled:,} rows are doubled")
        if table.wrong:
            said.append(f"{table.name}: {table.wrong:,} rows are wrong")
        if table.missing and not (record.may_lose and table.name != MARKETS.name):
            said.append(f"{table.name}: {table.missing:,} rows are missing")
        is_dropped = record.aside is not None and record.aside.dropped is not None
        if table.lake is not None and table.lake.found != table.production.found and not is_dropped:
            said.append(f"{table.name}: the lake has {table.lake.found:,} rows, production {table.production.found:,}")
    return said


def _of_books(record: RunRecord, found: Findings) -> list[str]:
    said = []
    for name, books in (("production", found.books), ("the lake", found.lake_books)):
        if books.wrong:
            said.append(f"{len(books.wrong):,} books at the end are wrong in {name}: {_names(books.wrong)}")
        unsure = books.unexplained if record.may_lose else books.open
        if unsure:
            said.append(f"{len(unsure):,} books at the end cannot be told from {name}: {_names(unsure)}")
        if not books.right and (books.wrong or books.open):
            said.append(f"not one book at the end is right in {name}")
    return said


def _of_coverage(record: RunRecord, found: Findings) -> list[str]:
    said = []
    coverage = found.coverage
    if coverage.beyond:
        said.append(
            f"production claims {coverage.beyond_us / 1e6:.6f} s of {len(coverage.beyond):,} markets that no ledger"
            f" claims: {_names(coverage.beyond)}"
        )
    if coverage.short:
        said.append(
            f"production leaves open {coverage.short_us / 1e6:.6f} s of {len(coverage.short):,} markets that a ledger"
            f" claims: {_names(coverage.short)}"
        )
    for name, checkpoints in (("production", found.checkpoints), ("the lake", found.lake_checkpoints)):
        if checkpoints.wrong:
            ticker, at_us = checkpoints.wrong[0]
            said.append(
                f"{len(checkpoints.wrong):,} of {checkpoints.compared:,} checkpoints of {name} are wrong, the first of"
                f" {_names([ticker])} at {datetime_from_us(at_us):%H:%M:%S.%f}"
            )
    if found.told.wrong:
        ticker, at_us = found.told.wrong[0]
        said.append(
            f"{len(found.told.wrong):,} of {found.told.compared:,} books that production calls proven are wrong, the"
            f" first of {_names([ticker])} at {datetime_from_us(at_us):%H:%M:%S.%f}"
        )
    if found.checkpoints.compared != found.lake_checkpoints.compared and not (record.aside and record.aside.dropped):
        said.append(
            f"the lake has {found.lake_checkpoints.compared:,} checkpoints, production {found.checkpoints.compared:,}"
        )
    return said


def _of_unexplained(record: RunRecord, found: Findings) -> list[str]:
    said = [
        f"lost {_what(record, found.unexplained)} with no fault near,"
        f" or these markets were not sent to any gatherer then: {_who(found.unexplained)}"
    ] if found.unexplained else []  # fmt: skip
    if len(record.gatherers) > 1:
        # Who alone records is judged already.
        said += [
            f"{name} itself lost {_what(record, lost)} with no fault of its own near,"
            f" or was not sent these markets then: {_who(lost)}"
            for name, lost in found.unexplained_of.items()
            if lost
        ]
    return said


def _what(record: RunRecord, lost: Sequence[Unexplained]) -> str:
    low = min(each.interval[0] for each in lost) - record.run[0]
    high = max(each.interval[1] for each in lost) - record.run[0]
    names = {each.ticker for each in lost}
    return f"rows of {len(names):,} markets between {low / 1e6:.1f} s and {high / 1e6:.1f} s of the run"


def _who(lost: Sequence[Unexplained]) -> str:
    return _names(sorted({each.ticker for each in lost}))


def _names(tickers: Sequence[str]) -> str:
    """The first few; a name that is no name is shortened, and printed so that it does nothing to a terminal."""
    return ", ".join(ascii(each[:60])[1:-1] for each in tickers[:3])


def _of_ledger(record: RunRecord, found: Findings) -> list[str]:
    """A ledger that lacks rows would make any record look whole."""
    said = [
        f"the exchange published {count:,} messages of kind {kind}, its ledger has {found.ledger.get(kind, 0):,}"
        for kind, count in record.counted.items()
        if count != found.ledger.get(kind, 0)
    ]
    if record.published:
        names = (DELTAS.name, TRADES.name, TICKERS.name)
        empty = [table.name for table in found.tables if table.name in names and not table.truth]
        said += [f"the exchange's ledger has no {name} of the run" for name in empty]
    return said
