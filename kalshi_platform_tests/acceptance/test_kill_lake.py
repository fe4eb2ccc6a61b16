"""`kill -9` of exports, closes, registrations and retention at random moments: what a reader accepts is always whole.

    KALSHI_KILLS=20 pytest kalshi_platform_tests/acceptance/test_kill_lake.py -s

kills them so often in turn (the default is 3) and prints what the kills met; KALSHI_KILL_SEED chooses other
moments. After every kill each published partition must be one whole version of its hour, old or new; a rerun completes
it; another export of the same rows has the same bytes; and nothing is dropped that the lake does not hold.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.deduplicator.settings import DeduplicatorSettings
from kalshi_platform.lake.datasets import DATASETS, RAW_TABLES
from kalshi_platform.lake.export import export_raw
from kalshi_platform.lake.iceberg.catalog import open_catalog
from kalshi_platform.lake.iceberg.register import register
from kalshi_platform.lake.iceberg.settings import IcebergSettings
from kalshi_platform.lake.iceberg.tables import open_table
from kalshi_platform.lake.layout import find_dataset, partition_starting
from kalshi_platform.lake.manifest import find_manifest
from kalshi_platform.lake.retention.apply import apply_retention
from kalshi_platform.lake.retention.settings import RetentionSettings
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.market.tables import PRODUCTION_TABLES
from kalshi_platform.market.times import us_from_datetime
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.hand_filled_gatherer import delta_row, snapshot_row, trade_row
from kalshi_platform_tests.fixtures.retention_world import HOUR, RetentionWorld
from kalshi_platform_tests.fixtures.storage import MakeDatabase

KILLS = int(os.environ.get("KALSHI_KILLS", "3"))
SEED = int(os.environ.get("KALSHI_KILL_SEED", "1"))
DELTAS = DATASETS["raw/orderbook_deltas"]
MARKETS, DELTAS_EACH = 40, 50
OLD = timedelta(days=40)
CYCLE = ("export", "close", "retention", "registration", "export again")
# The children are forked from a process that has everything loaded and no thread running: they begin within a moment.
LOADED = [__name__]

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240 + 20 * KILLS), pytest.mark.xdist_group("recordings")]


def export(lake: LakeSettings, production_url: str, hour: datetime) -> None:
    for table in RAW_TABLES:
        export_raw(lake, production_url, table, hour, "closed")


def close(settings: DeduplicatorSettings, hour: datetime) -> None:
    close_hour(settings, hour, FakeClock(hour + OLD), PartitionBounds())


def retain(settings: RetentionSettings, hour: datetime) -> None:
    apply_retention(settings, FakeClock(hour + OLD))


def register_day(lake: LakeSettings, settings: IcebergSettings, hour: datetime) -> None:
    register(lake, settings, [DELTAS], [hour.date()])


class World(RetentionWorld):
    """An hour for each kill. `versions`: how many rows of a table a whole partition of an hour may have."""

    def __init__(self, make: MakeDatabase, folder: Path) -> None:
        super().__init__(make, folder)
        self.versions: dict[tuple[datetime, str], set[int]] = defaultdict(set)
        self._streams = 0

    def add(self, hour: datetime) -> None:
        """Record some more of an hour, on a stream of its own."""
        self._streams += 1
        stream, at = self._streams, us_from_datetime(hour) + self._streams * 5_000_000
        tickers = [f"KX-{number:02d}" for number in range(MARKETS)]
        rows: dict[str, list[dict[str, Any]]] = {
            "orderbook_snapshots": [
                snapshot_row(ticker, received_us=at, seq=seq, yes={4000: 100}, stream_id=stream)
                for seq, ticker in enumerate(tickers, 1)
            ],
            "orderbook_deltas": [
                delta_row(tickers[n % MARKETS], ts_us=at + n * 1_000, seq=MARKETS + 1 + n, stream_id=stream)
                for n in range(MARKETS * DELTAS_EACH)
            ],
            "trades": [trade_row(ticker, f"t-{stream}-{ticker}", ts_us=at) for ticker in tickers],
        }
        self.gatherer.commit(
            segments=[(stream, 1, MARKETS * (1 + DELTAS_EACH))],
            book_subscriptions=[(stream, ticker, seq, None) for seq, ticker in enumerate(tickers, 1)],
            orderbook_snapshots=rows["orderbook_snapshots"],
            orderbook_deltas=rows["orderbook_deltas"],
            trades=rows["trades"],
        )
        for table, added in rows.items():
            known = self.versions[hour, table]
            known.add(max(known, default=0) + len(added))

    def newest(self, hour: datetime, table: str) -> int:
        return max(self.versions[hour, table])

    def held(self, database: Database, table: str) -> dict[datetime, int]:
        time_column = PRODUCTION_TABLES[table].time_column
        return dict(self.rows(f"SELECT date_trunc('hour', {time_column}), count(*) FROM {table} GROUP BY 1", database))

    def check(self) -> None:
        """Every partition that a reader would accept is one whole version; what a database lacks, the lake has."""
        for (hour, table), versions in self.versions.items():
            published = find_manifest(self.lake, partition_starting(find_dataset(f"raw/{table}"), hour))
            in_lake = None
            if published is not None:
                path, manifest = published
                # Files beside the listed ones, which a killed export left, count for nobody.
                files = [self.folder / path / file.name for file in manifest.files]
                assert all(
                    sha256(file.read_bytes()).hexdigest() == listed.sha256
                    for file, listed in zip(files, manifest.files, strict=True)
                )
                in_lake = sum(pq.read_metadata(file).num_rows for file in files)
                assert in_lake == manifest.rows
                assert in_lake in versions, f"{table} of {hour}: {in_lake} rows, whole ones have {versions}"
            for database in (self.gatherer.database, self.production):
                rows = self.held(database, table).get(hour, 0)
                if hour in self.closed and rows < self.newest(hour, table):
                    assert rows == 0
                    assert in_lake == self.newest(hour, table), f"{table} of {hour} is nowhere whole"

    def named(self, catalog: IcebergSettings) -> dict[str, int]:
        """The files of raw/orderbook_deltas that the Iceberg table names, with their rows."""
        with open_catalog(catalog, self.store) as opened:
            files = open_table(opened, self.store, DELTAS).scan().plan_files()
            return {task.file.file_path.rsplit("/", 1)[1]: task.file.record_count for task in files}

    def files(self, hours: Iterable[datetime]) -> dict[str, int]:
        """The files of raw/orderbook_deltas that the manifests of some hours name, with their rows."""
        found = (find_manifest(self.lake, partition_starting(DELTAS, hour)) for hour in hours)
        return {file.name: file.rows for each in found if each is not None for file in each[1].files}

    closed: set[datetime]


@pytest.fixture
def world(make_database: MakeDatabase, tmp_path: Path) -> Iterator[World]:
    made = World(make_database, tmp_path / "lake")
    made.closed = set()
    yield made
    made.gatherer.dispose()


def test_kills_leave_whole_partitions_and_a_rerun_completes_them(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    met: Counter[str] = Counter()
    lasts = {"export": 0.3, "close": 0.6, "registration": 0.5, "retention": 0.3}
    url = world.production.url
    catalog = IcebergSettings(catalog_uri=f"sqlite:///{tmp_path}/catalog.db")
    registered: list[datetime] = []

    def attempt(kind: str, function: Callable[..., None], *arguments: object) -> None:
        """Kill it somewhere on its way, look at what it left, and do it again to the end."""
        child = context.Process(target=function, args=arguments)
        child.start()
        child.join(chance.uniform(0.0, 1.1) * lasts[kind])
        child.kill()
        child.join(30)
        assert child.exitcode in (0, -signal.SIGKILL), child.exitcode
        met[f"{kind} {'ended before' if child.exitcode == 0 else 'killed'}"] += 1
        world.check()
        if kind == "registration":
            assert world.named(catalog) in (world.files(registered[:-1]), world.files(registered))
        began = time.monotonic()
        function(*arguments)
        lasts[kind] = time.monotonic() - began
        world.check()

    for number in range(KILLS):
        hour = HOUR - timedelta(days=KILLS - number)  # some tables have a partition for each day
        kind = CYCLE[number % len(CYCLE)]
        world.add(hour)
        if kind == "close":
            attempt(kind, close, world.merging, hour)
        else:
            close(world.merging, hour)
        world.closed.add(hour)
        assert world.held(world.production, "orderbook_deltas")[hour] == world.newest(hour, "orderbook_deltas")
        if kind == "export again":
            # Over a partition that readers have, after rows came late.
            export(world.lake, url, hour)
            world.closed.discard(hour)
            world.add(hour)
            close(world.merging, hour)
            world.closed.add(hour)
        if kind.startswith("export"):
            attempt("export", export, world.lake, url, hour)
            again = LakeSettings(root=(tmp_path / f"again-{number}").as_uri())
            export(again, url, hour)
            assert _bytes(tmp_path / f"again-{number}", hour) == _bytes(world.folder, hour)
        else:
            export(world.lake, url, hour)
        if kind == "registration":
            registered.append(hour)
            attempt(kind, register_day, world.lake, catalog, hour)
            assert world.named(catalog) == world.files(registered)
        if kind == "retention":
            merge_new(world.merging, SYSTEM_CLOCK)  # what production has not read does not go
            attempt(kind, retain, replace(world.settings, gatherer_days=7.0, production_days=30.0), hour)
            assert not world.held(world.gatherer.database, "orderbook_deltas")
            assert not world.held(world.production, "orderbook_deltas")
    with capsys.disabled():
        print(f"\n{KILLS} kills: {dict(sorted(met.items()))}")  # noqa: T201 - the figures are the result
    assert sum(count for name, count in met.items() if name.endswith("killed")) > KILLS // 3


def _bytes(folder: Path, hour: datetime) -> dict[str, bytes]:
    """The listed files of an hour, by place and name."""
    found = {}
    for table in RAW_TABLES:
        published = find_manifest(
            LakeSettings(root=folder.as_uri()), partition_starting(find_dataset(f"raw/{table}"), hour)
        )
        assert published is not None
        for file in published[1].files:
            found[f"{published[0]}/{file.name}"] = (folder / published[0] / file.name).read_bytes()
    return found
