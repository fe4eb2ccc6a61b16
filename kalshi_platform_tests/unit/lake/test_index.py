"""The index of the lake follows what is published, and is made anew from it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.lake.index import find_month, index_partition, read_index, rebuild_index
from kalshi_platform.lake.layout import Partition, find_dataset, partition_at
from kalshi_platform.lake.manifest import read_manifest
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform_tests.fixtures.failing_store import FailingStore
from kalshi_platform_tests.fixtures.lake import HOUR, batch, put_partition, row

DELTAS = find_dataset("orderbook_deltas")
FIRST, SECOND = (Partition(DELTAS, HOUR + timedelta(hours=n)) for n in range(2))
LATER = Partition(DELTAS, HOUR + timedelta(days=30))
DAY = partition_at(find_dataset("processed/trades"), HOUR)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(FolderRoot(tmp_path / "lake"))


def put(store: FolderStore, partition: Partition, *tickers: str) -> None:
    rows = [row(DELTAS, partition.start, ticker=ticker) for ticker in tickers]
    put_partition(store, partition, [batch(DELTAS, rows)] if rows else [])


def test_each_published_partition_is_shown_with_its_size_and_tickers(store: FolderStore) -> None:
    for partition, tickers in ((SECOND, ("KXB", "ü")), (FIRST, ()), (LATER, ("KXA",)), (DAY, ())):
        put(store, partition, *tickers)
        index_partition(store, partition)
    index = read_index(store)
    assert index is not None
    months = {key: {month: (each.partitions, each.rows) for month, each in of_data.items()}
              for key, of_data in index.datasets.items()}  # fmt: skip
    assert months == {"processed/trades": {"2026-11": (1, 0)}, DELTAS.key: {"2026-11": (2, 2), "2026-12": (1, 1)}}
    november = find_month(store, DELTAS, "2026-11")
    assert november is not None
    assert [(each.partition, each.path) for each in november.partitions] == [
        (each.key, each.path) for each in (FIRST, SECOND)
    ]
    assert (november.partitions[1].ticker_min, november.partitions[1].ticker_max) == ("KXB", "ü")
    manifest = read_manifest(store, SECOND.path)
    assert manifest is not None
    assert (november.partitions[1].bytes, november.partitions[1].state) == (manifest.bytes, "closed")
    assert index.datasets[DELTAS.key]["2026-11"].bytes == sum(each.bytes for each in november.partitions)


def test_the_same_partition_writes_nothing_and_another_content_is_shown(store: FolderStore) -> None:
    noting = FailingStore(store)
    put(store, FIRST, "KXA")
    index_partition(noting.as_store, FIRST)
    assert noting.changes == ["write 2026-11.json", "write _index.json"]
    index_partition(noting.as_store, FIRST)
    assert len(noting.changes) == 2
    put(store, FIRST, "KXA", "KXB")
    index_partition(noting.as_store, FIRST)
    index = read_index(store)
    assert index is not None
    assert index.datasets[DELTAS.key]["2026-11"].rows == 2


def test_an_index_made_anew_is_the_one_that_exports_keep(store: FolderStore) -> None:
    for partition in (FIRST, SECOND, LATER, DAY):
        put(store, partition, *(["KXA"] if partition.dataset is DELTAS else []))
        index_partition(store, partition)
    kept = {each.path: store.read(each.path) for each in store.list("_index")}
    for path in kept:
        store.delete(path)
    store.write("_index/raw/nothing/2020-01.json", b"{}")
    rebuild_index(store)
    assert {each.path: store.read(each.path) for each in store.list("_index")} == kept


@pytest.mark.parametrize("harm", ["lost", "broken"])
def test_a_month_without_an_index_gets_one_of_all_its_partitions(store: FolderStore, harm: str) -> None:
    for partition in (FIRST, SECOND):
        put(store, partition, "KXA")
    index_partition(store, FIRST)
    for path in ("_index.json", f"_index/{DELTAS.key}/2026-11.json"):
        if harm == "lost":
            store.delete(path)
        else:
            store.write(path, b"{")
    if harm == "broken":
        with pytest.raises(LakeCorrupt, match="run: kalshi-platform lake-index"):
            read_index(store)
    index_partition(store, SECOND)
    index = read_index(store)
    assert index is not None
    assert index.datasets[DELTAS.key]["2026-11"].partitions == 2


def test_a_partition_that_is_gone_is_not_shown(store: FolderStore) -> None:
    for partition in (FIRST, SECOND):
        put(store, partition, "KXA")
        index_partition(store, partition)
    store.delete(FIRST.manifest_path)
    index_partition(store, FIRST)
    index = find_month(store, DELTAS, "2026-11")
    assert index is not None
    assert [each.partition for each in index.partitions] == [SECOND.key]
    assert msgspec.json.decode(store.read("_index.json") or b"")["datasets"][DELTAS.key]["2026-11"]["partitions"] == 1
