"""The status of the live merge → metrics and health. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kalshi_platform.monitoring.metrics import Metric, by_label, counter, gauge

_P = "kalshi_deduplicator_"


def live_metrics(state: str, details: Mapping[str, Any]) -> Iterator[Metric]:
    """What Prometheus is told of the live merge in this state."""
    yield by_label("gauge", f"{_P}state", "1 for the state it is in.", "state", {state: 1})
    yield counter(f"{_P}passes", "Passes over all gatherers.", details["passes"])
    for what, text in (("read", "Rows read from gatherers, by table."), ("inserted", "New rows in production.")):
        counts = {table: each[what] for table, each in details["tables"].items()}
        yield by_label("counter", f"{_P}rows_{what}", text, "table", counts)
    last = details.get("last_pass")
    if last is None:
        return
    yield gauge(f"{_P}last_pass_duration_seconds", "Of the last pass.", last["seconds"])
    yield gauge(f"{_P}behind", "1 while more waits to be merged.", float(details["behind"]))
    sources = details["gatherers"]
    away = {name: float(each["error"] is not None) for name, each in sources.items()}
    yield by_label("gauge", f"{_P}gatherer_away", "1 while a gatherer's database was not read.", "gatherer", away)
    lags = {name: None if each["lag_ms"] is None else each["lag_ms"] / 1e3 for name, each in sources.items()}
    yield by_label(
        "gauge",
        f"{_P}commit_to_merge_seconds",
        "Newest commit of a gatherer to the end of its merge.",
        "gatherer",
        lags,
    )


def live_health(state: str, details: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Whether it merges (or waits for its turn to), and which gatherers it could not read."""
    missed = list(details.get("missed") or ())
    error = details.get("error")
    is_well = state in ("running", "waiting")
    told = {
        "service": "deduplicator",
        "state": state,
        "health": "not merging" if not is_well else "degraded" if missed else "ok",
        "reasons": [] if is_well else [f"{state}: {error}" if error else state],
        "troubles": [f"gatherer {name} is not read" for name in missed],
    }
    return is_well, told
