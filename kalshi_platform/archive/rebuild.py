"""Decodes the frames of an hour again and compares the rows with a gatherer's tables; what is missing is written.

The way to gain a new column for the past, or to mend what a parser made of frames. Rows are compared by the key of
their table. Nothing is ever deleted, and no claim of the ledger is extended: rows that a claim excluded stay outside.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from kalshi_platform.archive.compare_rows import LETTERS, RebuiltTable, RowComparer
from kalshi_platform.archive.frame_sources import HourSources, fetch_hour
from kalshi_platform.clock import Clock
from kalshi_platform.gatherer.ingest.columns import TABLE_OF
from kalshi_platform.gatherer.ingest.dead_letter_limit import DeadLetterLimit
from kalshi_platform.gatherer.ingest.decoder import Decoder
from kalshi_platform.gatherer.ingest.exchange_times import ExchangeTimes
from kalshi_platform.gatherer.ingest.quarantine import split_out_of_range
from kalshi_platform.gatherer.journal.block_format import Block
from kalshi_platform.gatherer.journal.reader import JournalReader
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.lake.store import Lake, open_store
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.market.records import Record
from kalshi_platform.market.times import HOUR, datetime_from_us, us_from_datetime
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.progress import report_progress
from kalshi_platform.storage.migrate import check
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database

_log = event_logger(__name__)
# What one transaction compares and writes: the gatherer's commits wait while a part is written.
_ROWS_AT_ONCE = 50_000
# Connections write side by side, so that what one of them received a moment ago may come after another's.
_SETTLED = timedelta(seconds=2)
_MICROSECOND = timedelta(microseconds=1)


@dataclass
class Rebuilt:
    """Reports what became of an hour. `from_lake`, `from_journal`: segments by where they came from.

    `damages`: places of the segments that gave no block.
    """

    gatherer: str
    hour: datetime
    from_lake: int
    from_journal: int
    frames: int = 0
    last_received_ns: int = 0
    damages: int = 0
    tables: dict[str, RebuiltTable] = field(default_factory=dict)

    overwritten: bool = False

    @property
    def differs(self) -> bool:
        """Return whether something is left that the run may not change."""
        return any(map(self.is_differing, self.tables))

    def is_differing(self, table: str) -> bool:
        """Return whether rows of the table differ from what the frames give, and stay.

        A dead letter that no frame gives any more is no such row: its frame may give another one now.
        """
        counted = self.tables[table]
        return bool((counted.changed and not self.overwritten) or (counted.unexplained and table != LETTERS))


def rebuild_tables(
    lake: Lake | None,
    gatherer: GathererSettings,
    hour: datetime,
    bounds: PartitionBounds,
    clock: Clock,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Rebuilt:
    """Decode the frames that a gatherer received in the hour from `hour` on again, and bring its tables up to them.

    Missing rows and missing values are written; values that are there and differ only with `overwrite`. `dry_run`
    writes nothing. Raises LakeUnavailable, LakeArchived, LakeCorrupt, DatabaseUnavailable, SchemaMismatch.
    """
    database = Database(gatherer.timeseries_url, name=f"{gatherer.name} timeseries", pool_size=2)
    store = None if lake is None else open_store(lake)
    try:
        check(database, "timeseries")
        with _staging(store) as folder:
            sources = fetch_hour(store, gatherer, hour, folder)
            done = Rebuilt(gatherer.name, hour, sources.from_lake, sources.from_journal, overwritten=overwrite)
            keeper = PartitionKeeper(database, bounds, clock)
            comparer = RowComparer(database, keeper, overwrite=overwrite, dry_run=dry_run)
            done.tables = comparer.tables
            times = ExchangeTimes(bounds)
            for records in _date(_decode_hour(gatherer, sources, done, times), gatherer, times, keeper):
                comparer.compare(records)
                report_progress("frames decoded", done.frames)
            comparer.count_unexplained(hour, _compared_until(done, clock.now()))
    finally:
        database.dispose()
    _log.info("hour_rebuilt", gatherer=gatherer.name, hour=hour.isoformat(), frames=done.frames, differs=done.differs)
    return done


def _decode_hour(
    gatherer: GathererSettings, sources: HourSources, done: Rebuilt, times: ExchangeTimes
) -> Iterator[list[Record]]:
    """Yield the rows of the frames received in the hour, in the order of recording, some at a time.

    `times` receives those of the frames just before.
    """
    low_ns = us_from_datetime(done.hour) * 1_000
    high_ns = low_ns + (HOUR // _MICROSECOND) * 1_000
    rows: list[Record] = []
    for paths in sources.journals:
        decoder = Decoder(gatherer.market_filter.shard, gatherer.dead_letters_per_minute)
        with closing(JournalReader(paths)) as reader:
            while (item := reader.next()) is not None:
                decoded = decoder.decode(item)
                made: list[Any] = [record for record in decoded.records if type(record) in TABLE_OF]
                times.observe(record for record in made if record.received_at_ns < low_ns)
                rows += [record for record in made if low_ns <= record.received_at_ns < high_ns]
                if isinstance(item, Block):
                    received = [each for each in item.batch.received_at_ns if low_ns <= each < high_ns]
                    done.frames += len(received)
                    done.last_received_ns = max((done.last_received_ns, *received[-1:]))
                else:
                    done.damages += not item.is_torn
                if len(rows) >= _ROWS_AT_ONCE:
                    yield rows
                    rows = []
    if rows:
        yield rows


def _compared_until(done: Rebuilt, now: datetime) -> datetime:
    """Return the end of the time that is compared: of the running hour, what was recorded before this began."""
    end = done.hour + HOUR
    if now >= end + _SETTLED or not done.frames:
        return end
    return max(done.hour, min(end, datetime_from_us(done.last_received_ns // 1_000) - _SETTLED))


def _date(
    parts: Iterable[list[Record]], gatherer: GathererSettings, times: ExchangeTimes, keeper: PartitionKeeper
) -> Iterator[list[Record]]:
    """Yield rows, those with impossible times as the dead letters that the gatherer made of them."""
    low_us, high_us = keeper.bounds_us()
    letters = DeadLetterLimit(0, gatherer.dead_letters_per_minute)
    for records in parts:
        yield split_out_of_range(
            records, lambda row: low_us <= row.exchange_ts_us < high_us and times.accepts(row), letters
        )[0]


@contextmanager
def _staging(store: ObjectStore | None) -> Iterator[Path]:
    """Give a folder for segments: beside the lake where that is a folder, so that they are links."""
    if store is not None:
        with store.staging() as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="kalshi-rebuild-") as name:
            yield Path(name)
