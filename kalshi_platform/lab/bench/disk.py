"""`bench disk`: what a million order-book deltas take in a gatherer's database, in production and in the lake.

The same generated hour as that of `bench export`, filled in as the services commit it, with the shipped tables and
indexes. With the URLs of two empty databases on a server with TimescaleDB, the same there, also compressed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalshi_platform.clock import Clock
from kalshi_platform.lab.bench.export.export_data import TABLE, ExportData
from kalshi_platform.lab.bench.result import machine, table
from kalshi_platform.lab.bench.stack import BenchStack
from kalshi_platform.lake.export import export_raw
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.market.tables import GATHERER_TABLES, PRODUCTION_TABLES
from kalshi_platform.market.times import hour_of, us_from_datetime
from kalshi_platform.storage import queries
from kalshi_platform.storage.arrow import arrow_schema
from kalshi_platform.storage.migrate import migrate
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("disk.sql"))
_MILLION = 1_000_000
# As TimescaleDB's policy does it later; without the extension the statement has no plan.
_COMPRESS = "SELECT compress_chunk(c) FROM show_chunks(%s::regclass) c"
ROWS_PER_COMMIT = 400
"""Of a gatherer: about five commits a second at 2,000 messages a second."""


@dataclass(frozen=True, kw_only=True)
class DiskBench:
    """`rows`: deltas of the hour, about. `timeseries_url`, `production_url`: empty databases with TimescaleDB."""

    folder: Path
    rows: int = 1_000_000
    markets: int = 2_000
    timeseries_url: str = ""
    production_url: str = ""


def bench_disk(options: DiskBench, say: Callable[[str], None], clock: Clock) -> dict[str, Any]:
    """Measure; return the findings: bytes a million deltas by place, and what was lost (empty)."""
    hour = hour_of(clock.now()) - timedelta(hours=2)
    data = ExportData(options.rows, hour, options.markets)
    found: dict[str, int] = {}
    with BenchStack(options.folder, clock) as stack:
        urls = {"native": (stack.database("g", "timeseries"), stack.database("p", "production"))}
        if options.timeseries_url and options.production_url:
            urls["timescale"] = (options.timeseries_url, options.production_url)
        for mode, (timeseries_url, production_url) in urls.items():
            for who, url in (("gatherer", timeseries_url), ("production", production_url)):
                database = Database(url, name=who)
                try:
                    migrate(database, "timeseries" if who == "gatherer" else "production")
                    rows = (_fill_gatherer if who == "gatherer" else _fill_production)(database, data, clock)
                    say(f"{mode}, {who}: {rows:,} deltas")
                    found |= _measure(database, f"{who}, {mode}", rows)
                finally:
                    database.dispose()
        lake = LakeSettings((options.folder / "lake").as_uri())
        manifest = export_raw(lake, urls["native"][1], TABLE, hour, "closed")
        found["lake, raw/orderbook_deltas"] = manifest.bytes * _MILLION // manifest.rows
    return {
        "benchmark": "disk",
        "bytes_per_million": found,
        "lost": [],
        "rows": options.rows,
        "markets": options.markets,
        "machine": machine(),
    }


def shown(findings: Mapping[str, Any]) -> str:
    """The findings as a table for people."""
    rows = [(place, count, round(count / _MILLION, 1)) for place, count in dict(findings["bytes_per_million"]).items()]
    return table(("place", "bytes a million", "bytes a delta"), rows)


def _fill_gatherer(database: Database, data: ExportData, clock: Clock) -> int:
    """Put the hour into a gatherer's database, commit by commit with its ledger; return how many rows it has."""
    stream, sql = GATHERER_TABLES[TABLE], queries.load("gatherer")
    PartitionKeeper(database, PartitionBounds(), clock).ensure_hours(TABLE, [us_from_datetime(data.hour)])
    filled = 0
    for rows in _commits(data):
        with database.transaction() as transaction:
            number = int((transaction.fetch_one(sql["next_batch"]) or (0,))[0])
            columns = {name: rows.column(name) for name in stream.names if name != "batch_no"}
            # Every row is numbered by one stream, as one gatherer has them.
            columns |= {
                "stream_id": pa.array(np.full(rows.num_rows, 1)),
                "seq": pa.array(np.arange(filled, filled + rows.num_rows)),
                "batch_no": pa.array(np.full(rows.num_rows, number)),
            }
            numbered = pa.table([columns[name] for name in stream.names], names=list(stream.names))
            added = transaction.insert_new(stream, numbered.cast(arrow_schema(stream)), likely_new=True)
            times = rows.column("exchange_ts")
            edges = tuple(pc.min_max(times).as_py().values())
            transaction.execute_values(sql["batches"], [(number, TABLE, added, *edges, rows.nbytes)])
            transaction.execute_values(_SQL["insert_segments"], [(1, filled, filled + added - 1, *edges, number)])
            filled += added
    return filled


def _commits(data: ExportData) -> Iterator[pa.Table]:
    for batch in data.batches(20 * ROWS_PER_COMMIT):
        for low in range(0, batch.num_rows, ROWS_PER_COMMIT):
            yield batch.slice(low, ROWS_PER_COMMIT)


def _fill_production(database: Database, data: ExportData, clock: Clock) -> int:
    PartitionKeeper(database, PartitionBounds(), clock).ensure_hours(TABLE, [us_from_datetime(data.hour)])
    filled = 0
    for batch in data.batches():
        with database.transaction() as transaction:
            filled += transaction.insert_new(PRODUCTION_TABLES[TABLE], batch, likely_new=True)
    with database.transaction() as transaction:
        transaction.execute(_SQL["close_hour"], {"hour": data.hour})
    return filled


def _measure(database: Database, place: str, rows: int) -> dict[str, int]:
    found: dict[str, int] = {}
    with database.transaction() as transaction:
        mode = (transaction.fetch_one(_SQL["read_mode"]) or ("",))[0]
        found[place] = _size(transaction.fetch_one(_SQL["size_of_table"], (TABLE,)), rows)
        if place.startswith("gatherer"):
            found[f"{place}: ledger"] = _size(transaction.fetch_one(_SQL["size_of_ledger"]), rows)
    if mode == "timescale":
        with database.transaction() as transaction:
            transaction.execute(_COMPRESS, (TABLE,))
        with database.transaction() as transaction:
            found[f"{place}, compressed"] = _size(transaction.fetch_one(_SQL["size_of_table"], (TABLE,)), rows)
    return found


def _size(row: tuple[Any, ...] | None, rows: int) -> int:
    return int((row or (0,))[0]) * _MILLION // max(1, rows)
