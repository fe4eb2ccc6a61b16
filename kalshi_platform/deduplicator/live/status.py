"""Defines the status of the live merge, judges from it whether it merges, and makes Prometheus metrics of it. Pure.

Its JSON is the `details` of the heartbeat in production. Unknown fields of another version are ignored, missing ones
have their default. Counters count since the process started.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec
from msgspec import Struct

from kalshi_platform.monitoring.metrics import Labels, MetricFamily, by_label, counter, counters, gauge, gauges

SERVICE = "deduplicator"
_P = "kalshi_deduplicator_"
# A pass takes seconds: a cursor that stands for so long while there is more does not move at all.
_STANDING_S = 60.0
_DEAD_LETTERS_PER_MINUTE = 5


class TableCounts(Struct, kw_only=True):
    """Rows of one table: read from gatherers, and new in production."""

    read: int = 0
    inserted: int = 0


class LastPass(Struct, kw_only=True):
    """The last pass over all gatherers; `at` is its end."""

    at: datetime
    seconds: float
    rows_read: int = 0
    rows_inserted: int = 0
    rows_read_per_s: int = 0


class SourceStatus(Struct, kw_only=True):
    """One gatherer as of the last pass; `lag_ms` from its newest commit to the end of its merge."""

    batch_no: int | None = None
    rows: int = 0
    behind: bool = False
    standing_s: float | None = None
    """How long its cursor has stood although there was more; None while it moves."""
    error: str | None = None
    lag_ms: int | None = None


class CatalogMergeStatus(Struct, kw_only=True):
    """The last merge of catalogs; `error` of the last attempt, if it failed."""

    at: datetime | None = None
    rows_changed: int | None = None
    missed: list[str] = []
    error: str | None = None
    error_at: datetime | None = None


class DeduplicatorStatus(Struct, kw_only=True):
    """The live merge as of one moment; fields after `problems` are of the last pass."""

    state: str = ""
    passes: int = 0
    tables: dict[str, TableCounts] = {}
    since: datetime | None = None
    error: str | None = None
    catalog: CatalogMergeStatus | None = None
    alerts_waiting: int = 0
    problems: list[str] = []
    """What is wrong with the delivery of alerts, a clause each."""
    last_pass: LastPass | None = None
    behind: bool = False
    missed: list[str] = []
    """Gatherers that were not read."""
    put_aside: int = 0
    alarms: list[str] = []
    dead_letters_last_minute: int = 0
    gatherers: dict[str, SourceStatus] = {}
    health: str = ""
    """`ok`, `degraded` or `not merging`; empty where it is not reported."""
    reasons: list[str] = []
    """Why it does not merge, a clause each."""
    troubles: list[str] = []
    """What else has to be looked at, a clause each."""


def with_health(status: DeduplicatorStatus) -> DeduplicatorStatus:
    """Return the status with `health`, `reasons` and `troubles`."""
    reasons, troubles = _reasons(status), _troubles(status)
    health = "not merging" if reasons else "degraded" if troubles else "ok"
    return msgspec.structs.replace(status, health=health, reasons=reasons, troubles=troubles)


def merge_metrics(status: DeduplicatorStatus) -> Iterator[MetricFamily]:
    """Return what a scrape of Prometheus gets; every name carries its unit."""
    yield gauges(f"{_P}state", "1 for the state it is in.", ["state"], {(status.state,): 1})
    yield counter(f"{_P}passes", "Passes over all gatherers.", status.passes)
    yield gauge(f"{_P}alerts_waiting", "Alerts that wait to be delivered.", status.alerts_waiting)
    read: Labels = {(table,): each.read for table, each in status.tables.items()}
    inserted: Labels = {(table,): each.inserted for table, each in status.tables.items()}
    yield counters(f"{_P}rows_read", "Rows read from gatherers, by table.", ["table"], read)
    yield counters(f"{_P}rows_inserted", "New rows in production.", ["table"], inserted)
    if status.last_pass is None:
        return
    yield gauge(f"{_P}last_pass_duration_seconds", "Of the last pass.", status.last_pass.seconds)
    yield gauge(f"{_P}behind", "1 while more waits to be merged.", float(status.behind))
    away = {name: float(each.error is not None) for name, each in status.gatherers.items()}
    yield gauges(f"{_P}gatherer_away", "1 while a gatherer's database was not read.", ["gatherer"], by_label(away))
    lags: Labels = {
        (name,): None if each.lag_ms is None else each.lag_ms / 1e3 for name, each in status.gatherers.items()
    }
    yield gauges(
        f"{_P}commit_to_merge_seconds", "Newest commit of a gatherer to the end of its merge.", ["gatherer"], lags
    )


def _reasons(status: DeduplicatorStatus) -> list[str]:
    if status.state not in ("running", "waiting"):
        return [f"{status.state}: {status.error}" if status.error else status.state]
    if status.gatherers and len(status.missed) == len(status.gatherers):
        return [f"no gatherer is read: {', '.join(status.missed)}"]
    return []


def _troubles(status: DeduplicatorStatus) -> list[str]:
    found = []
    for name in status.missed:
        error = status.gatherers[name].error if name in status.gatherers else None
        found.append(f"gatherer {name} is not read" + (f": {error}" if error else ""))
    for name, source in status.gatherers.items():
        if source.standing_s is not None and source.standing_s > _STANDING_S:
            found.append(
                f"gatherer {name}: its cursor has stood for {source.standing_s:.0f} s although there is more to read"
            )
    letters = status.dead_letters_last_minute
    if letters > _DEAD_LETTERS_PER_MINUTE:
        found.append(f"{letters:,} rows of the last minute were put aside: see dead_letters of production")
    found += status.problems
    found += status.alarms
    if status.catalog is not None and status.catalog.error:
        found.append(f"the catalogs are not merged: {status.catalog.error}")
    return found
