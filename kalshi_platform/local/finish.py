"""The end of a headless run: everything that was recorded goes to production and, as open exports, to the lake."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kalshi_platform.clock import Clock
from kalshi_platform.config import PlatformSettings
from kalshi_platform.deduplicator.catalog_merge import merge_catalog
from kalshi_platform.deduplicator.close_hour import close_hour
from kalshi_platform.deduplicator.hours import active_hours
from kalshi_platform.lake.export import export_raw
from kalshi_platform.lake.layout import RAW_TABLES
from kalshi_platform.storage.pool import Database

_log = logging.getLogger(__name__)


@dataclass
class Finished:
    """What the end of a run wrote. `production_rows` and `exported_rows` count rows per table."""

    production_rows: dict[str, int] = field(default_factory=dict)
    exported_rows: dict[str, int] = field(default_factory=dict)
    hours: list[datetime] = field(default_factory=list)


def export_open(settings: PlatformSettings, clock: Clock, say: Callable[[str], None]) -> Finished:
    """Merge every active hour from all gatherers, make its anchors, and export it as `open`.

    An hour that was already closed keeps its closed export.
    """
    merge_catalog(settings.deduplicator, clock)
    production = Database(settings.deduplicator.production_url, name="production")
    try:
        finished = Finished(hours=active_hours(production))
        for number, hour in enumerate(finished.hours, 1):
            say(f"hour {hour:%Y-%m-%d %H:00} ({number} of {len(finished.hours)}): merge, anchors, open export")
            closed = close_hour(settings.deduplicator, hour, clock, settings.bounds, final=False)
            _add(finished.production_rows, closed.rows)
            for table in RAW_TABLES:
                manifest = export_raw(settings.lake, settings.deduplicator.production_url, table, hour, state="open")
                _add(finished.exported_rows, {table: manifest.rows})
        return finished
    finally:
        production.dispose()


def _add(total: dict[str, int], rows: Mapping[str, int]) -> None:
    for table, count in rows.items():
        total[table] = total.get(table, 0) + count
