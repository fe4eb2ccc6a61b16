"""Which partitions of the lake are not what production's closes say: missing, damaged, or made from another close.

Two records are compared and nothing else: what production says of its hours, and what the lake's manifests and files
are. A partition is made from the closes that its manifest names, and current while production names the same; which of
two closes is younger by some clock does not matter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.lake import queries
from kalshi_platform.lake.closes import HourState, are_closes_of, closes_of, counted_rows, hour_states, unclosed
from kalshi_platform.lake.datasets import DATASETS, Dataset
from kalshi_platform.lake.index import IndexedPartition, entry_of, find_month, month_of
from kalshi_platform.lake.layout import (
    MANIFEST_NAME,
    OPEN,
    Partition,
    is_part_name,
    partition_path,
    partitions_between,
)
from kalshi_platform.lake.manifest import find_manifest
from kalshi_platform.lake.store import Lake, open_store
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.market.times import HOUR
from kalshi_platform.storage.read import arrow_snapshot

LOOK_BACK = timedelta(days=7)
ALL = tuple(DATASETS.values())
# A request to a bucket is mostly waiting.
_AT_ONCE = 16
_CLOSED_AGAIN = "its time was closed again since"
_CUT_SHORT = "files of an export that was cut short lie beside its own"
_OPEN_TOO = "its open export was not taken away"
_NOT_INDEXED = "the lake's index does not show it as it is"
_BESIDE_ITS_FILES = frozenset({_CLOSED_AGAIN, _CUT_SHORT, _OPEN_TOO, _NOT_INDEXED})


@dataclass(frozen=True, order=True)
class Stale:
    """A partition that is to be exported (again), and why, in words.

    `exportable`: whether an export puts it right; where production has lost its rows, and the lake does not hold them
    whole, a person must decide (FewerRows).
    """

    partition: Partition
    reason: str
    exportable: bool = True


def stale_partitions(lake: Lake, production_url: str, partitions: Iterable[Partition]) -> list[Stale]:
    """Of some partitions, those that are not as production's closes have them; raw ones first, then ascending.

    What production has not closed (again) yet is left out: it cannot be exported now. Raises DatabaseUnavailable,
    LakeUnavailable, ConfigurationError.
    """
    wanted = _exportable(production_url, sorted(set(partitions)))
    store = open_store(lake)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        days = sorted({(partition.dataset, partition.start.date()) for partition, _ in wanted})
        files = dict(zip(days, pool.map(lambda day: _files(store, *day), days), strict=True))
        opened = {each.path.rpartition("/")[0] for each in store.list(OPEN)} if wanted else set()
        indexed = _indexed(store, {(partition.dataset, month_of(partition)) for partition, _ in wanted}, pool)

        def reason(item: tuple[Partition, Sequence[HourState]]) -> str | None:
            shown = indexed.get((item[0].dataset, month_of(item[0])))
            return _reason(store, *item, _files_of(files, item[0]), opened, shown)

        found = pool.map(reason, wanted)
        stale = [Stale(partition, why) for (partition, _), why in zip(wanted, found, strict=True) if why is not None]
    # What is made from raw hours of the lake is exported after these.
    stale.sort(key=lambda each: (each.partition.dataset.builder is not None, each.partition))
    return _mark_exportable(production_url, stale)


def stale_lately(lake: Lake, production_url: str, now: datetime, datasets: Iterable[Dataset] = ALL) -> list[Stale]:
    """The same of all partitions of the last week, and of those whose hours were closed (again) in it."""
    with arrow_snapshot(production_url) as snapshot:
        hours = snapshot.table(queries.recently_closed_query(now - LOOK_BACK)).column("hour").to_pylist()
    return stale_partitions(lake, production_url, partitions_of(hours, now, datasets))


def partitions_of(hours: Iterable[datetime], now: datetime, datasets: Iterable[Dataset] = ALL) -> list[Partition]:
    """The partitions that are made from any of these hours, and whose last hour has ended by `now`; ascending."""
    each = list(hours)
    found = {
        partition
        for data in datasets
        for hour in each
        for partition in partitions_between(
            data, hour - data.hours_after * HOUR, hour + data.hours_before * HOUR + HOUR
        )
    }
    return sorted(partition for partition in found if partition.source_end <= now)


def _exportable(production_url: str, partitions: Sequence[Partition]) -> list[tuple[Partition, Sequence[HourState]]]:
    """The partitions of which an hour has rows and all are closed, with the hours that they are made from."""
    if not partitions:
        return []
    with arrow_snapshot(production_url) as snapshot:
        low, high = min(each.source_start for each in partitions), max(each.source_end for each in partitions)
        states = hour_states(snapshot, low, high)
    of_partition = (
        (partition, [state for state in states if partition.source_start <= state.hour < partition.source_end])
        for partition in partitions
    )
    return [
        (partition, hours)
        for partition, hours in of_partition
        if closes_of(state for state in hours if partition.start <= state.hour < partition.end)
        and not unclosed(partition, hours)
    ]


def _mark_exportable(production_url: str, stale: Sequence[Stale]) -> list[Stale]:
    if not stale:
        return []
    with arrow_snapshot(production_url) as snapshot:
        return [
            replace(each, exportable=_is_kept_whole(each) or not counted_rows(snapshot, each.partition).gone)
            for each in stale
        ]


def _is_kept_whole(stale: Stale) -> bool:
    """Whether an export keeps the files of a partition whose rows production has dropped, and puts right the rest."""
    return not stale.partition.dataset.statement and stale.reason in _BESIDE_ITS_FILES


def _files(store: ObjectStore, data: Dataset, day: date) -> dict[str, dict[str, int]]:
    """Everything that lies in the partitions of a data set's day: folder → name → bytes."""
    found: dict[str, dict[str, int]] = {}
    for name in filter(None, (data.name, data.formerly)):
        for stored in store.list(f"{partition_path(data.layer, name, day)}/"):
            folder, _, file = stored.path.rpartition("/")
            found.setdefault(folder, {})[file] = stored.bytes
    return found


def _files_of(files: Mapping[tuple[Dataset, date], dict[str, dict[str, int]]], partition: Partition) -> dict[str, int]:
    """What lies in the folder of a partition; in its former one where nothing is published in it today."""
    of_day = files[partition.dataset, partition.start.date()]
    found = of_day.get(partition.path, {})
    if MANIFEST_NAME in found or partition.former_path is None:
        return found
    return of_day.get(partition.former_path, found)


def _indexed(
    store: ObjectStore, months: Collection[tuple[Dataset, str]], pool: ThreadPoolExecutor
) -> dict[tuple[Dataset, str], dict[str, IndexedPartition]]:
    """What the index shows of some months; a month without an index is left out: the next export makes it."""
    found = pool.map(lambda item: (item, find_month(store, *item)), sorted(months))
    return {item: {each.partition: each for each in index.partitions} for item, index in found if index is not None}


def _reason(
    store: ObjectStore,
    partition: Partition,
    hours: Sequence[HourState],
    files: Mapping[str, int],
    opened: Collection[str],
    shown: Mapping[str, IndexedPartition] | None,
) -> str | None:
    """Why a partition is to be exported again; None where it is as it should be."""
    try:
        is_there = MANIFEST_NAME in files or partition.open_path in opened
        found = find_manifest(store, partition) if is_there else None
    except LakeCorrupt:
        return "its manifest cannot be read"
    if found is None:
        return "it is not there"
    manifest = found[1]
    if manifest.state != "closed":
        return "it was exported before its time was closed"
    if any(files.get(file.name) != file.bytes for file in manifest.files):
        return "files that its manifest names are missing or damaged"
    if not are_closes_of(hours, manifest.closes, manifest.closed_at):
        return _CLOSED_AGAIN
    if manifest.schema_version != partition.dataset.version:
        return "its columns are those of another version"
    if any(is_part_name(name) for name in files.keys() - {file.name for file in manifest.files}):
        return _CUT_SHORT
    if partition.open_path in opened:
        return _OPEN_TOO
    if shown is not None and shown.get(partition.key) != entry_of(partition, *found):
        return _NOT_INDEXED
    return None
