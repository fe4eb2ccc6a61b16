"""Merges what is left, closes every hour of a recording with its trades reconciled, and exports the lake."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from kalshi_platform import config
from kalshi_platform.clock import Clock
from kalshi_platform.config import PlatformSettings
from kalshi_platform.deduplicator.catalog.merge_catalog import merge_catalog
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.close.close_record import HourClose
from kalshi_platform.deduplicator.close.hours import find_hours_to_close
from kalshi_platform.deduplicator.merge.merge_pass import Merger
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.lab.proof.errors import ProofFailed
from kalshi_platform.lake.datasets import DAILY_DATASETS, RAW_TABLES
from kalshi_platform.lake.export import export_daily, export_raw
from kalshi_platform.market.times import HOUR, hour_of
from kalshi_platform.storage.pool import Database

MOST_ROUNDS = 5
AT_ONCE = 2
"""Exports of hours are independent of each other."""


def hours_between(begin: datetime, end: datetime) -> list[datetime]:
    """Return the whole hours that end by `end`, from that of `begin` on."""
    hours, hour = [], hour_of(begin)
    while hour + HOUR <= end:
        hours.append(hour)
        hour += HOUR
    return hours


def merge_rest(settings: PlatformSettings, clock: Clock) -> None:
    """Merge everything that gatherers hold and production does not, and their catalogs."""
    merger = Merger(settings.deduplicator, clock, settings.bounds)
    try:
        while merger.merge_new().behind:
            pass
    finally:
        merger.dispose()
    merge_catalog(settings.deduplicator, clock)


def close_hours(
    settings: PlatformSettings, environ: Mapping[str, str], hours: Sequence[datetime], clock: Clock
) -> dict[datetime, HourClose]:
    """Close hours one after the other, their trades compared with the exchange's listing, until all are.

    An hour is verified from the books at the end of the one before, whose close reopens it where these change: so in
    their order. Raises ProofFailed when there is no end to it.
    """
    public = config.load_public_reads(environ)

    def close(hour: datetime) -> HourClose:
        rest = RestClient(public, clock, threading.Event())
        return close_hour(settings.deduplicator, hour, clock, settings.bounds, rest=rest)

    closed: dict[datetime, HourClose] = {}
    production = Database(settings.deduplicator.production_url, name="production")
    try:
        wanted = sorted(hours)
        for _ in range(MOST_ROUNDS):
            for hour in wanted:
                closed[hour] = close(hour)
            wanted = [hour for hour in find_hours_to_close(production, clock.now()) if hour in closed]
            if not wanted:
                return closed
    finally:
        production.dispose()
    raise ProofFailed(f"hours are to be closed again and again: {', '.join(map(str, wanted))}")


def export_hours(settings: PlatformSettings, hours: Sequence[datetime], clock: Clock) -> int:
    """Export every raw table of closed hours; return the rows."""
    url = settings.deduplicator.production_url

    def export(hour: datetime) -> int:
        return sum(
            export_raw(settings.lake, url, table, hour, state="closed", clock=clock).rows for table in RAW_TABLES
        )

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sum(pool.map(export, hours))


def export_day(settings: PlatformSettings, day: datetime, clock: Clock, say: Callable[[str], None]) -> None:
    """Export every daily data set of a day, of which all hours are closed."""
    url = settings.deduplicator.production_url
    for dataset in DAILY_DATASETS:
        began = clock.monotonic()
        manifest = export_daily(settings.lake, url, dataset, day.date(), state="closed", clock=clock)
        say(f"{dataset}: {manifest.rows:,} rows, {manifest.bytes:,} bytes, {clock.monotonic() - began:.1f} s")
