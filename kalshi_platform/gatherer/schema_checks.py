"""Checks that the databases are those that the settings mean, and what this version writes.

At the start a clear no ends the gatherer. A database that was away at the start is checked when it is back: capture
then goes on into the spool, whatever the result, and the result is reported.
"""

from __future__ import annotations

from collections.abc import Callable

from kalshi_platform.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    KalshiPlatformError,
    SchemaMismatch,
    StatementRejected,
)
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.migrate import DatabaseKind, check
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.sqlstate import LOGIN_REFUSED

ALARM = "wrong_database"
_log = event_logger(__name__)


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

    def check_at_startup(self) -> None:
        """Refuse what cannot work. A database that is away is checked again later.

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
                    _log.warning(
                        "database_away_at_startup", gatherer=self._name, error=error,
                        consequence="recording goes to the spool until it is back",
                    )  # fmt: skip
                    continue
            except SchemaMismatch as error:
                problems.append(f"{setting}: {error}")
            self._todo.remove((setting, database, kind))
        if problems:
            raise SchemaMismatch("; ".join(problems)) if is_schema else ConfigurationError(problems)

    def recheck(self) -> None:
        """Check what was away at the start, as soon as it is back. From one thread, now and then."""
        for todo in tuple(self._todo):
            setting, database, kind = todo
            try:
                check(database, kind)
            except DatabaseUnavailable:
                continue
            except (SchemaMismatch, StatementRejected) as error:
                self._report(setting, error)
            else:
                self._todo.remove(todo)
                self._problems.pop(setting, None)

    def problems(self) -> list[str]:
        """Return what is wrong with a database that came back."""
        return list(self._problems.values())

    def _report(self, setting: str, error: KalshiPlatformError) -> None:
        text = f"{setting}: {error}"
        if self._problems.get(setting) != text:
            self._problems[setting] = text
            self._on_alarm(ALARM)
            _log.error(
                ALARM, gatherer=self._name, detail=text,
                consequence="capture goes on, what cannot be written waits in the spool",
            )  # fmt: skip
