"""`kalshi-platform lake-index`: makes the index of the lake anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kalshi_platform.cli.console import print_line
from kalshi_platform.cli.progress import progress_shown
from kalshi_platform.errors import ConfigurationError

if TYPE_CHECKING:
    from kalshi_platform.lake.store.objects import ObjectStore


def lake_index() -> None:
    """Make the index of the lake (`_index.json`, `_index/`) anew from the manifests, and show what is in the lake.

    Exports keep the index; this is for a lake whose index was lost, or that an earlier version wrote. Where a
    production database is configured, its exports wait meanwhile.
    """
    from kalshi_platform.config import load_lake
    from kalshi_platform.lake.index import INDEX_NAME, rebuild_index
    from kalshi_platform.lake.store import open_store

    store = open_store(load_lake())
    with _alone(store), progress_shown("indexing the lake"):
        index = rebuild_index(store)
    for table, months in index.datasets.items():
        totals = months.values()
        print_line(
            f"{table}: {sum(each.partitions for each in totals):,} partitions,"
            f" {sum(each.rows for each in totals):,} rows, {sum(each.bytes for each in totals):,} bytes,"
            f" {min(each.first for each in totals)} to {max(each.last for each in totals)}"
        )
    print_line(f"{store.root}/{INDEX_NAME}")


@contextmanager
def _alone(store: ObjectStore) -> Iterator[None]:
    """Hold the lock under which exports write the index, where there is a production database that exports."""
    from kalshi_platform.config import load_deduplicator
    from kalshi_platform.lake.index import lock_name
    from kalshi_platform.storage.pool import Database

    try:
        url = load_deduplicator().production_url
    except ConfigurationError:
        print_line("no production database is configured: nothing must be exported to this lake meanwhile")
        yield
        return
    database = Database(url, name="production")
    try:
        with database.transaction() as transaction:
            transaction.lock(lock_name(store))
            yield
    finally:
        database.dispose()
