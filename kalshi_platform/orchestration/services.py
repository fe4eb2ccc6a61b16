"""The long-running services: names, jobs, and where each has its switch, lock and heartbeat."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from kalshi_platform import config
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.storage.urls import libpq_url

SERVICE_TAG = "kalshi/service"
ROTATE_TAG = "kalshi/rotate"
"""On a run in progress: it is to end for its successor as soon as another service fills in for it."""
ENDED_BY_TAG = "kalshi/ended-by"
"""On a run that its supervisor ended; one that was canceled without it was terminated by hand."""
GATHER_JOB = "gather"
DEDUP_JOB = "dedup_live"
DEDUPLICATOR = "deduplicator"


@dataclass(frozen=True)
class Service:
    """One long-running service, as its supervisor sees it."""

    name: str
    """gatherer/NAME or deduplicator: in the tables `heartbeats` and `service_switches`, and the key of its lock."""
    job_name: str
    partition_key: str | None
    database_url: str = field(repr=False)
    """The database that holds those tables and the lock."""
    heartbeat_file: Path | None

    @property
    def tags(self) -> dict[str, str]:
        """Tags of every run that hosts the service. Retries would start a second one beside the supervisor's."""
        return service_tags(self.name)


def service_tags(name: str) -> dict[str, str]:
    """Return the tags of a run that hosts the service."""
    return {SERVICE_TAG: name, "dagster/max_retries": "0"}


def gatherer_service_name(gatherer: str) -> str:
    """Return the name of a gatherer as a service: gatherer/NAME."""
    return f"gatherer/{gatherer}"


def load_gatherer_service(gatherer: str) -> Service:
    """Load a gatherer's service. Raises ConfigurationError when it is not configured.

    What only watches it, as the platform's code location does, needs no key of the exchange.
    """
    settings = config.load_gatherer(gatherer)
    return Service(
        name=gatherer_service_name(gatherer),
        job_name=GATHER_JOB,
        partition_key=gatherer,
        database_url=libpq_url(settings.timeseries_url),
        heartbeat_file=settings.heartbeat_file,
    )


def load_gatherer_to_launch(gatherer: str) -> Service:
    """Load a gatherer's service. Raises ConfigurationError also when the exchange is not configured, as its run would.

    All problems are named at once.
    """
    problems: list[str] = []
    for check in (config.load_exchange, partial(config.load_gatherer, gatherer)):
        try:
            check()
        except ConfigurationError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigurationError(problems)
    return load_gatherer_service(gatherer)


def load_deduplicator_service() -> Service:
    """Load the live merge's service. Raises ConfigurationError when the merge is not configured."""
    settings = config.load_deduplicator()
    return Service(
        name=DEDUPLICATOR,
        job_name=DEDUP_JOB,
        partition_key=None,
        database_url=libpq_url(settings.production_url),
        heartbeat_file=None,
    )


def load_services(loaders: Iterable[Callable[[], Service]]) -> tuple[list[Service], list[str]]:
    """Load the services that are configured; return them, and what is missing or wrong of the others, a line each."""
    services: list[Service] = []
    problems: list[str] = []
    for load in loaders:
        try:
            services.append(load())
        except ConfigurationError as error:
            problems.extend(error.problems)
    return services, problems
