"""Metrics as plain values, for services that need not know how they are exposed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge"]


@dataclass(frozen=True)
class Sample:
    """One value with its labels; a value of None is left out."""

    value: float | None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """One name with its samples, all of which have the same labels. The name carries the unit, counters no `_total`."""

    name: str
    help: str
    kind: Kind
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Histogram:
    """How many observations were at most so large: (upper bound, count of all up to it), then their number and sum."""

    name: str
    help: str
    buckets: Sequence[tuple[float, int]]
    count: int
    total: float


def gauge(name: str, text: str, value: float | None) -> Metric:
    """A gauge without labels."""
    return Metric(name, text, "gauge", [Sample(value)])


def counter(name: str, text: str, value: float | None) -> Metric:
    """A counter without labels."""
    return Metric(name, text, "counter", [Sample(value)])


def by_label(kind: Kind, name: str, text: str, label: str, values: Mapping[str, float | None]) -> Metric:
    """One sample for each value of one label."""
    return Metric(name, text, kind, [Sample(value, {label: key}) for key, value in values.items()])
