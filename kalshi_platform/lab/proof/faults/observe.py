"""Sees what a fault did, by asking the exchange, the databases and the processes, again and again until they tell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.coverage.gatherer_hour import read_claims
from kalshi_platform.lab.proof.faults.stack import ProofStack
from kalshi_platform.lab.proof.kinds import RECOVERY_S, InjectedFault
from kalshi_platform.lab.waiting import wait_for_answer
from kalshi_platform.market.intervals import length
from kalshi_platform.market.times import datetime_from_us
from kalshi_platform.storage.pool import Database

SECOND_US = 1_000_000
CLAIMED_AFTER_US = 2_500_000
"""A claim ends one margin before the last message, which must have been committed."""
ENOUGH = 0.8
"""Of the books that are followed; a market that has just opened or closed claims nothing of a second."""


class Observer:
    """`wait(seconds)` lets time pass while children are watched; it raises when the run is to end."""

    def __init__(
        self, stack: ProofStack, gatherers: tuple[str, ...], wait: Callable[[float], None], clock: Clock
    ) -> None:
        self._stack = stack
        self._gatherers = gatherers
        self._wait = wait
        self._clock = clock

    def recording_again(self, gatherer: str | None, began: float) -> float | None:
        """Seconds from `began` until the gatherer has every book again; None if that takes too long."""
        self._wait(0.3)  # the exchange needs a moment to notice an ended connection
        if not self.soon(lambda: self._stack.venue.following(str(gatherer))):
            return None
        return self._clock.monotonic() - began

    def new_pid(self, gatherer: str, before: int) -> int | None:
        """The process that took the place of `before`; None while there is none."""
        pid = self._stack.pid(gatherer)
        return pid if pid is not None and pid != before else None

    def known_to_all(self, ticker: str) -> bool:
        """Whether every gatherer's catalog has the market."""
        return all(
            self.asked(
                self._stack.settings.gatherers[name].catalog_url,
                "SELECT count(*) FROM markets WHERE ticker = %s",
                ticker,
            )
            for name in self._gatherers
        )

    def claimed_share(self, gatherer: str, low_us: int, high_us: int) -> float:
        """How much of [low, high) the gatherer's ledger claims, over the books that it follows."""
        followed = self._stack.venue.books_held(gatherer)
        if not followed or low_us >= high_us:
            return 0.0
        dedup = self._stack.settings.deduplicator
        source = next(each for each in dedup.sources if each.name == gatherer)
        low, high = datetime_from_us(low_us), datetime_from_us(high_us)
        claims = read_claims(source, low, high, dedup.max_out_of_orderness_us)
        return min(1.0, sum(length(parts) for parts in claims.values()) / (followed * (high_us - low_us)))

    def claims_again(self, gatherer: str, patience_s: float = RECOVERY_S) -> bool:
        """Whether, before long, it claims what came a moment ago of nearly all of its books."""

        def claims() -> bool:
            recent_us = self._stack.venue.clock_us() - CLAIMED_AFTER_US
            return self.claimed_share(gatherer, recent_us - SECOND_US, recent_us) > ENOUGH

        # To read claims costs something, which must not be what keeps the machine busy.
        return bool(self.soon(claims, patience_s, every_s=1.0))

    def batch_no(self, gatherer: str) -> int:
        """The number of the gatherer's last commit."""
        url = self._stack.settings.gatherers[gatherer].timeseries_url
        return int(self.asked(url, "SELECT last_batch_no FROM batch_counter") or 0)

    def effects(self, fault_id: int) -> list[dict[str, Any]]:
        """What the exchange says that a fault of its own did."""
        return [effect for each in self._stack.venue.faults() if each["id"] == fault_id for effect in each["effects"]]

    def count(self, fault: InjectedFault, query: str, patience_s: float) -> int:
        """Ask the gatherer's database until it counts something."""
        found = self.number(fault, query, lambda count: count > 0, patience_s)
        return 0 if found is None else int(found)

    def number(
        self, fault: InjectedFault, query: str, enough: Callable[[float], bool], patience_s: float = 10.0
    ) -> float | None:
        """Ask the gatherer's database, with the fault's moment as parameter, until the answer is enough, or None."""
        url = self._stack.settings.gatherers[str(fault.gatherer)].timeseries_url

        def ask() -> tuple[float] | None:
            value = self.asked(url, query, fault.at)
            return (value,) if value is not None and enough(value) else None

        found: tuple[float] | None = self.soon(ask, patience_s)
        return None if found is None else found[0]

    def asked(self, url: str, query: str, *params: object) -> float | None:
        """One number of a database; None for no row. Raises DatabaseUnavailable."""
        with _database(url) as database, database.transaction() as transaction:
            row = transaction.fetch_one(query, params)
        return None if row is None or row[0] is None else float(row[0])

    def soon(self, probe: Callable[[], Any], patience_s: float = RECOVERY_S, every_s: float = 0.1) -> Any:
        """The first true answer of `probe`, or None."""
        return wait_for_answer(probe, patience_s, self._wait, self._clock, every_s)

    def stored_between(self, gatherer: str, low_us: int, high_us: int) -> int:
        """Deltas and trades of a time, counted when the gatherer has stored something later."""
        url = self._stack.settings.gatherers[gatherer].timeseries_url
        low, high = datetime_from_us(low_us), datetime_from_us(high_us)
        self.soon(lambda: self.asked(url, "SELECT count(*) FROM orderbook_deltas WHERE exchange_ts > %s", high), 10.0)
        return sum(
            int(self.asked(url, f"SELECT count(*) FROM {table} WHERE exchange_ts BETWEEN %s AND %s", low, high) or 0)  # noqa: S608
            for table in ("orderbook_deltas", "trades")
        )


@contextmanager
def _database(url: str) -> Iterator[Database]:
    database = Database(url, name="proof", pool_size=1)
    try:
        yield database
    finally:
        database.dispose()


@contextmanager
def logged(name: str) -> Iterator[list[str]]:
    """Collect the warnings of loggers of this process below `name`, whatever is shown of them."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger(name), Lines(logging.WARNING)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
