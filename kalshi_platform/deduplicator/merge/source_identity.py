"""Finds gatherers of different names that have one database: they would count as two observers, and are one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.merge.parallel_read import ParallelReader
from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.errors import ConfigurationError, StatementRejected
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

_IDENTITY_TIMEOUT_S = 5.0


class SourceIdentities:
    """Which database each gatherer's URL leads to; of several names the first one registered has it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}

    def register(self, source: GathererSource) -> None:
        """Register a gatherer. Raises ConfigurationError if another name has its database, DatabaseUnavailable."""
        found = read_identity(source)
        if found is None:
            return
        with self._lock:
            # It may have come back as another database.
            self._names = {identity: name for identity, name in self._names.items() if name != source.name}
            holder = self._names.setdefault(found, source.name)
        if holder != source.name:
            raise ConfigurationError([_problem(holder, source.name)])


def refuse_shared_databases(sources: Sequence[GathererSource], clock: Clock) -> None:
    """Raise ConfigurationError when names of `sources` lead to one database. Those that are away are not compared."""
    if problems := find_shared_databases(sources, clock):
        raise ConfigurationError(problems)


def find_shared_databases(sources: Sequence[GathererSource], clock: Clock) -> list[str]:
    """Return a problem for each name that leads to the database of one before it; unreachable ones are left out."""
    reader: ParallelReader[str | None] = ParallelReader(clock)
    found, _ = reader.gather({source.name: partial(read_identity, source) for source in sources}, _IDENTITY_TIMEOUT_S)
    names: dict[str, str] = {}
    problems = []
    for source in sources:
        identity = found.get(source.name)
        if identity is not None and names.setdefault(identity, source.name) != source.name:
            problems.append(_problem(names[identity], source.name))
    return problems


def read_identity(source: GathererSource) -> str | None:
    """Read what identifies a gatherer's database however its URL is spelled; None if its server does not say.

    Raises DatabaseUnavailable.
    """
    database = Database(source.timeseries_url, name=f"{source.name} timeseries", pool_size=1)
    try:
        with database.transaction() as transaction:
            row = transaction.fetch_one(_SQL["read_identity"])
    except StatementRejected:
        return None
    finally:
        database.dispose()
    return None if row is None else str(row[0])


def _problem(first: str, second: str) -> str:
    return (
        f"gatherers {first} and {second} have one timeseries database (same server, same database): they are one"
        f" observer, not two; give {second} a database of its own, or leave the name out"
    )
