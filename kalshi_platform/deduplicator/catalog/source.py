"""Reads one catalog for the merge of catalogs: what changed since a position, and what is known of some objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import polars as pl

from kalshi_platform.deduplicator.merge.source import check_source
from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.errors import SchemaMismatch
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

NAMES_AT_ONCE = 50_000
"""How many tickers are held of each catalog; their rows are read in far smaller chunks."""
Schema: TypeAlias = dict[str, "pl.DataType | type[pl.DataType]"]
_TIME = pl.Datetime("us", "UTC")
_OBJECTS: Schema = {"ticker": pl.String, "known_at": _TIME, "first_seen_at": _TIME}
_ENDS: Schema = {"has_end": pl.Boolean, "lost_end": pl.Boolean}
_VERSIONS: Schema = {"ticker": pl.String, "valid_from": _TIME, "valid_to": _TIME, "fingerprint": pl.Int64}
_BEGINNING = -1
_log = event_logger(__name__)


class Position(NamedTuple):
    """A change of one catalog; the token distinguishes it from another one that got the same number."""

    change_no: int
    token: str


class ChangeRange(NamedTuple):
    """The changes to read: those after number `after`. `until`: the newest one, read before any of them."""

    after: int
    until: Position
    has_markets: bool


def read_change_range(source: GathererSource, position: Position | None) -> ChangeRange:
    """Read which changes are new since `position`. Raises DatabaseUnavailable and SchemaMismatch."""
    check_source(source, "catalog")
    database = Database(source.catalog_url, name=f"{source.name} catalog", pool_size=1)
    try:
        with database.transaction() as transaction:
            row = transaction.fetch_one(_SQL["find_newest_change"])
            if row is None:
                raise SchemaMismatch(
                    f"database {database.name}: the line of its newest change was taken from catalog_changes; its next"
                    " change brings one"
                )
            until = Position(row[0], row[1])
            after = _BEGINNING if position is None or not _has_change(transaction, position) else position.change_no
    finally:
        database.dispose()
    if position is not None and after == _BEGINNING:
        _log.warning(
            "catalog_change_gone", gatherer=source.name, change_no=position.change_no,
            consequence="its catalog was restored or made anew; it is read from its beginning",
        )  # fmt: skip
    return ChangeRange(after, until, row[2])


def _has_change(transaction: Transaction, position: Position) -> bool:
    """Return whether this catalog went through the change at which it was left."""
    found = transaction.fetch_one(_SQL["read_change_token"], (position.change_no,))
    return found == (position.token,)


def read_changed_tickers(transaction: Transaction, table: str, after: int, beyond: str) -> list[str]:
    """Read which objects changed after a number, themselves or a version of them.

    At most NAMES_AT_ONCE tickers, ascending by their bytes, that come after `beyond`.
    """
    rows = transaction.fetch_all(
        _SQL["find_changed_tickers"].format(table=table), {"after": after, "beyond": beyond, "limit": NAMES_AT_ONCE}
    )
    return [ticker for (ticker,) in rows]


def read_objects(transaction: Transaction, table: str, tickers: Sequence[str]) -> pl.DataFrame:
    """Read what is known of some objects: ticker, known_at, first_seen_at.

    Of markets also whether their result is known (`has_end`), and whether they vanished without it (`lost_end`).
    """
    has_ends = table == "markets"
    name = "read_markets" if has_ends else "read_objects"
    rows = transaction.fetch_all(_SQL[name].format(table=table), (list(tickers),))
    return pl.DataFrame(rows, schema=_OBJECTS | _ENDS if has_ends else _OBJECTS, orient="row")


def read_versions(transaction: Transaction, table: str, tickers: Sequence[str]) -> pl.DataFrame:
    """Read all versions of some objects: ticker, valid_from, valid_to, fingerprint."""
    rows = transaction.fetch_all(_SQL["read_versions"].format(table=table), (list(tickers),))
    return pl.DataFrame(rows, schema=_VERSIONS, orient="row")


def read_columns(transaction: Transaction, table: str) -> list[str]:
    """Read the columns of a table of the catalog, without the number of the change, which each database gives itself.

    They are the same in gatherers and production, made by the same SQL.
    """
    rows = transaction.fetch_all(_SQL["read_columns"], (table,))
    return [str(row[0]) for row in rows]


def read_object_rows(
    transaction: Transaction, table: str, columns: Sequence[str], tickers: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Read whole rows of some objects."""
    return transaction.fetch_all(
        _SQL["read_object_rows"].format(columns=_values(columns), table=table), (list(tickers),)
    )


def read_version_rows(
    transaction: Transaction, table: str, columns: Sequence[str], keys: Sequence[tuple[Any, ...]]
) -> list[tuple[Any, ...]]:
    """Read whole rows of some versions, given by (ticker, valid_from)."""
    return transaction.fetch_all(
        _SQL["read_version_rows"].format(columns=_values(columns), table=table),
        ([ticker for ticker, _ in keys], [moment for _, moment in keys]),
    )


def _values(columns: Sequence[str]) -> str:
    return ", ".join(f"t.{name}::text" if name == "payload" else f"t.{name}" for name in columns)
