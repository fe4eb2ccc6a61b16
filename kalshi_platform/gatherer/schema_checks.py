"""Are these the databases that the settings mean, and are they what this version writes?

Asked at the start, where a clear no ends it, and later of a database that was away at the start: then capture goes on
into the spool, whatever the answer, and the answer is told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from kalshi_platform.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    KalshiPlatformError,
    SchemaMismatch,
    StatementRejected,
)
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.storage.failures import LOGIN_REFUSED
from kalshi_platform.storage.migrate import DatabaseKind, check
from kalshi_platform.storage.pool import Database

ALARM = "wrong_database"
_log = logging.getLogger(__name__)


class DatabaseChecks:
    """Both databases of a gatherer."""

    def __init__(
        self, settings: GathererSettings, timeseries: Database, catalog: Database, on_alarm: Callable[[str], None]
    ) -> None:
        """`on_alarm(kind)` counts."""
        self._name = settings.name
        self._on_alarm = on_alarm
        self._todo: list[tuple[str, Database, DatabaseKind]] = [
            (settings.timeseries_setting, timeseries, "timeseries"),
            (settings.catalog_setting, catalog, "catalog"),
        ]
        self._problems: dict[str, str] = {}

    def at_start(self) -> None:
        """Refuse what cannot work. A database that is away is asked again later.

        Raises ConfigurationError when a server refuses the login or has no such database, naming the setting, and
        SchemaMismatch when a database is not what our migrations made.
        """
        problems: list[str] = []
        is_schema = True
        for setting, database, kind in tuple(self._todo):
            try:
                check(database, kind)
            except DatabaseUnavailable as error:
                if error.kind in LOGIN_REFUSED:
                    is_schema = False
                    problems.append(f"{setting}: {error}")
                else:
                    _log.warning("%s: %s; recording goes to the spool until it is back", self._name, error)
                    continue
            except SchemaMismatch as error:
                problems.append(f"{setting}: {error}")
            self._todo.remove((setting, database, kind))
        if problems:
            raise SchemaMismatch("; ".join(problems)) if is_schema else ConfigurationError(problems)

    def later(self) -> None:
        """Check what was away at the start, as soon as it is back. From one thread, now and then."""
        for todo in tuple(self._todo):
            setting, database, kind = todo
            try:
                check(database, kind)
            except DatabaseUnavailable:
                continue
            except (SchemaMismatch, StatementRejected) as error:
                self._told(setting, error)
            else:
                self._todo.remove(todo)
                self._problems.pop(setting, None)

    def problems(self) -> list[str]:
        """What is wrong with a database that came back."""
        return list(self._problems.values())

    def _told(self, setting: str, error: KalshiPlatformError) -> None:
        text = f"{setting}: {error}"
        if self._problems.get(setting) != text:
            self._problems[setting] = text
            self._on_alarm(ALARM)
            _log.error("%s: %s; capture goes on, what cannot be written waits in the spool", self._name, text)
