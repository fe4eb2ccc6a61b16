"""The index of the lake: what is in it and how big it is, without a listing.

    _index.json                            data set → month → partitions, rows, bytes
    _index/<layer>/<table>/YYYY-MM.json    the partitions of that month

Written after each publication, under a lock; the manifests are what it is made from, so that it can be made anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TypeVar

import msgspec

from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.lake.datasets import DATASETS, Dataset
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
    totals = {**index.datasets.get(data.key, {}), month: _totals(after)}
    changed = LakeIndex(datasets={**index.datasets, data.key: dict(sorted(totals.items()))})
    if changed != index or before is None:
        store.write(INDEX_NAME, _encode(LakeIndex(datasets=dict(sorted(changed.datasets.items())))))


def rebuild_index(lake: Lake) -> LakeIndex:
    """Make the index anew from the manifests; return it. The caller holds the lock. Raises LakeUnavailable."""
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
    ordered = tuple(sorted(entries, key=lambda each: each.partition))
    return MonthIndex(table=data.key, month=month, partitions=ordered)


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
    return f"{_FOLDER}{data.key}/{month}.json"


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
