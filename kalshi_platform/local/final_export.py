"""What was recorded goes to production and, as open exports, to the lake, before an hour is closed.

What could not be done is said, each in a sentence, and does not keep the rest from being done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from kalshi_platform.clock import Clock
from kalshi_platform.config import PlatformSettings
from kalshi_platform.deduplicator.catalog.merge_catalog import merge_catalog
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.errors import KalshiPlatformError, TransientError
from kalshi_platform.lake.export import export_raw
from kalshi_platform.lake.layout import RAW_TABLES
from kalshi_platform.market.times import hour_of
from kalshi_platform.storage.pool import Database

PATIENCE_S = 60.0
"""A database that has just died is started again within this time."""
RETRY_S = 1.0


@dataclass
class FinalExport:
    """What was written. `production_rows` and `exported_rows` count rows per table over all `hours`."""

    production_rows: dict[str, int] = field(default_factory=dict)
    exported_rows: dict[str, int] = field(default_factory=dict)
    hours: list[datetime] = field(default_factory=list)
    remains: list[str] = field(default_factory=list)
    """What could not be done."""


def merge_what_is_left(settings: PlatformSettings, clock: Clock) -> list[str]:
    """Merge every batch that the gatherers have committed, and the catalogs; return what could not be merged.

    A database that is away is asked again for `PATIENCE_S`.
    """
    deadline = clock.monotonic() + PATIENCE_S
    while True:
        try:
            remains = _merged(settings, clock)
        except TransientError as error:
            remains = [f"production was not brought up to date: {error}; the next start goes on where it stands"]
        if not remains or clock.monotonic() >= deadline:
            return remains
        clock.wait(threading.Event(), RETRY_S)


def _merged(settings: PlatformSettings, clock: Clock) -> list[str]:
    while (report := merge_new(settings.deduplicator, clock, settings.bounds)).behind:
        pass
    catalog = merge_catalog(settings.deduplicator, clock)
    errors = {source.name: source.error for source in report.sources if source.error is not None}
    return [
        f"gatherer {name} could not be read ({errors.get(name) or 'its catalog is away'}): what it recorded is not in"
        " production yet; the next start goes on where it stands"
        for name in dict.fromkeys((*report.missed, *catalog.missed))
    ]


def hours_merged_since(production: Database, moment: datetime | None, now: datetime) -> list[datetime]:
    """Hours, up to the running one, that got rows since `moment` (None: ever) by production's clock; ascending.

    A row may be dated ahead of our clock; its hour is exported when it has begun.
    """
    with production.transaction() as transaction:
        rows = transaction.fetch_all(
            "SELECT DISTINCT hour FROM hour_activity"
            " WHERE last_merged_at >= coalesce(%s::timestamptz, '-infinity') AND hour <= %s ORDER BY hour",
            (moment, hour_of(now)),
        )
    return [row[0] for row in rows]


def export_open(
    settings: PlatformSettings,
    hours: Sequence[datetime],
    clock: Clock,
    say: Callable[[str], None],
    stop: threading.Event,
) -> FinalExport:
    """Merge each of `hours` again from all gatherers, make its anchors, and export it as `open`; ends early at `stop`.

    An hour that was already closed keeps its closed export.
    """
    finished = FinalExport()
    for number, hour in enumerate(hours, 1):
        if stop.is_set():
            break
        say(f"hour {hour:%Y-%m-%d %H:00} ({number} of {len(hours)}): merge, anchors, open export")
        try:
            closed = close_hour(settings.deduplicator, hour, clock, settings.bounds, final=False)
            _add(finished.production_rows, closed.rows)
            finished.hours.append(hour)
            for table in RAW_TABLES:
                if stop.is_set():
                    break
                manifest = export_raw(settings.lake, settings.deduplicator.production_url, table, hour, state="open")
                _add(finished.exported_rows, {table: manifest.rows})
        except KalshiPlatformError as error:
            finished.remains.append(f"hour {hour:%Y-%m-%d %H:00} was not exported whole: {error}")
            continue
        if closed.gatherers_missed:
            missed = ", ".join(closed.gatherers_missed)
            finished.remains.append(f"hour {hour:%Y-%m-%d %H:00} was exported without what {missed} recorded of it")
    return finished


def _add(total: dict[str, int], rows: Mapping[str, int]) -> None:
    for table, count in rows.items():
        total[table] = total.get(table, 0) + count
