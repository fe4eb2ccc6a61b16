"""Paths and partition keys."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.errors import ConfigurationError, UnknownPartition
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.layout import (
    find_dataset,
    is_part_name,
    parse_partition,
    part_name,
    partition_at,
    partition_path,
    partition_starting,
    partitions_between,
)
from kalshi_platform.lake.settings import BucketRoot, FolderRoot, LakeSettings, parse_root

RAW = find_dataset("orderbook_deltas")
DAILY = find_dataset("processed/trades")
FOUR = datetime(2026, 11, 23, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["2026-11-23-04:00", "2026-11-23T04", "2026-11-23T04:00", "2026-11-23T04:00:00Z", "2026-11-23T04:00+00:00"]
)
def test_an_hour_is_read_in_every_spelling(text: str) -> None:
    partition = parse_partition(RAW, text)
    assert (partition.start, partition.end) == (FOUR, FOUR + timedelta(hours=1))
    assert partition.path == "raw/orderbook_deltas/date=2026-11-23/hour=04"
    assert partition.key == "2026-11-23-04:00"


@pytest.mark.parametrize("text", ["2026-11-23", "2026-11-23-00:00"])
def test_a_day_is_read(text: str) -> None:
    partition = parse_partition(DAILY, text)
    assert partition.path == "processed/trades/date=2026-11-23"
    assert partition.end - partition.start == timedelta(days=1)
    assert partition.key == "2026-11-23"


@pytest.mark.parametrize(
    ("table", "text", "complaint"),
    [
        (RAW, "2026-11-23", "names a day, not an hour"),
        (RAW, "2026-11-23T04:30", "inside a partition"),
        (RAW, "2026-11-23T24", "not a time"),
        (RAW, "2026-02-30T01", "not a time"),
        (RAW, "yesterday", "not a partition key"),
        (RAW, "", "not a partition key"),
        (DAILY, "2026-11-23T04", "inside a partition"),
        (DAILY, "2026-13-01", "not a time"),
    ],
)
def test_a_wrong_key_says_what_is_wanted(table: object, text: str, complaint: str) -> None:
    with pytest.raises(UnknownPartition, match=complaint) as caught:
        parse_partition(table, text)  # type: ignore[arg-type]
    assert "partitions, written like 2026-11-23" in str(caught.value)


@given(st.sampled_from(sorted(DATASETS)), st.integers(0, 2_000_000_000))
def test_a_partition_holds_its_moment_and_survives_its_own_key(name: str, seconds: int) -> None:
    table, moment = DATASETS[name], datetime.fromtimestamp(seconds, UTC)
    partition = partition_at(table, moment)
    assert partition.start <= moment < partition.end
    assert parse_partition(table, partition.key) == partition


def test_a_name_alone_means_the_raw_table() -> None:
    assert find_dataset("trades").key == "raw/trades"
    assert find_dataset("processed/trades").kind == "daily"
    with pytest.raises(UnknownPartition, match="aggregates/candles_1m"):
        find_dataset("candles_1m")


def test_a_start_inside_a_partition_is_refused() -> None:
    assert partition_starting(DAILY, date(2026, 11, 23)).start == datetime(2026, 11, 23, tzinfo=UTC)
    east = timezone(timedelta(hours=3))
    assert partition_starting(RAW, datetime(2026, 11, 23, 7, tzinfo=east)).start == FOUR
    with pytest.raises(UnknownPartition, match="not the start"):
        partition_starting(RAW, FOUR + timedelta(seconds=1))
    with pytest.raises(UnknownPartition, match="no time zone"):
        partition_starting(RAW, FOUR.replace(tzinfo=None))


def test_ranges_are_cut_into_the_partitions_they_touch() -> None:
    span = partitions_between(RAW, FOUR + timedelta(minutes=59), FOUR + timedelta(hours=2))
    assert [partition.start.hour for partition in span] == [4, 5]
    assert list(partitions_between(RAW, FOUR, FOUR)) == []


def test_names_of_files_and_folders() -> None:
    assert partition_path("raw", "trades", date(2026, 1, 2), 3) == "raw/trades/date=2026-01-02/hour=03"
    assert partition_path("processed", "trades", date(2026, 1, 2)) == "processed/trades/date=2026-01-02"
    assert part_name(7, "0123456789abcdef" * 4) == "part-0007-0123456789abcdef.parquet"
    assert is_part_name(part_name(12_345, "0123456789abcdef" * 4))
    assert is_part_name("part-0000.parquet"), "of version 0.1.0"
    for name in ("_manifest.json", "part-0000-01.parquet", "part-0000.unfinished", "mine.parquet"):
        assert not is_part_name(name)


def test_roots() -> None:
    assert parse_root("s3://bucket") == BucketRoot("bucket", "")
    assert parse_root("s3://bucket/a/b/") == BucketRoot("bucket", "a/b")
    assert BucketRoot("bucket", "a/b").key("raw/x") == "a/b/raw/x"
    assert BucketRoot("bucket", "").key("raw/x") == "raw/x"
    assert parse_root("file:///data/my%20lake") == parse_root("/data/my lake")
    for wrong in (
        "",
        "lake",
        "s3://",
        "file://",
        "file:///",
        "file://host/x",
        "https://bucket/x",
        "s3://b?x/y",
        "s3://b#",
    ):
        with pytest.raises(ConfigurationError, match="not a lake root"):
            parse_root(wrong)


@pytest.mark.parametrize(
    ("root", "found"),
    [
        ("file:///mnt/disk#2/lake", "/mnt/disk#2/lake"),
        ("file:///mnt/a?b/lake", "/mnt/a?b/lake"),
        ("file:///mnt/disk%232/50%25/lake", "/mnt/disk#2/50%/lake"),
        (Path("/a ü/$x/'q'/#?%20").as_uri(), "/a ü/$x/'q'/#?%20"),
        ("s3://bucket/team#7/kalshi", "team#7/kalshi"),
        ("s3://bucket/a?b/c", "a?b/c"),
        ("s3://bucket/100%23/c", "100%23/c"),
    ],
)
def test_no_character_cuts_a_root_short(root: str, found: str) -> None:
    parsed = parse_root(root)
    assert (str(parsed.folder) if isinstance(parsed, FolderRoot) else parsed.prefix) == found


def test_settings_do_not_show_their_keys() -> None:
    shown = repr(LakeSettings("s3://b", access_key_id="AKIA", secret_access_key="hidden", session_token="hidden"))
    assert "hidden" not in shown
    assert "AKIA" not in shown
