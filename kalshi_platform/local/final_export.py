"""Merges what was recorded into production and exports it to the lake as open, before an hour is closed.

What could not be done is returned, a sentence each, and does not keep the rest from being done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from kalshi_platform.clock import Clock
from kalshi_platform.config import PlatformSettings
from kalshi_platform.deduplicator.catalog.merge_catalog import merge_catalog
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.errors import KalshiPlatformError, TransientError
from kalshi_platform.lake.datasets import RAW_TABLES
from kalshi_platform.lake.export import export_raw
from kalshi_platform.market.times import hour_of
from kalshi_platform.storage import queries
from kalshi_platform.storage.pool import Database

_SQL = queries.load(Path(__file__).with_name("queries.sql"))
RETRY_FOR_S = 60.0
"""A database that has just died is started again within this time."""
RETRY_S = 1.0


@dataclass
class FinalExport:
    """What was written. `production_rows` and `exported_rows` count rows per table over all `hours`."""

    production_rows: dict[str, int] = field(default_factory=dict)
    exported_rows: dict[str, int] = field(default_factory=dict)
    hours: list[datetime] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    """What could not be done."""


def merge_remaining(settings: PlatformSettings, clock: Clock) -> list[str]:
    """Merge every batch that the gatherers have committed, and the catalogs; return what could not be merged.

    A database that is away is tried again for `RETRY_FOR_S`.
    """
    deadline = clock.monotonic() + RETRY_FOR_S
    while True:
        try:
            unfinished = _merge_all(settings, clock)
        except TransientError as error:
            unfinished = [f"production was not brought up to date: {error}; the next start goes on where it stands"]
        if not unfinished or clock.monotonic() >= deadline:
            return unfinished
        clock.wait(threading.Event(), RETRY_S)


def _merge_all(settings: PlatformSettings, clock: Clock) -> list[str]:
    while (report := merge_new(settings.deduplicator, clock, settings.bounds)).behind:
        pass
    catalog = merge_catalog(settings.deduplicator, clock)
    errors = {source.name: source.error for source in report.sources if source.error is not None}
    return [
        f"gatherer {name} could not be read ({errors.get(name) or 'its catalog is away'}): what it recorded is not in"
        " production yet; the next start goes on where it stands"
        for name in dict.fromkeys((*report.missed, *catalog.missed))
    ]


def find_hours_merged_since(production: Database, moment: datetime | None, now: datetime) -> list[datetime]:
    """Return the hours, up to the running one, that got rows since `moment` (None: ever), ascending.

    `moment` is of production's clock. A row may be dated ahead of ours; its hour is exported when it has begun.
    """
    with production.transaction() as transaction:
        return [
            hour
            for (hour,) in transaction.fetch_all(_SQL["hours_merged_since"], {"since": moment, "until": hour_of(now)})
        ]


def export_open(
    settings: PlatformSettings,
    hours: Sequence[datetime],
    clock: Clock,
    say: Callable[[str], None],
    stop: threading.Event,
) -> FinalExport:
    """Merge each of `hours` again from all gatherers, make its checkpoints, and export it as `open`.

    Ends early at `stop`. An hour that was already closed keeps its closed export.
    """
    export = FinalExport()
    for number, hour in enumerate(hours, 1):
        if stop.is_set():
            break
        say(f"hour {hour:%Y-%m-%d %H:00} ({number} of {len(hours)}): merge, checkpoints, open export")
        try:
            closed = close_hour(settings.deduplicator, hour, clock, settings.bounds, final=False)
            _add(export.production_rows, closed.rows)
            export.hours.append(hour)
            for table in RAW_TABLES:
                if stop.is_set():
                    break
                manifest = export_raw(settings.lake, settings.deduplicator.production_url, table, hour, state="open")
                _add(export.exported_rows, {table: manifest.rows})
        except KalshiPlatformError as error:
            export.unfinished.append(f"hour {hour:%Y-%m-%d %H:00} was not exported whole: {error}")
            continue
        if closed.gatherers_missed:
            missed = ", ".join(closed.gatherers_missed)
            export.unfinished.append(f"hour {hour:%Y-%m-%d %H:00} was exported without what {missed} recorded of it")
    return export


def _add(total: dict[str, int], rows: Mapping[str, int]) -> None:
    for table, count in rows.items():
        total[table] = total.get(table, 0) + count
