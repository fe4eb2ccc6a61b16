"""What was recorded goes to production and, as open exports, to the lake, before an hour is closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from kalshi_platform.clock import Clock
from kalshi_platform.config import PlatformSettings
from kalshi_platform.deduplicator.catalog_merge import merge_catalog
from kalshi_platform.deduplicator.close_hour import close_hour
from kalshi_platform.deduplicator.merge import merge_new
from kalshi_platform.lake.export import export_raw
from kalshi_platform.lake.layout import RAW_TABLES
from kalshi_platform.market.times import hour_of
from kalshi_platform.storage.pool import Database


@dataclass
class Finished:
    """What was written. `production_rows` and `exported_rows` count rows per table over all `hours`."""

    production_rows: dict[str, int] = field(default_factory=dict)
    exported_rows: dict[str, int] = field(default_factory=dict)
    hours: list[datetime] = field(default_factory=list)


def merge_what_is_left(settings: PlatformSettings, clock: Clock) -> None:
    """Merge every batch that the gatherers have committed, and the catalogs."""
    while merge_new(settings.deduplicator, clock, settings.bounds).behind:
        pass
    merge_catalog(settings.deduplicator, clock)


def hours_merged_since(production: Database, moment: datetime, now: datetime) -> list[datetime]:
    """Hours, up to the running one, that got rows since `moment`; ascending.

    A row may be dated ahead of our clock; its hour is exported when it has begun.
    """
    with production.transaction() as transaction:
        rows = transaction.fetch_all(
            "SELECT DISTINCT hour FROM hour_activity WHERE last_merged_at >= %s AND hour <= %s ORDER BY hour",
            (moment, hour_of(now)),
        )
    return [row[0] for row in rows]


def export_open(
    settings: PlatformSettings,
    hours: Sequence[datetime],
    clock: Clock,
    say: Callable[[str], None],
    stop: threading.Event,
) -> Finished:
    """Merge each of `hours` again from all gatherers, make its anchors, and export it as `open`; ends early at `stop`.

    An hour that was already closed keeps its closed export.
    """
    finished = Finished()
    for number, hour in enumerate(hours, 1):
        if stop.is_set():
            break
        say(f"hour {hour:%Y-%m-%d %H:00} ({number} of {len(hours)}): merge, anchors, open export")
        closed = close_hour(settings.deduplicator, hour, clock, settings.bounds, final=False)
        _add(finished.production_rows, closed.rows)
        finished.hours.append(hour)
        for table in RAW_TABLES:
            if stop.is_set():
                break
            manifest = export_raw(settings.lake, settings.deduplicator.production_url, table, hour, state="open")
            _add(finished.exported_rows, {table: manifest.rows})
    return finished


def _add(total: dict[str, int], rows: Mapping[str, int]) -> None:
    for table, count in rows.items():
        total[table] = total.get(table, 0) + count
