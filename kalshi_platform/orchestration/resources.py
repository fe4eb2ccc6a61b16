"""Resources of asset bodies: settings, databases, and the gatherer as a service.

Nothing is read until a method is called inside a run or a tick.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from kalshi_platform import config
from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.storage.pool import Database

if TYPE_CHECKING:
    from kalshi_platform.deduplicator.settings import DeduplicatorSettings
    from kalshi_platform.exchange.rest import RestClient
    from kalshi_platform.exchange.settings import ExchangeSettings
    from kalshi_platform.gatherer.settings import GathererSettings
    from kalshi_platform.gatherer.status.reports import Report
    from kalshi_platform.lake.iceberg.settings import IcebergSettings
    from kalshi_platform.lake.retention.settings import RetentionSettings
    from kalshi_platform.lake.settings import LakeSettings
    from kalshi_platform.storage.partitions import PartitionBounds


class PlatformResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Settings of the gatherers, and the public REST API, which needs no key: the platform's location has none."""

    @property
    def clock(self) -> Clock:
        """The system's clock."""
        return SYSTEM_CLOCK

    def gatherer_names(self) -> tuple[str, ...]:
        """Return the names of all configured gatherers."""
        return config.gatherer_names()

    def public_reads(self) -> ExchangeSettings:
        """Read the settings of a client for public reads."""
        return config.load_public_reads()

    def gatherer(self, name: str) -> GathererSettings:
        """Read the settings of one gatherer."""
        return config.load_gatherer(name)

    def bounds(self) -> PartitionBounds:
        """Read how far back and ahead partitions may be made."""
        return config.load_bounds()

    def state_dir(self) -> Path:
        """Return the folder of heartbeats, locks and journals."""
        return config.state_dir()

    def rest_client(self) -> RestClient:
        """A client for public reads that nothing stops but its own retries."""
        from kalshi_platform.exchange.rest import RestClient

        return RestClient(self.public_reads(), self.clock, threading.Event())

    @contextmanager
    def catalog(self, name: str) -> Iterator[Database]:
        """The catalog database of one gatherer."""
        with opened(self.gatherer(name).catalog_url, f"{name} catalog") as database:
            yield database

    @contextmanager
    def timeseries(self, name: str) -> Iterator[Database]:
        """The timeseries database of one gatherer."""
        with opened(self.gatherer(name).timeseries_url, f"{name} timeseries") as database:
            yield database


class ProductionDatabase(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The merged database, what the merge reads from, and the public REST API that trades are compared with."""

    def settings(self) -> DeduplicatorSettings:
        """Read the settings of the deduplicator, production's URL among them."""
        return config.load_deduplicator()

    def bounds(self) -> PartitionBounds:
        """Read how far back and ahead partitions may be made."""
        return config.load_bounds()

    @property
    def clock(self) -> Clock:
        """The system's clock."""
        return SYSTEM_CLOCK

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Open production; it is closed at the end of the block."""
        with opened(self.settings().production_url, "production") as database:
            yield database

    def rest_client(self) -> RestClient:
        """A client for public reads, which needs no key."""
        from kalshi_platform.exchange.rest import RestClient

        return RestClient(config.load_public_reads(), self.clock, threading.Event())


class LakeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the Parquet files go."""

    def settings(self) -> LakeSettings:
        """Read the settings of the lake."""
        return config.load_lake()

    def retention(self) -> RetentionSettings:
        """Read what goes from which database, and after how many days."""
        return config.load_retention()

    def iceberg(self) -> IcebergSettings:
        """Read which table catalog the lake is registered in."""
        return config.load_iceberg()


class WebSocketIngestor(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Hosts the gatherer service: exchange WebSocket and REST → one gatherer's pair of databases."""

    def run(
        self,
        name: str,
        stop: threading.Event,
        on_report: Callable[[Report], None] | None = None,
        run_id: str | None = None,
    ) -> None:
        """Record until `stop` is set; returns after everything received is in the database, or waits in the journal.

        Raises ConfigurationError, AuthenticationFailed, AnotherWriter (another process records under this name).
        """
        from kalshi_platform.gatherer.service import GathererService

        GathererService(
            config.load_gatherer(name),
            config.load_exchange(),
            SYSTEM_CLOCK,
            config.load_bounds(),
            run_id=run_id,
            on_report=on_report,
        ).run(stop)


RESOURCES: dict[str, object] = {
    "platform": PlatformResource(),
    "production_database": ProductionDatabase(),
    "lake": LakeResource(),
    "ingestor": WebSocketIngestor(),
}
"""Resources of every code location, by the name of the parameter that takes them."""


@contextmanager
def opened(url: str, name: str) -> Iterator[Database]:
    """Open a database for the length of a `with` block."""
    database = Database(url, name=name, application="kalshi-platform dagster", pool_size=1)
    try:
        yield database
    finally:
        database.dispose()
