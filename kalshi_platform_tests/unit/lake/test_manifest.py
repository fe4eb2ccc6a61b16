"""Publishing a partition, and finding out when it is not what it was."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.layout import Partition, find_dataset, part_name
from kalshi_platform.lake.manifest import code_version, decode, encode, published, read_manifest, verify
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform_tests.fixtures.lake import HOUR, batch, put_partition, row

DATA = DATASETS["raw/orderbook_deltas"]
PARTITION = Partition(find_dataset("orderbook_deltas"), HOUR)


def rows(count: int) -> list[dict[str, object]]:
    return [row(DATA, HOUR + timedelta(seconds=second)) for second in range(count)]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(FolderRoot(tmp_path / "lake"))


def test_a_manifest_is_json_that_people_can_read(store: FolderStore) -> None:
    manifest = put_partition(store, PARTITION, [batch(DATA, rows(3))])
    fields = json.loads(store.read(PARTITION.manifest_path) or b"")
    assert fields["table"] == "raw/orderbook_deltas"
    assert fields["partition"] == "2026-11-20-04:00"
    assert (fields["state"], fields["rows"]) == ("closed", 3)
    assert (fields["time_min"], fields["time_max"]) == ("2026-11-20T04:00:00Z", "2026-11-20T04:00:02Z")
    assert fields["coverage_share"] is None
    assert [file["name"] for file in fields["files"]] == [part_name(0, fields["files"][0]["sha256"])]
    assert fields["files"][0]["bytes"] == manifest.bytes > 0
    assert read_manifest(store, PARTITION.path) == manifest
    assert code_version()[0].isdigit()


def test_a_manifest_survives_writing_and_reading(store: FolderStore) -> None:
    manifest = put_partition(store, PARTITION, [batch(DATA, rows(1))])
    assert decode(encode(manifest), "here") == manifest
    later = encode(manifest).replace(b'"format"', b'"a_field_of_the_future": 1,\n  "format"')
    assert decode(later, "here") == manifest


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"table": 1}', b"\xff"])
def test_something_else_in_its_place_is_corrupt(content: bytes) -> None:
    with pytest.raises(LakeCorrupt, match="here is not a manifest"):
        decode(content, "here")


def test_nothing_published_is_none(store: FolderStore) -> None:
    assert read_manifest(store, PARTITION.path) is None
    with pytest.raises(LakeCorrupt, match="has no manifest"):
        verify(store, PARTITION.path)


def test_an_untouched_partition_is_verified(store: FolderStore) -> None:
    manifest = put_partition(store, PARTITION, [batch(DATA, rows(5))])
    assert verify(store, PARTITION.path) == manifest


def test_one_changed_byte_is_found(store: FolderStore) -> None:
    (file,) = put_partition(store, PARTITION, [batch(DATA, rows(5))]).files
    path = f"{PARTITION.path}/{file.name}"
    content = bytearray(store.read(path) or b"")
    content[len(content) // 2] ^= 1
    store.write(path, bytes(content))
    with pytest.raises(LakeCorrupt, match=r"part-0000-\w+\.parquet has \d+ bytes and SHA-256"):
        verify(store, PARTITION.path)


def test_a_missing_file_and_a_stranger_are_found(store: FolderStore) -> None:
    (file,) = put_partition(store, PARTITION, [batch(DATA, rows(5))]).files
    store.delete(f"{PARTITION.path}/{file.name}")
    store.write(f"{PARTITION.path}/part-0001.parquet", b"x")
    with pytest.raises(LakeCorrupt) as caught:
        verify(store, PARTITION.path)
    assert f"{file.name} is missing" in str(caught.value)
    assert "part-0001.parquet is not in the manifest" in str(caught.value)


def test_a_false_count_of_rows_is_found(store: FolderStore) -> None:
    manifest = put_partition(store, PARTITION, [batch(DATA, rows(5))])
    file = msgspec.structs.replace(manifest.files[0], rows=6)
    with pytest.raises(LakeCorrupt, match=r"part-0000-\w+\.parquet has 5 rows, not 6"):
        verify(store, PARTITION.path, msgspec.structs.replace(manifest, rows=6, files=(file,)))
    with pytest.raises(LakeCorrupt, match="do not add up to 7"):
        verify(store, PARTITION.path, msgspec.structs.replace(manifest, rows=7))


def test_published_partitions_are_listed(store: FolderStore) -> None:
    later = Partition(PARTITION.dataset, PARTITION.start + timedelta(days=30))
    for partition in (later, PARTITION):
        put_partition(store, partition, [])
    store.write("raw/orderbook_deltas/date=2026-11-20/hour=05/part-0000.parquet", b"not published")
    day = Partition(find_dataset("processed/trades"), HOUR.replace(hour=0))
    put_partition(store, day, [])
    assert list(published(store, PARTITION.dataset)) == [PARTITION, later]
    assert list(published(store, PARTITION.dataset, "date=2026-11")) == [PARTITION]
    assert list(published(store, day.dataset)) == [day]
