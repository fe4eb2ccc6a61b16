"""One Iceberg table per data set: made, kept in the data set's columns, and kept small.

Its metadata lies below `_iceberg/<layer>/<table>/metadata/` in the lake: not beside the data, which readers take by
globs, and which a bucket's lifecycle moves to colder storage.
"""

from __future__ import annotations

import contextlib
import itertools
from datetime import datetime, timedelta

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
from pyiceberg.schema import Schema
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.types import ListType

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lake.datasets import Dataset
from kalshi_platform.lake.iceberg.file_io import root_address
from kalshi_platform.lake.iceberg.schema import name_mapping, partition_spec, steps, table_schema
from kalshi_platform.lake.store.objects import ObjectStore

FOLDER = "_iceberg"
KEEP_SNAPSHOTS = timedelta(days=2)
"""Older versions of a table are forgotten: the files that they named may be gone from the lake anyway."""
_HINT = "version-hint.text"
# Forgotten together, so that not every commit is followed by another one.
_EXPIRED_TOGETHER = 50
_PROPERTIES = {
    "format-version": "2",
    # The table owns no files: engines must not delete any when they drop it or clean it up.
    "gc.enabled": "false",
    # A commit that is repeated as it is could name a file twice: `register` compares anew instead.
    TableProperties.COMMIT_NUM_RETRIES: "0",
    # Tickers of a series begin with the same letters: what is cut off would tell nothing.
    "write.metadata.metrics.column.ticker": "full",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "30",
}


def open_table(
    catalog: Catalog, store: ObjectStore, data: Dataset, namespace_prefix: str = "", *, rebuild: bool = False
) -> Table:
    """The table of a data set, made where there is none, with the columns of today.

    `rebuild`: the present one is taken out of the catalog first, and its metadata deleted. Raises ConfigurationError
    for a table that belongs to another lake or has columns that cannot become today's.
    """
    identifier = (f"{namespace_prefix}{data.layer}", data.name)
    if rebuild:
        _remove(catalog, store, data, identifier)
    try:
        table = catalog.load_table(identifier)
    except (NoSuchTableError, NoSuchNamespaceError):
        return _create(catalog, store, data, identifier)
    if table.location() != _location(store, data):
        raise ConfigurationError(
            [
                f"the table {'.'.join(identifier)} of the catalog belongs to another lake ({table.location()});"
                " name another catalog, or run: kalshi-platform catalog register --rebuild"
            ]
        )
    return _with_columns_of_today(table, data)


def expire(table: Table, store: ObjectStore, now: datetime) -> None:
    """Forget old versions of the table, and delete the metadata that only they had."""
    limit_ms = int((now - KEEP_SNAPSHOTS).timestamp() * 1_000)
    current = table.metadata.current_snapshot_id
    old = [each for each in table.metadata.snapshots if each.timestamp_ms < limit_ms and each.snapshot_id != current]
    if len(old) < _EXPIRED_TOGETHER:
        return
    before = _metadata_of(table, old)
    table.maintenance.expire_snapshots().by_ids([each.snapshot_id for each in old]).commit()
    root = f"{root_address(store)}/"
    for address in sorted(before - _metadata_of(table, table.metadata.snapshots)):
        store.delete(address.removeprefix(root))


def point_at_newest(table: Table, store: ObjectStore) -> None:
    """Say which metadata file is the newest, for engines that read the table by its folder, without a catalog."""
    hint = f"{table.location()}/metadata/{_HINT}".removeprefix(f"{root_address(store)}/")
    newest = table.metadata_location.rpartition("/")[2].removesuffix(".metadata.json").encode()
    if store.read(hint) != newest:
        store.write(hint, newest)


def _create(catalog: Catalog, store: ObjectStore, data: Dataset, identifier: tuple[str, str]) -> Table:
    first, *later = steps(data)
    catalog.create_namespace_if_not_exists(identifier[:1])
    table = catalog.create_table_if_not_exists(
        identifier,
        first,
        location=_location(store, data),
        partition_spec=partition_spec(data, first),
        properties={
            **_PROPERTIES,
            "comment": data.description,
            "kalshi.dataset": data.key,
            TableProperties.DEFAULT_NAME_MAPPING: name_mapping(data, first).model_dump_json(),
        },
    )
    return _with_columns_of_today(table, data) if later else _checked(table, data)


def _with_columns_of_today(table: Table, data: Dataset) -> Table:
    """Rename, add and describe columns until the table has those of the data set."""
    if _columns(table.schema()) == _columns(table_schema(data)):
        return table
    names = set(table.schema().column_names)
    try:
        with table.transaction() as transaction:
            with transaction.update_schema() as update:
                for column in data.columns:
                    if column.formerly in names and column.name not in names:
                        update.rename_column(column.formerly, column.name)
            for step in steps(data):
                with transaction.update_schema() as update:
                    update.union_by_name(step)
            mapping = name_mapping(data, transaction.table_metadata.schema()).model_dump_json()
            transaction.set_properties({TableProperties.DEFAULT_NAME_MAPPING: mapping, "comment": data.description})
    except ValueError as error:  # a type that cannot become another one
        raise _other_columns(data, str(error)) from error
    return _checked(table, data)


def _checked(table: Table, data: Dataset) -> Table:
    """The table, if its columns have the ids that the files name. Raises ConfigurationError."""
    found, wanted = _columns(table.schema()), _columns(table_schema(data))
    differing = sorted(name for name, column in wanted.items() if found.get(name) != column)
    if differing:
        raise _other_columns(data, f"{', '.join(differing)} differ in type or id")
    return table


def _other_columns(data: Dataset, why: str) -> ConfigurationError:
    remedy = f"run: kalshi-platform catalog register {data.key} --rebuild"
    return ConfigurationError([f"the table of {data.key} cannot get today's columns ({why}); {remedy}"])


def _columns(schema: Schema) -> dict[str, tuple[int, int | None, str, str | None]]:
    """Name → id, id of the elements, type, meaning."""
    return {
        each.name: (
            each.field_id,
            each.field_type.element_id if isinstance(each.field_type, ListType) else None,
            str(each.field_type),
            each.doc,
        )
        for each in schema.fields
    }


def _remove(catalog: Catalog, store: ObjectStore, data: Dataset, identifier: tuple[str, str]) -> None:
    with contextlib.suppress(NoSuchTableError, NoSuchNamespaceError):
        catalog.drop_table(identifier)
    for stored in store.list(f"{FOLDER}/{data.key}/"):
        store.delete(stored.path)


def _metadata_of(table: Table, snapshots: list[Snapshot]) -> set[str]:
    manifests = itertools.chain.from_iterable(each.manifests(table.io) for each in snapshots)
    return {each.manifest_list for each in snapshots} | {each.manifest_path for each in manifests}


def _location(store: ObjectStore, data: Dataset) -> str:
    return f"{root_address(store)}/{FOLDER}/{data.key}"
