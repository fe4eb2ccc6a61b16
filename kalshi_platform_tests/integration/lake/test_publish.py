"""Replacing a partition: what each kind of reader sees meanwhile, and after whatever goes wrong at whatever point."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.errors import LakeUnavailable, PartitionBusy
from kalshi_platform.lake import reader
from kalshi_platform.lake.manifest import verify
from kalshi_platform.lake.settings import FolderRoot, LakeSettings
from kalshi_platform.lake.store import open_store
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform_tests.fixtures.failing_store import WAYS, FailingStore, Killed, Way
from kalshi_platform_tests.fixtures.publishing import NEW, OLD, PARTITION, Hour


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(FolderRoot(tmp_path / "lake"))


def is_whole(rows: Counter[int], seconds: range) -> bool:
    """Whether all rows of an hour are there, some of them perhaps more than once."""
    return set(seconds) <= set(rows)


def test_a_replacement_stores_new_files_swaps_the_manifest_and_removes_the_old_files(store: FolderStore) -> None:
    noting = FailingStore(store)
    hour = Hour(noting.as_store)
    old = hour.publish(OLD)
    noting.changes.clear()
    new = hour.publish(NEW)
    assert [file.name for file in new.files][:2] == [file.name for file in old.files][:2], "of the same content"
    changed_old, changed_new = old.files[2].name, new.files[2].name
    assert noting.changes == [f"put_files {changed_new}", "write _manifest.json", f"delete {changed_old}"]
    assert verify(store, PARTITION.path) == new


def test_a_glob_sees_all_of_an_hour_at_every_moment_of_a_replacement(lake_settings: LakeSettings) -> None:
    hour = Hour(open_store(lake_settings))
    hour.publish(OLD)
    seen: list[tuple[str, Counter[int], list[int]]] = []

    def look(change: str) -> None:
        seen.append((change.split(maxsplit=1)[0], hour.glob(), hour.read()))

    watched = Hour(FailingStore(hour.store, on_change=look).as_store)
    watched.publish(NEW)
    look("end")
    assert all(is_whole(rows, OLD) for _, rows, _ in seen)
    # Rows of both for a moment: from the appearance of the new file until the old one is gone.
    assert [max(rows.values()) for _, rows, _ in seen] == [1, 2, 2, 1]
    assert [(change, read == list(NEW)) for change, _, read in seen] == [
        ("put_files", False),
        ("write", False),
        ("delete", True),
        ("end", True),
    ]


def test_nothing_is_written_when_the_content_is_the_same(lake_settings: LakeSettings) -> None:
    noting = FailingStore(open_store(lake_settings))
    hour = Hour(noting.as_store)
    first = hour.publish(OLD)
    noting.changes.clear()
    assert hour.publish(OLD) == first
    assert noting.changes == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("before", ["as now", "as version 0.1.0"])
def test_wherever_the_store_fails_the_hour_is_read_whole(store: FolderStore, way: Way, before: str) -> None:
    check_every_fault(store, way, before)


def test_wherever_a_bucket_fails_the_hour_is_read_whole(s3_settings: LakeSettings) -> None:
    check_every_fault(open_store(s3_settings), "for good", "as version 0.1.0")


def check_every_fault(store: ObjectStore, way: Way, before: str) -> None:
    for at in itertools.count():
        hour = Hour(store)
        (hour.publish if before == "as now" else hour.publish_as_before)(OLD)
        if not fails(hour, at, way):
            break
        read, rows = hour.read(), hour.glob()
        assert read in (list(OLD), list(NEW)), (at, read)
        assert is_whole(rows, OLD), (at, rows)
        # The next export repairs whatever is left, and leaves nothing that is not of the partition.
        assert hour.publish(NEW).rows == len(NEW)
        assert verify(hour.store, PARTITION.path).rows == len(NEW)
        assert (hour.read(), hour.glob()) == (list(NEW), Counter(NEW))
    assert at >= 3, "there were moments to fail at"


def fails(hour: Hour, at: int, way: Way) -> bool:
    """Publish over a store that fails at change `at`; whether it came to that."""
    broken = FailingStore(hour.store, at, way)
    try:
        Hour(broken.as_store).publish(NEW)
    except (LakeUnavailable, Killed) as error:
        told = ("was not replaced", "may be written or not", "is published, but")
        return way == "killed" or any(text in str(error) for text in told)
    assert len(broken.changes) == at
    return False


def test_new_files_that_did_not_become_the_partition_are_taken_back(store: FolderStore) -> None:
    hour = Hour(store)
    hour.publish(OLD)
    files = hour.files()
    # The files are stored, and the answer is lost.
    with pytest.raises(LakeUnavailable, match="was not replaced: what was published there stands"):
        Hour(FailingStore(store, 0, "after").as_store).publish(NEW)
    assert hour.files() == files


def test_a_corrupt_manifest_is_replaced(store: FolderStore) -> None:
    hour = Hour(store)
    hour.publish(OLD)
    store.write(PARTITION.manifest_path, b"{")
    hour.publish(NEW)
    assert hour.read() == list(NEW)
    assert hour.glob() == Counter(NEW)


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_a_holder_that_lost_the_lock_stops(store: FolderStore, asked: int) -> None:
    """The lock is looked at before the files appear, before the manifest is written, and before files are removed."""
    hour = Hour(store)
    hour.publish(OLD)
    answers = iter([*[True] * (asked - 1), *[False] * 9])
    with pytest.raises(PartitionBusy, match=r"has lost its lock .*; export the partition again"):
        hour.publish(NEW, lambda: next(answers))
    assert hour.read() == list(NEW if asked == 3 else OLD)
    assert is_whole(hour.glob(), OLD)
    hour.publish(NEW)
    assert hour.glob() == Counter(NEW)


def test_an_overtaken_export_publishes_nothing(store: FolderStore) -> None:
    """As when two copies of production export to the same lake: neither sees the other's lock."""
    hour = Hour(store)
    hour.publish(OLD)
    longer = range(9)

    def overtake(change: str) -> None:
        if change.startswith("put_files"):
            hour.publish(longer)

    with pytest.raises(PartitionBusy, match="another export has published"):
        Hour(FailingStore(store, on_change=overtake).as_store).publish(NEW)
    assert hour.read() == list(longer)
    assert hour.glob() == Counter(longer)


def test_a_file_that_vanishes_while_it_is_published_is_reported(store: FolderStore) -> None:
    hour = Hour(store)
    hour.publish(OLD)

    def remove(change: str) -> None:
        if change.startswith("write"):
            store.delete(f"{PARTITION.path}/{hour.files()[0]}")

    with pytest.raises(LakeUnavailable, match=r"part-0000-\w+.parquet vanished"):
        Hour(FailingStore(store, on_change=remove).as_store).publish(NEW)
    hour.publish(NEW)
    assert hour.read() == list(NEW)


class ReplacedMeanwhile(FailingStore):
    """Another export replaces the hour when a reader opens its first data file."""

    replacement: Any = None

    def __getattr__(self, name: str) -> Any:
        if name == "open" and self.replacement is not None:
            replace, self.replacement = self.replacement, None
            replace()
        return super().__getattr__(name)


def test_a_reader_of_a_partition_that_is_replaced_meanwhile_gets_the_new_rows(lake_settings: LakeSettings) -> None:
    store: ObjectStore = open_store(lake_settings)
    hour = Hour(store)
    hour.publish_as_before(OLD)
    read_through = ReplacedMeanwhile(store)
    read_through.replacement = lambda: hour.publish(range(3))
    assert Hour(read_through.as_store).read() == [0, 1, 2]


def test_a_reader_that_is_never_left_in_peace_says_so(store: FolderStore) -> None:
    hour = Hour(store)
    hour.publish(range(3))

    class Restless(FailingStore):
        rows = 3

        def __getattr__(self, name: str) -> Any:
            if name == "open":
                self.rows += 2
                hour.publish(range(self.rows, self.rows + 1))
            return super().__getattr__(name)

    with pytest.raises(LakeUnavailable, match="replaced again and again"):
        Hour(Restless(store).as_store).read()
    assert reader.partition_holes(store, "orderbook_deltas", PARTITION.start, PARTITION.end).height == 0
