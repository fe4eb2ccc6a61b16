"""The index of the lake: what is in it and how big it is, without a listing.

    _index.json                            data set → month → partitions, rows, bytes
    _index/<layer>/<table>/YYYY-MM.json    the partitions of that month

Written after each publication, under a lock; the manifests are what it is made from, so that it can be made anew.
The archives of frames, one per gatherer, are data sets of it like `raw/frames/g1`. Each gatherer's host writes the
months of its own and has no lock of production: the totals in `_index.json` follow with the next export.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TypeVar

import msgspec

from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.lake.datasets import DATASETS, Dataset
from kalshi_platform.lake.frame_archive import (
    FRAMES,
    FramesManifest,
    FramesPartition,
    archived_partitions,
    read_frames_manifest,
)
from kalshi_platform.lake.layout import Partition
from kalshi_platform.lake.manifest import Manifest, State, find_manifest, published
from kalshi_platform.lake.store import Lake, open_store
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.monitoring.progress import report_each

IndexT = TypeVar("IndexT")
INDEX_NAME = "_index.json"
_FOLDER = "_index/"
# A request to a bucket is mostly waiting.
_AT_ONCE = 16


class IndexedPartition(msgspec.Struct, frozen=True, kw_only=True):
    """One partition. `path`: its folder, below the lake's root; tickers are compared by their bytes."""

    partition: str
    path: str
    state: State
    rows: int
    bytes: int
    files: tuple[str, ...]
    time_min: datetime | None
    time_max: datetime | None
    ticker_min: str | None
    ticker_max: str | None
    schema_version: int
    coverage_share: float | None = None
    closed_at: datetime | None = None


class MonthIndex(msgspec.Struct, frozen=True, kw_only=True):
    """The partitions of a data set that begin in one month (`2026-11`), ascending."""

    table: str
    month: str
    partitions: tuple[IndexedPartition, ...]


class MonthTotals(msgspec.Struct, frozen=True, kw_only=True):
    """One month of a data set. `open`: how many of its partitions are not closed yet."""

    partitions: int
    open: int
    rows: int
    bytes: int
    first: str
    last: str


class LakeIndex(msgspec.Struct, frozen=True, kw_only=True):
    """All of the lake: data set → month → totals."""

    datasets: dict[str, dict[str, MonthTotals]]


def lock_name(store: ObjectStore) -> str:
    """The advisory lock of production under which the index is written."""
    return f"lake index/{store.root}"


def read_index(lake: Lake) -> LakeIndex | None:
    """The index of the whole lake; None where there is none. Raises LakeCorrupt."""
    return _read(open_store(lake), INDEX_NAME, LakeIndex)


def find_month(lake: Lake, data: Dataset, month: str) -> MonthIndex | None:
    """The index of a data set's month (`2026-11`); None where there is none that can be read."""
    return _read_or_none(open_store(lake), _month_path(data, month), MonthIndex)


def index_partition(lake: Lake, partition: Partition) -> None:
    """Write what is published of a partition into the index; nothing is written where that stands there already.

    The caller holds the lock. A month that has no index yet, or none that can be read, gets one of all its partitions.
    Raises LakeUnavailable, LakeCorrupt.
    """
    store = open_store(lake)
    data, month = partition.dataset, month_of(partition)
    before = find_month(store, data, month)
    if before is None:
        after = _index_month(store, data, month, published(store, data, f"date={month}"))
    else:
        others = [each for each in before.partitions if each.partition != partition.key]
        after = _month_index(data, month, [*others, *_entries(store, [partition])])
    if after != before:
        store.write(_month_path(data, month), _encode(after))
    index = _read_or_none(store, INDEX_NAME, LakeIndex) or _collect(store)
    totals = {data.key: {month: _totals(after)}, **_frames_totals(store, month)}
    found = {key: dict(sorted({**index.datasets.get(key, {}), **each}.items())) for key, each in totals.items()}
    changed = LakeIndex(datasets={**index.datasets, **found})
    if changed != index or before is None:
        store.write(INDEX_NAME, _encode(LakeIndex(datasets=dict(sorted(changed.datasets.items())))))


def index_frames(lake: Lake, partition: FramesPartition, manifest: FramesManifest) -> None:
    """Write an hour of frames into the index of its gatherer's month; the totals follow with the next export.

    The caller is the only one that archives frames of this gatherer. Raises LakeUnavailable.
    """
    store = open_store(lake)
    key, month = _frames_key(partition), f"{partition.start:%Y-%m}"
    before = _read_or_none(store, _path_of(key, month), MonthIndex)
    if before is None:
        hours = [each for each in archived_partitions(store, f"date={month}") if each.gatherer == partition.gatherer]
        after = _index_frames_month(store, key, month, hours)
    else:
        others = [each for each in before.partitions if each.partition != partition.key]
        after = _sorted_month(key, month, [*others, _frames_entry(partition, manifest)])
    if after != before:
        store.write(_path_of(key, month), _encode(after))


def rebuild_index(lake: Lake) -> LakeIndex:
    """Make the index anew from the manifests; return it. The caller holds the lock. Raises LakeUnavailable.

    An hour of frames that is archived meanwhile may be left out, until another one of its month is.
    """
    store = open_store(lake)
    written = {INDEX_NAME}
    datasets: dict[str, dict[str, MonthTotals]] = {}
    for data in report_each("data sets indexed", list(DATASETS.values())):
        months: dict[str, list[Partition]] = {}
        for partition in published(store, data):
            months.setdefault(month_of(partition), []).append(partition)
        for month, partitions in sorted(months.items()):
            index = _index_month(store, data, month, partitions)
            store.write(_month_path(data, month), _encode(index))
            written.add(_month_path(data, month))
            datasets.setdefault(data.key, {})[month] = _totals(index)
    for key, month, hours in _frames_months(store):
        index = _index_frames_month(store, key, month, hours)
        store.write(_path_of(key, month), _encode(index))
        written.add(_path_of(key, month))
        datasets.setdefault(key, {})[month] = _totals(index)
    made = LakeIndex(datasets=dict(sorted(datasets.items())))
    store.write(INDEX_NAME, _encode(made))
    for stored in list(store.list(_FOLDER)):
        if stored.path not in written:
            store.delete(stored.path)
    return made


def entry_of(partition: Partition, path: str, manifest: Manifest) -> IndexedPartition:
    """A published partition as the index shows it."""
    lows = [file.ticker_min for file in manifest.files if file.ticker_min is not None]
    highs = [file.ticker_max for file in manifest.files if file.ticker_max is not None]
    return IndexedPartition(
        partition=partition.key,
        path=path,
        state=manifest.state,
        rows=manifest.rows,
        bytes=manifest.bytes,
        files=tuple(file.name for file in manifest.files),
        time_min=manifest.time_min,
        time_max=manifest.time_max,
        ticker_min=min(lows, key=str.encode, default=None),
        ticker_max=max(highs, key=str.encode, default=None),
        schema_version=manifest.schema_version,
        coverage_share=manifest.coverage_share,
        closed_at=manifest.closed_at,
    )


def month_of(partition: Partition) -> str:
    """The month that a partition begins in: `2026-11`."""
    return f"{partition.start:%Y-%m}"


def _index_month(store: ObjectStore, data: Dataset, month: str, partitions: Iterable[Partition]) -> MonthIndex:
    return _month_index(data, month, _entries(store, partitions))


def _entries(store: ObjectStore, partitions: Iterable[Partition]) -> list[IndexedPartition]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(lambda partition: (partition, _find(store, partition)), partitions))
    return [entry_of(partition, *at) for partition, at in found if at is not None]


def _find(store: ObjectStore, partition: Partition) -> tuple[str, Manifest] | None:
    try:
        return find_manifest(store, partition)
    except LakeCorrupt:  # no reader takes it either; the stale check names it
        return None


def _month_index(data: Dataset, month: str, entries: Sequence[IndexedPartition]) -> MonthIndex:
    return _sorted_month(data.key, month, entries)


def _sorted_month(key: str, month: str, entries: Sequence[IndexedPartition]) -> MonthIndex:
    ordered = tuple(sorted(entries, key=lambda each: each.partition))
    return MonthIndex(table=key, month=month, partitions=ordered)


def _frames_key(partition: FramesPartition) -> str:
    return f"{FRAMES}/{partition.gatherer}"


def _frames_entry(partition: FramesPartition, manifest: FramesManifest) -> IndexedPartition:
    return IndexedPartition(
        partition=partition.key,
        path=partition.path,
        state=manifest.state,
        rows=manifest.frames,
        bytes=manifest.bytes,
        files=tuple(each.name for each in manifest.segments),
        time_min=manifest.time_min,
        time_max=manifest.time_max,
        ticker_min=None,
        ticker_max=None,
        schema_version=manifest.format,
    )


def _index_frames_month(store: ObjectStore, key: str, month: str, hours: Iterable[FramesPartition]) -> MonthIndex:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(lambda hour: (hour, _find_frames(store, hour)), hours))
    return _sorted_month(key, month, [_frames_entry(hour, manifest) for hour, manifest in found if manifest])


def _find_frames(store: ObjectStore, hour: FramesPartition) -> FramesManifest | None:
    try:
        return read_frames_manifest(store, hour)
    except LakeCorrupt:  # the next archiving of the hour says so
        return None


def _frames_months(store: ObjectStore) -> list[tuple[str, str, list[FramesPartition]]]:
    """The archived hours by key and month."""
    months: dict[tuple[str, str], list[FramesPartition]] = {}
    for hour in archived_partitions(store):
        months.setdefault((_frames_key(hour), f"{hour.start:%Y-%m}"), []).append(hour)
    return [(*at, hours) for at, hours in sorted(months.items())]


def _frames_totals(store: ObjectStore, month: str) -> dict[str, dict[str, MonthTotals]]:
    """The totals of a month of all gatherers' frames, as their hosts wrote them."""
    paths = [each.path for each in store.list(f"{_FOLDER}{FRAMES}/") if each.path.endswith(f"/{month}.json")]
    found = [index for path in paths if (index := _read_or_none(store, path, MonthIndex)) is not None]
    return {index.table: {month: _totals(index)} for index in found}


def _totals(index: MonthIndex) -> MonthTotals:
    names = [each.partition for each in index.partitions]
    return MonthTotals(
        partitions=len(names),
        open=sum(each.state == "open" for each in index.partitions),
        rows=sum(each.rows for each in index.partitions),
        bytes=sum(each.bytes for each in index.partitions),
        first=names[0] if names else "",
        last=names[-1] if names else "",
    )


def _collect(store: ObjectStore) -> LakeIndex:
    """The index as the months that are there give it."""
    datasets: dict[str, dict[str, MonthTotals]] = {}
    for stored in list(store.list(_FOLDER)):
        index = _read_or_none(store, stored.path, MonthIndex)
        if index is not None:
            datasets.setdefault(index.table, {})[index.month] = _totals(index)
    return LakeIndex(datasets=datasets)


def _month_path(data: Dataset, month: str) -> str:
    return _path_of(data.key, month)


def _path_of(key: str, month: str) -> str:
    return f"{_FOLDER}{key}/{month}.json"


def _encode(index: LakeIndex | MonthIndex) -> bytes:
    return msgspec.json.format(msgspec.json.encode(index), indent=1) + b"\n"


def _read(store: ObjectStore, path: str, kind: type[IndexT]) -> IndexT | None:
    content = store.read(path)
    try:
        return None if content is None else msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LakeCorrupt(f"{path} is not an index ({error}); run: kalshi-platform lake-index") from error


def _read_or_none(store: ObjectStore, path: str, kind: type[IndexT]) -> IndexT | None:
    try:
        return _read(store, path, kind)
    except LakeCorrupt:
        return None
