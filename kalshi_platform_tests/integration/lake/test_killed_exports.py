"""Exports that are killed: what a reader accepts is whole, and the next export completes it, index and all."""

from __future__ import annotations

import itertools
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.export import export_raw
from kalshi_platform.lake.index import entry_of, find_month, lock_name, read_index
from kalshi_platform.lake.layout import Partition, find_dataset
from kalshi_platform.lake.manifest import Manifest, find_manifest, read_manifest, verify
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.stale import stale_partitions
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform.local.processes.process_table import wait_until
from kalshi_platform_tests.fixtures.failing_store import FailingStore, Killed
from kalshi_platform_tests.fixtures.killed_exports import killed_exports
from kalshi_platform_tests.fixtures.lake import HOUR
from kalshi_platform_tests.fixtures.production import Production

PARTITION = Partition(find_dataset("orderbook_deltas"), HOUR)
DATA = DATASETS["raw/orderbook_deltas"]


def fill(production: Production, seconds: range) -> None:
    rows = [{"exchange_ts": HOUR + timedelta(seconds=n), "ticker": f"KX{n % 3}", "seq": n} for n in seconds]
    production.insert("orderbook_deltas", rows)


def check_whole(store: FolderStore, rows: set[int]) -> Manifest | None:
    """What a reader would accept now, if anything, has every row that its manifest promises, and no file less."""
    found = find_manifest(store, PARTITION)
    if found is None:
        return None
    path, manifest = found
    assert manifest.rows in rows
    verify_files(store, path, manifest)
    return manifest


def verify_files(store: FolderStore, path: str, manifest: Manifest) -> None:
    sizes = {each.path.rpartition("/")[2]: each.bytes for each in store.list(f"{path}/")}
    assert all(sizes.get(file.name) == file.bytes for file in manifest.files)


def check_complete(store: FolderStore, production: Production, manifest: Manifest) -> None:
    assert verify(store, PARTITION.path) == manifest
    assert not list(store.list("open/")), "the open export is gone"
    index = find_month(store, DATA, "2026-11")
    assert index is not None
    assert index.partitions == (entry_of(PARTITION, PARTITION.path, manifest),)
    assert stale_partitions(store, production.url, [PARTITION]) == []


def test_wherever_the_close_of_an_open_partition_is_killed_a_rerun_completes_it(
    production: Production, tmp_path: Path
) -> None:
    fill(production, range(4))
    opened = FolderStore(FolderRoot(tmp_path / "opened"))
    export_raw(opened, production.url, "orderbook_deltas", HOUR, "open")
    fill(production, range(4, 9))
    production.close_hour(HOUR)
    reference: Manifest | None = None
    for at in itertools.count():
        shutil.copytree(tmp_path / "opened", tmp_path / f"lake-{at}")
        store = FolderStore(FolderRoot(tmp_path / f"lake-{at}"))
        killer = FailingStore(store, at, "killed")
        try:
            export_raw(killer.as_store, production.url, "orderbook_deltas", HOUR, "closed")
        except Killed:
            check_whole(store, {4, 9})
        completed = export_raw(store, production.url, "orderbook_deltas", HOUR, "closed")
        check_complete(store, production, completed)
        reference = reference or completed
        assert completed.files == reference.files, "the same bytes, however it came about"
        if len(killer.changes) <= at:
            break
    assert at >= 5, "files, manifest, the open one's removal, index"


def test_exports_killed_at_any_time_leave_nothing_that_is_partial(production: Production, tmp_path: Path) -> None:
    """With KALSHI_TEST_KILLS=20 it is the long proof."""
    fill(production, range(200))
    production.close_hour(HOUR)
    store = FolderStore(FolderRoot(tmp_path / "lake"))
    kills = int(os.environ.get("KALSHI_TEST_KILLS", "2"))
    runs = killed_exports(store.root, production.url, "orderbook_deltas", HOUR, kills=kills, seed=11, within_s=0.4)
    for number, _ in enumerate(runs):
        manifest = check_whole(store, {200})
        if manifest is not None or number % 5 == 4:
            completed = export_raw(store, production.url, "orderbook_deltas", HOUR, "closed")
            check_complete(store, production, completed)
            for stored in list(store.list("")):
                store.delete(stored.path)
    completed = export_raw(store, production.url, "orderbook_deltas", HOUR, "closed")
    check_complete(store, production, completed)


def test_an_export_waits_for_another_that_writes_the_index(production: Production, tmp_path: Path) -> None:
    store = FolderStore(FolderRoot(tmp_path / "lake"))
    production.close_hour(HOUR)
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with ThreadPoolExecutor(1) as pool:
        with production.database.transaction() as another:
            another.lock(lock_name(store))
            export = pool.submit(export_raw, store, production.url, "orderbook_deltas", HOUR, "closed")
            assert wait_until(lambda: production.rows(waiting) == [(1,)] or export.done(), 60, clock=SYSTEM_CLOCK)
            assert not export.done()
            assert read_manifest(store, PARTITION.path) is not None, "it is published"
            assert read_index(store) is None
        assert export.result().rows == 0
    index = read_index(store)
    assert index is not None
    assert index.datasets[DATA.key]["2026-11"].partitions == 1
