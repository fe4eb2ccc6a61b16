"""Two names that lead to one database: two gatherers that would be counted as two observeres, and are one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.merge.parallel_read import Readers
from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.errors import ConfigurationError, StatementRejected
from kalshi_platform.storage.pool import Database

_PATIENCE_S = 5.0


class Observeres:
    """Which database each name was found to lead to; of several names the first that asked has it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}

    def admit(self, source: GathererSource) -> None:
        """Raises ConfigurationError when another name leads to the same database, and DatabaseUnavailable."""
        found = identity_of(source)
        if found is None:
            return
        with self._lock:
            # It may have come back as another database.
            self._names = {identity: name for identity, name in self._names.items() if name != source.name}
            holder = self._names.setdefault(found, source.name)
        if holder != source.name:
            raise ConfigurationError([_problem(holder, source.name)])


def refuse_twins(sources: Sequence[GathererSource], clock: Clock) -> None:
    """Raise ConfigurationError when names of `sources` lead to one database. Those that are away are not compared."""
    if problems := twins(sources, clock):
        raise ConfigurationError(problems)


def twins(sources: Sequence[GathererSource], clock: Clock) -> list[str]:
    """A line for each name that leads to the database of one before it."""
    readers: Readers[str | None] = Readers(clock)
    found, _ = readers.ask({source.name: partial(identity_of, source) for source in sources}, _PATIENCE_S)
    names: dict[str, str] = {}
    problems = []
    for source in sources:
        identity = found.get(source.name)
        if identity is not None and names.setdefault(identity, source.name) != source.name:
            problems.append(_problem(names[identity], source.name))
    return problems


def identity_of(source: GathererSource) -> str | None:
    """What names the timeseries database of a gatherer however its URL is spelled; None where its server does not say.

    Raises DatabaseUnavailable.
    """
    database = Database(source.timeseries_url, name=f"{source.name} timeseries", pool_size=1)
    try:
        with database.transaction() as transaction:
            row = transaction.fetch_one(
                "SELECT (pg_control_system()).system_identifier::text || '/' || oid::text FROM pg_database"
                " WHERE datname = current_database()"
            )
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
