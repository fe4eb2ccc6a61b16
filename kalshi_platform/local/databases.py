"""Runs the databases of a local stack: one embedded server per gatherer, one for production and Dagster.

A database whose URL is given in the environment is used where it is; a server is started only for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kalshi_platform.clock import Clock
from kalshi_platform.config import OwnedDatabase, catalog_variable, load_owned_databases, timeseries_variable
from kalshi_platform.local.postgres.restarter import ServerRestarter
from kalshi_platform.local.postgres.server import PostgresServer, PostgresSettings
from kalshi_platform.storage.migrate import migrate
from kalshi_platform.storage.pool import Database

PRODUCTION_VARIABLE = "KALSHI_PRODUCTION_DATABASE_URL"
DAGSTER_VARIABLE = "DAGSTER_DATABASE_URL"


class DatabaseStack:
    """Starts, migrates and stops the databases of one stack. URLs are valid between start() and stop()."""

    def __init__(self, data_dir: Path, gatherers: Sequence[str], given: Mapping[str, str]) -> None:
        self._data_dir = data_dir
        self._gatherers = tuple(gatherers)
        self._given = given
        self._servers: list[PostgresServer] = []
        self._restarter: ServerRestarter | None = None
        self.timeseries: dict[str, str] = {}
        self.catalog: dict[str, str] = {}
        self.production = ""
        self.dagster = ""

    def start(self) -> None:
        """Start every server that is needed, make the databases, and bring their schemas up to date."""
        groups: list[tuple[str, dict[str, str]]] = [
            (name, {"timeseries": timeseries_variable(name), "catalog": catalog_variable(name)})
            for name in self._gatherers
        ]
        groups.append(("production", {"production": PRODUCTION_VARIABLE, "dagster": DAGSTER_VARIABLE}))
        with ThreadPoolExecutor(max_workers=len(groups)) as pool:
            found = dict(
                zip((name for name, _ in groups), pool.map(lambda group: self._serve(*group), groups), strict=True)
            )
            for name in self._gatherers:
                self.timeseries[name] = found[name]["timeseries"]
                self.catalog[name] = found[name]["catalog"]
            self.production, self.dagster = found["production"]["production"], found["production"]["dagster"]
            list(pool.map(_migrate, load_owned_databases(self._environ())))

    def restart_dead_servers(self, say: Callable[[str], None], clock: Clock) -> None:
        """From now on, start servers that die again; `say` gets a line each time. Call it after start()."""
        self._restarter = ServerRestarter(self._servers, say, clock)
        self._restarter.start()

    def problems(self) -> list[str]:
        """Return a clause for each server that should run and does not."""
        return [] if self._restarter is None else self._restarter.problems()

    def server(self, name: str) -> PostgresServer:
        """Return the server that start() started for `name`, a gatherer or `production`. Raises KeyError."""
        return {server.name: server for server in self._servers}[name]

    def stop(self) -> None:
        """Stop the servers that start() started, all at once."""
        if self._restarter is not None:
            self._restarter.stop()
            self._restarter = None
        servers, self._servers = self._servers, []
        if servers:
            with ThreadPoolExecutor(max_workers=len(servers)) as pool:
                list(pool.map(lambda server: server.stop(), servers))

    def _environ(self) -> dict[str, str]:
        """What is given, with the addresses of the databases that were made here."""
        return {
            **self._given,
            "KALSHI_GATHERERS": ",".join(self._gatherers),
            PRODUCTION_VARIABLE: self.production,
            **{timeseries_variable(name): url for name, url in self.timeseries.items()},
            **{catalog_variable(name): url for name, url in self.catalog.items()},
        }

    def _serve(self, name: str, variables: Mapping[str, str]) -> dict[str, str]:
        urls = {
            database: self._given[variable] for database, variable in variables.items() if self._given.get(variable)
        }
        missing = [database for database in variables if database not in urls]
        if missing:
            server = PostgresServer(self._data_dir / "postgres" / name, name, PostgresSettings())
            self._servers.append(server)
            server.start()
            for database in missing:
                server.create_database(database)
                urls[database] = server.url(database)
        return urls


def _migrate(owned: OwnedDatabase) -> None:
    database = Database(owned.url, name=owned.name)
    try:
        migrate(database, owned.kind)
    finally:
        database.dispose()
