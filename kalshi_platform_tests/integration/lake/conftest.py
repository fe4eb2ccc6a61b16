"""Lakes on both kinds of root, and a production database with rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.lake.layout import LakeTable
from kalshi_platform.lake.schema import dataset
from kalshi_platform.local.postgres import PostgresServer
from kalshi_platform.market.times import us_from_datetime
from kalshi_platform.storage.migrate import migrate
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.tables import PRODUCTION_TABLES
from kalshi_platform_tests.fixtures.lake import row
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.s3 import (  # noqa: F401 - fixtures
    lake_settings,
    s3_bucket,
    s3_client,
    s3_endpoint,
    s3_settings,
)

_TEMPLATE = "lake_production_template"


class Production:
    """A production database that tests fill by hand."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = Database(url, name="production")
        self._keeper = PartitionKeeper(self.database, PartitionBounds(), SYSTEM_CLOCK)

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows; each needs its time column, everything else has a default."""
        stream = PRODUCTION_TABLES[table]
        data = dataset(LakeTable("raw", table))
        full = [row(data, item[stream.time_column], **item) for item in rows]
        self._keeper.ensure_hours(table, [us_from_datetime(item[stream.time_column]) for item in full])
        with self.database.transaction() as transaction:
            inserted = transaction.insert_new(stream, pa.Table.from_pylist(full, schema=stream.schema))
        assert inserted == len(rows)

    def close_hour(self, *hours: datetime) -> None:
        with self.database.transaction() as transaction:
            for hour in hours:
                transaction.execute("INSERT INTO hour_closes (hour) VALUES (%s)", (hour,))

    def active_hour(self, hour: datetime) -> None:
        with self.database.transaction() as transaction:
            transaction.execute("INSERT INTO hour_activity VALUES (%s, 'trades', 1, %s)", (hour, datetime.now(UTC)))


@pytest.fixture(scope="session")
def production_template(postgres_server: PostgresServer) -> str:
    postgres_server.create_database(_TEMPLATE)
    database = Database(postgres_server.url(_TEMPLATE), name="template")
    migrate(database, "production")
    database.dispose()
    return _TEMPLATE


@pytest.fixture
def production(database_factory: DatabaseFactory, production_template: str) -> Iterator[Production]:
    made = Production(database_factory(production_template))
    yield made
    made.database.dispose()
