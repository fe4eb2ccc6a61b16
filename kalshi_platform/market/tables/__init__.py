"""Every table of every database: THE definition of their columns, of which all else is derived or checked.

COPY and SELECT lists, Arrow schemas, Parquet, the catalogue's comments, the column tables of the Dagster UI and
docs/data-dictionary.md follow from it; a test compares it with the catalogue of a migrated PostgreSQL database.
A column is added by one line here and one numbered file in sql/ (CONTRIBUTING.md shows how).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from kalshi_platform.market.tables.catalog import CATALOG
from kalshi_platform.market.tables.closes import CLOSE_SERIES, CLOSES, TRADE_CHECKS
from kalshi_platform.market.tables.definition import TIME_UNIT, Column, Database, SqlType, Table
from kalshi_platform.market.tables.lake import LAKE
from kalshi_platform.market.tables.ledger import LEDGER
from kalshi_platform.market.tables.merge import MERGE
from kalshi_platform.market.tables.services import COMMON, MIGRATIONS, PRODUCTION_DROPPED_HOURS, WIRE_SHAPES
from kalshi_platform.market.tables.streams import GATHERER_STREAMS, PRODUCTION_STREAMS

__all__ = [
    "CATALOG_TABLES",
    "CLOSE_TABLES",
    "DATABASES",
    "GATHERER_TABLES",
    "MERGED_TABLES",
    "PRODUCTION_TABLES",
    "TIME_UNIT",
    "Column",
    "Database",
    "SqlType",
    "Table",
]


def _by_name(*groups: Iterable[Table]) -> Mapping[str, Table]:
    return MappingProxyType({table.name: table for group in groups for table in group})


GATHERER_TABLES = _by_name(GATHERER_STREAMS)
"""Time-series tables of a gatherer's timeseries database."""
PRODUCTION_TABLES = _by_name(PRODUCTION_STREAMS)
"""Time-series tables of production that hold what the exchange published."""
CLOSE_TABLES = _by_name(CLOSE_SERIES)
"""Time-series tables of production that the close of an hour replaces: what is complete, and how it was proved."""
CATALOG_TABLES = _by_name(CATALOG)
"""Tables of a catalog database; production has them too."""
MERGED_TABLES = ("orderbook_deltas", "trades", "tickers", "orderbook_snapshots", "market_lifecycle")
"""Tables that the deduplicator carries from gatherers to production."""

DATABASES: Mapping[Database, Mapping[str, Table]] = MappingProxyType(
    {
        "timeseries": _by_name(GATHERER_STREAMS, LEDGER, COMMON, [MIGRATIONS, WIRE_SHAPES]),
        "catalog": _by_name(CATALOG, [MIGRATIONS]),
        "production": _by_name(
            PRODUCTION_STREAMS,
            CLOSE_SERIES,
            CLOSES,
            TRADE_CHECKS,
            MERGE,
            LAKE,
            CATALOG,
            COMMON,
            [MIGRATIONS, PRODUCTION_DROPPED_HOURS],
        ),
    }
)
"""All tables of each kind of database."""
