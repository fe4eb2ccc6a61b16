"""Makes the Iceberg tables name exactly the files of the lake's closed partitions: one commit per table and day.

What the table names is compared with what the manifests name, and the difference is committed: files that a new export
has replaced leave the table in the commit that brings the new ones. Names of files carry the hash of their content, so
equal names mean equal rows, and a repetition changes nothing. A commit states which version of the table it was made
for; where another process was faster, the comparison is made anew. A kill leaves the table as it was or as it is, and
at most a metadata file that nothing names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.errors import LakeArchived, LakeCorrupt, PartitionBusy
from kalshi_platform.lake.datasets import Dataset
from kalshi_platform.lake.iceberg.catalog import exclusive, open_catalog
from kalshi_platform.lake.iceberg.data_files import data_file
from kalshi_platform.lake.iceberg.file_io import root_address
from kalshi_platform.lake.iceberg.settings import IcebergSettings
from kalshi_platform.lake.iceberg.tables import expire, open_table, point_at_newest
from kalshi_platform.lake.layout import MANIFEST_NAME, Partition, is_part_name, parse_partition
from kalshi_platform.lake.manifest import read_manifest
from kalshi_platform.lake.store import Lake, open_store
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.progress import report_each

_AT_ONCE = 8
_ATTEMPTS = 5
_log = event_logger(__name__)


@dataclass
class Registered:
    """What became of one table. `skipped`: folder → why its files are not in the table (again)."""

    dataset: Dataset
    commits: int = 0
    files_added: int = 0
    files_removed: int = 0
    files: int = 0
    rows: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


def register(
    lake: Lake,
    settings: IcebergSettings,
    datasets: Iterable[Dataset],
    days: Sequence[date] | None = None,
    *,
    rebuild: bool = False,
    clock: Clock = SYSTEM_CLOCK,
) -> list[Registered]:
    """Bring the tables of `datasets` up to date with the closed partitions of `days` (None: all that there are).

    `rebuild` takes the tables out of the catalog first and makes them anew; the lake's files stay. A partition that
    cannot be registered keeps no other from it. Raises PartitionBusy (another process registers the table),
    ConfigurationError, SchemaMismatch, DatabaseUnavailable, LakeUnavailable.
    """
    store = open_store(lake)
    done = []
    with open_catalog(settings, store) as catalog:
        for data in datasets:
            with exclusive(settings, store, data.key) as lock:
                if lock is None:
                    raise PartitionBusy(f"another process registers {data.key}; try again when it is done")
                table = open_table(catalog, store, data, settings.namespace_prefix, rebuild=rebuild)
                done.append(_register(store, table, data, days, clock))
    return done


def _register(store: ObjectStore, table: Table, data: Dataset, days: Sequence[date] | None, clock: Clock) -> Registered:
    report = Registered(data)
    live = _live(store, table)
    for day in report_each(f"{data.key} days", sorted(_days(store, data, live) if days is None else set(days))):
        for attempt in range(1, _ATTEMPTS + 1):
            added, removed = _changes(store, table, data, day, live, report)
            if not added and not removed:
                break
            try:
                _commit(table, day, added, removed)
            except CommitFailedException:
                if attempt == _ATTEMPTS:
                    raise PartitionBusy(f"others change the table of {data.key} all the time; try again") from None
                table.refresh()
                live = _live(store, table)
                continue
            live = {path: file for path, file in live.items() if path not in removed} | added
            report.commits += 1
            report.files_added += len(added)
            report.files_removed += len(removed)
            break
    expire(table, store, clock.now())
    point_at_newest(table, store)
    report.files = len(live)
    report.rows = sum(file.record_count for file in live.values())
    for folder, reason in report.skipped.items():
        _log.warning("partition_not_registered", table=data.key, partition=folder, reason=reason)
    if report.commits:
        _log.info(
            "table_registered",
            table=data.key,
            commits=report.commits,
            files_added=report.files_added,
            files_removed=report.files_removed,
        )
    return report


def _live(store: ObjectStore, table: Table) -> dict[str, DataFile]:
    """The files that the table names, by their path in the lake."""
    prefix = f"{root_address(store)}/"
    return {task.file.file_path.removeprefix(prefix): task.file for task in table.scan().plan_files()}


def _days(store: ObjectStore, data: Dataset, live: Iterable[str]) -> set[date]:
    """The days that have a folder in the lake, or a file in the table."""
    found = set()
    for base in _bases(data):
        for path in (*(stored.path for stored in store.list(f"{base}date=")), *live):
            if path.startswith(base):
                found.add(date.fromisoformat(path.removeprefix(f"{base}date=")[:10]))
    return found


def _changes(
    store: ObjectStore, table: Table, data: Dataset, day: date, live: Mapping[str, DataFile], report: Registered
) -> tuple[dict[str, DataFile], dict[str, DataFile]]:
    """The files of a day that the table lacks, and those that it names and that are not the lake's (any more)."""
    prefixes = tuple(f"{base}date={day:%Y-%m-%d}/" for base in _bases(data))
    named = {path for path in live if path.startswith(prefixes)}
    wanted = _wanted(store, data, prefixes, named)
    new = [(partition, sorted(paths - named)) for partition, paths in wanted.items() if paths - named]
    added: dict[str, DataFile] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for (partition, _), made in zip(new, pool.map(lambda each: _describe(store, table, *each), new), strict=True):
            if isinstance(made, str):
                report.skipped[partition.path] = made
            else:
                added |= made
    gone = named - {path for paths in wanted.values() for path in paths}
    return added, {path: live[path] for path in gone}


def _wanted(
    store: ObjectStore, data: Dataset, prefixes: Sequence[str], named: AbstractSet[str]
) -> dict[Partition, set[str]]:
    """The files with rows of the closed partitions below `prefixes`, of today's folder rather than of a former one."""
    folders: dict[str, set[str]] = {}
    for stored in (stored for prefix in prefixes for stored in store.list(prefix)):
        folder, _, name = stored.path.rpartition("/")
        folders.setdefault(folder, set()).add(name)
    wanted: dict[Partition, set[str]] = {}
    for folder, names in folders.items():
        partition = parse_partition(data, folder.partition("/date=")[2].replace("/hour=", "T"))
        if MANIFEST_NAME in names and partition not in wanted:
            files = _files_of(store, folder, {f"{folder}/{name}" for name in names if is_part_name(name)}, named)
            if files is not None:
                wanted[partition] = files
    return wanted


def _files_of(store: ObjectStore, folder: str, stored: set[str], named: AbstractSet[str]) -> set[str] | None:
    """The files with rows that the manifest of a closed partition names; None where it is open or cannot be read."""
    if stored and stored == {path for path in named if path.startswith(f"{folder}/")}:
        return stored  # as it was registered before, so that the manifest need not be read
    try:
        manifest = read_manifest(store, folder)
    except LakeCorrupt:
        return None
    if manifest is None or manifest.state != "closed":
        return None
    return {f"{folder}/{file.name}" for file in manifest.files if file.rows}


def _describe(
    store: ObjectStore, table: Table, partition: Partition, paths: Sequence[str]
) -> dict[str, DataFile] | str:
    """What the table is to hold of new files; or why it cannot hold them."""
    try:
        return {path: data_file(store, table, partition, path) for path in paths}
    except (LakeArchived, LakeCorrupt) as error:
        return str(error)


def _commit(table: Table, day: date, added: Mapping[str, DataFile], removed: Mapping[str, DataFile]) -> None:
    with table.transaction() as transaction:
        update = transaction.update_snapshot(snapshot_properties={"kalshi.day": f"{day:%Y-%m-%d}"})
        with update.overwrite() if removed else update.merge_append() as snapshot:
            for file in removed.values():
                snapshot.delete_data_file(file)
            for file in added.values():
                snapshot.append_data_file(file)


def _bases(data: Dataset) -> list[str]:
    return [f"{data.layer}/{name}/" for name in (data.name, data.formerly) if name is not None]
