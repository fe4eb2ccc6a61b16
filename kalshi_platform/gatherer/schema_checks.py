"""Checks that the settings name the right databases, with the schema that this version writes.

At the start a refusal or a wrong schema ends the gatherer. A database that was unavailable then is checked when it is
back: capture goes on into the journal, whatever the result, and the result is reported.
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
    """Checks both databases of a gatherer."""

    def __init__(
        self, settings: GathererSettings, timeseries: Database, catalog: Database, on_alarm: Callable[[str, str], None]
    ) -> None:
        """Set up the checks; `on_alarm(kind, detail)` is called for each alarm."""
        self._name = settings.name
        self._on_alarm = on_alarm
        self._unchecked: list[tuple[str, Database, DatabaseKind]] = [
            (settings.timeseries_setting, timeseries, "timeseries"),
            (settings.catalog_setting, catalog, "catalog"),
        ]
        self._problems: dict[str, str] = {}

    def check_at_startup(self) -> None:
        """Check both databases; an unavailable one is checked again later.

        Raises ConfigurationError, with the name of the setting, when a server refuses the login or has no such
        database, and SchemaMismatch when a database is not as our migrations made it.
        """
        problems: list[str] = []
        is_schema = True
        for setting, database, kind in tuple(self._unchecked):
            try:
                check(database, kind)
            except DatabaseUnavailable as error:
                if error.kind in LOGIN_REFUSED:
                    is_schema = False
                    problems.append(f"{setting}: {error}")
                else:
                    _log.warning(
                        "database_away_at_startup", gatherer=self._name, error=error,
                        consequence="frames wait in the journal until it is back",
                    )  # fmt: skip
                    continue
            except SchemaMismatch as error:
                problems.append(f"{setting}: {error}")
            self._unchecked.remove((setting, database, kind))
        if problems:
            raise SchemaMismatch("; ".join(problems)) if is_schema else ConfigurationError(problems)

    def recheck(self) -> None:
        """Check databases that were unavailable at the start; called now and then, from one thread."""
        for unchecked in tuple(self._unchecked):
            setting, database, kind = unchecked
            try:
                check(database, kind)
            except DatabaseUnavailable:
                continue
            except (SchemaMismatch, StatementRejected) as error:
                self._report(setting, error)
            else:
                self._unchecked.remove(unchecked)
                self._problems.pop(setting, None)

    def problems(self) -> list[str]:
        """Return the problems of databases that came back."""
        return list(self._problems.values())

    def _report(self, setting: str, error: KalshiPlatformError) -> None:
        text = f"{setting}: {error}"
        if self._problems.get(setting) != text:
            self._problems[setting] = text
            self._on_alarm(ALARM, text)
            _log.error(
                ALARM, gatherer=self._name, detail=text,
                consequence="capture goes on, what cannot be written waits in the journal",
            )  # fmt: skip
