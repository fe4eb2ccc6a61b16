"""Makes Prometheus metrics of the status of the live merge. Pure; every name carries its unit."""

from __future__ import annotations

from collections.abc import Iterator

from kalshi_platform.deduplicator.live.status import DeduplicatorStatus
from kalshi_platform.monitoring.metrics import Labels, MetricFamily, by_label, counter, counters, gauge, gauges

_P = "kalshi_deduplicator_"


def merge_metrics(status: DeduplicatorStatus) -> Iterator[MetricFamily]:
    """Return what a scrape gets."""
    yield gauges(f"{_P}state", "1 for the state it is in.", ["state"], {(status.state,): 1})
    yield counter(f"{_P}passes", "Passes over all gatherers.", status.passes)
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
