"""Builds Prometheus metric families from the values of a status, and counts with Prometheus's own objects.

The rooms' way to `prometheus_client`: they keep their counts in their status, and a scrape makes families of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec
from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

LATENCY_BOUNDS_S: Sequence[float] = (0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0)
_LATEST = 600

MetricFamily: TypeAlias = Metric
"""A metric with its samples."""

Labels: TypeAlias = Mapping[tuple[str, ...], float | None]
"""A value by the values of its labels."""


class LatencyBuckets(msgspec.Struct, kw_only=True):
    """A histogram as JSON: `up_to_s` pairs an upper bound with the number of observations up to it; `count` has all."""

    up_to_s: list[tuple[float, int]] = []
    count: int = 0
    total_s: float = 0.0


class LatencyHistogram:
    """Latencies since the start by bucket, and the latest ones for quantiles. One thread observes, others read."""

    def __init__(self, bounds_s: Sequence[float] = LATENCY_BOUNDS_S, latest: int = _LATEST) -> None:
        self._histogram = Histogram("latency_seconds", "Latencies.", registry=None, buckets=bounds_s)
        self._latest_ms: deque[float] = deque(maxlen=latest)

    def observe(self, latency_s: float) -> None:
        """Count one latency."""
        self._histogram.observe(latency_s)
        self._latest_ms.append(latency_s * 1e3)

    def buckets(self) -> LatencyBuckets:
        """Return all since the start."""
        samples = [sample for family in self._histogram.collect() for sample in family.samples]
        values = {sample.name.removeprefix("latency_seconds_"): sample.value for sample in samples if not sample.labels}
        return LatencyBuckets(
            up_to_s=[
                (float(sample.labels["le"]), int(sample.value))
                for sample in samples
                if sample.labels.get("le", "+Inf") != "+Inf"
            ],
            count=int(values["count"]),
            total_s=round(values["sum"], 3),
        )

    def quantiles_ms(self, *shares: float) -> list[float | None]:
        """For each share the latency below which that share of the latest ones lies; None before the first one."""
        ordered = sorted(self._latest_ms)
        if not ordered:
            return [None] * len(shares)
        return [round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) for share in shares]


class LabeledCounter:
    """Counts by the value of one label. Thread-safe."""

    def __init__(self) -> None:
        self._counter = Counter("count", "Counts.", ["value"], registry=None)

    def count(self, value: str) -> None:
        """Add one."""
        self._counter.labels(value).inc()

    def values(self) -> dict[str, int]:
        """Return the counts so far."""
        samples = (sample for family in self._counter.collect() for sample in family.samples)
        return {each.labels["value"]: int(each.value) for each in samples if each.name == "count_total"}


def gauge(name: str, text: str, value: float | None) -> MetricFamily:
    """Return a gauge; without a sample where the value is None. The name carries the unit."""
    return gauges(name, text, (), {(): value})


def counter(name: str, text: str, value: float | None) -> MetricFamily:
    """Return a counter; the exposition adds `_total` to its name."""
    return counters(name, text, (), {(): value})


def gauges(name: str, text: str, labels: Sequence[str], values: Labels) -> MetricFamily:
    """Return a gauge with a sample for each combination of label values; those that are None are left out."""
    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def counters(name: str, text: str, labels: Sequence[str], values: Labels) -> MetricFamily:
    """Return a counter with a sample for each combination of label values; those that are None are left out."""
    return _filled(CounterMetricFamily(name, text, labels=labels), values)


def by_label(values: Mapping[str, float | None]) -> Labels:
    """Return values of one label as `gauges` and `counters` take them."""
    return {(key,): value for key, value in values.items()}


def histogram(name: str, text: str, found: LatencyBuckets) -> MetricFamily:
    """Return a histogram of seconds."""
    buckets = [*((f"{bound:g}", float(count)) for bound, count in found.up_to_s), ("+Inf", float(found.count))]
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=found.total_s)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Labels) -> MetricFamily:
    for key, value in values.items():
        if value is not None:
            family.add_metric(key, float(value))
    return family
