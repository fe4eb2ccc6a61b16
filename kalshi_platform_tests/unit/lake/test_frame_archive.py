"""The manifest of frames says what it was given, and the index of the lake follows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.errors import LakeCorrupt, UnknownPartition
from kalshi_platform.lake.frame_archive import (
    ArchivedSegment,
    FramesManifest,
    FramesPartition,
    archived_partitions,
    decode_frames,
    encode_frames,
    find_differences,
    frames_partition,
    parse_frames_path,
    read_frames_manifest,
    segment_name,
)
from kalshi_platform.lake.index import INDEX_NAME, index_frames, index_partition, read_index, rebuild_index
from kalshi_platform.lake.layout import Partition, find_dataset
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform_tests.fixtures.lake import HOUR, batch, put_partition, row

DELTAS = find_dataset("orderbook_deltas")
FIRST = FramesPartition("g1", HOUR)
HOUR_NS = int(HOUR.timestamp()) * 10**9
CREATED_NS = HOUR_NS + 7


def segment(number: int = 1, journal_id: int = 7, **values: object) -> ArchivedSegment:
    made = ArchivedSegment(
        name=segment_name((journal_id, number, CREATED_NS)),
        number=number,
        journal_id=journal_id,
        created_at_ns=CREATED_NS,
        sha256="0" * 64,
        bytes=10,
        bytes_raw=40,
        blocks=2,
        frames=5,
        damages=0,
        received_min_ns=HOUR_NS + number * 10**9 + 1_234_567,
        received_max_ns=HOUR_NS + number * 10**9 + 2_345_678,
        code_version="1",
    )
    return msgspec.structs.replace(made, **values)


def manifest(*segments: ArchivedSegment, partition: FramesPartition = FIRST, state: str = "closed") -> FramesManifest:
    return FramesManifest(
        gatherer=partition.gatherer,
        partition=partition.key,
        state=state,  # type: ignore[arg-type]
        segments=segments,
        archived_at=HOUR + timedelta(hours=1),
        code_version="1",
    )


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(FolderRoot(tmp_path / "lake"))


@given(st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True), st.integers(0, 24 * 3_650))
def test_a_partition_is_found_by_its_path(gatherer: str, hours: int) -> None:
    partition = frames_partition(gatherer, datetime(2021, 1, 1, tzinfo=UTC) + timedelta(hours=hours))
    assert parse_frames_path(partition.path) == partition
    assert parse_frames_path(f"{partition.path}/more") is None


def test_a_moment_within_an_hour_is_no_partition() -> None:
    with pytest.raises(UnknownPartition):
        frames_partition("g1", HOUR + timedelta(minutes=1))


def test_the_manifest_sums_up_its_segments_and_is_read_as_it_was_written() -> None:
    quiet = segment(3, frames=0, received_min_ns=None, received_max_ns=None, damages=1)
    written = manifest(segment(1), segment(2), quiet)
    assert decode_frames(encode_frames(written), "here") == written
    shown = msgspec.json.decode(encode_frames(written))
    assert (shown["frames"], shown["blocks"], shown["damages"]) == (10, 6, 1)
    assert (shown["bytes"], shown["bytes_raw"]) == (30, 120)
    assert shown["time_min"] == "2026-11-20T04:00:01.001234Z"
    assert shown["time_max"] == "2026-11-20T04:00:02.002345Z"
    with pytest.raises(LakeCorrupt, match="here is not a manifest"):
        decode_frames(b"{", "here")


def test_a_journal_begun_anew_within_the_hour_gets_names_of_its_own() -> None:
    held = (segment(1, journal_id=7), segment(2, journal_id=7))
    assert segment_name((7, 1, CREATED_NS), held) == "000000000001.journal.zst"
    assert segment_name((9, 3, CREATED_NS), held) == "000000000003.journal.zst"
    assert segment_name((9, 1, CREATED_NS), held) == f"000000000001-{CREATED_NS:016x}.journal.zst"
    assert segment_name((7, 1, 0x1F), held) == "000000000001-000000000000001f.journal.zst"


def test_a_segment_that_is_missing_or_another_is_named(store: FolderStore) -> None:
    whole = segment(1, sha256="2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", bytes=5)
    store.write(f"{FIRST.path}/{whole.name}", b"hello")
    assert find_differences(store, FIRST, (whole,)) == []
    store.write(f"{FIRST.path}/{whole.name}", b"hallo")
    different, missing = find_differences(store, FIRST, (whole, segment(2)))
    assert different.startswith("000000000001.journal.zst has 5 bytes and SHA-256 ")
    assert missing == "000000000002.journal.zst is missing"


def test_the_index_shows_frames_by_gatherer_with_the_next_export(store: FolderStore) -> None:
    later = FramesPartition("g1", HOUR + timedelta(hours=1))
    other = FramesPartition("g2", HOUR)
    written = {
        FIRST: manifest(segment(1), segment(2)),
        later: manifest(segment(3), partition=later, state="open"),
        other: manifest(segment(1), partition=other),
    }
    for partition, each in written.items():
        store.write(partition.manifest_path, encode_frames(each))
        index_frames(store, partition, each)
    assert set(archived_partitions(store)) == set(written)
    assert read_frames_manifest(store, later) == written[later]
    assert store.read(INDEX_NAME) is None
    exported = Partition(DELTAS, HOUR)
    put_partition(store, exported, [batch(DELTAS, [row(DELTAS, HOUR)])])
    index_partition(store, exported)
    index = read_index(store)
    assert index is not None
    totals = {key: months["2026-11"] for key, months in index.datasets.items()}
    assert sorted(totals) == ["raw/frames/g1", "raw/frames/g2", DELTAS.key]
    frames = totals["raw/frames/g1"]
    assert (frames.partitions, frames.open, frames.rows, frames.bytes) == (2, 1, 15, 30)
    assert (frames.first, frames.last) == (FIRST.key, later.key)
    assert rebuild_index(store) == index
