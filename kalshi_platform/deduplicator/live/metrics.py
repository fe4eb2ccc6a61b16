"""The status of the live merge → metrics and health. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kalshi_platform.monitoring.metrics import Metric, by_label, counter, gauge

_P = "kalshi_deduplicator_"
# A pass takes seconds: a cursor that stands for so long while there is more does not move at all.
_STANDING_S = 60.0
_DEAD_LETTERS_PER_MINUTE = 5


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
    """Whether it merges (or waits for its turn to), and what it does not get from where."""
    reasons, troubles = _reasons(state, details), _troubles(details)
    told = {
        "service": "deduplicator",
        "state": state,
        "health": "not merging" if reasons else "degraded" if troubles else "ok",
        "reasons": reasons,
        "troubles": troubles,
    }
    return not reasons, told


def _reasons(state: str, details: Mapping[str, Any]) -> list[str]:
    error = details.get("error")
    if state not in ("running", "waiting"):
        return [f"{state}: {error}" if error else state]
    gatherers, missed = details.get("gatherers") or {}, details.get("missed") or ()
    if gatherers and len(missed) == len(gatherers):
        return [f"no gatherer is read: {', '.join(missed)}"]
    return []


def _troubles(details: Mapping[str, Any]) -> list[str]:
    gatherers = details.get("gatherers") or {}
    found = []
    for name in details.get("missed") or ():
        error = (gatherers.get(name) or {}).get("error")
        found.append(f"gatherer {name} is not read" + (f": {error}" if error else ""))
    for name, each in gatherers.items():
        standing_s = each.get("standing_s")
        if standing_s is not None and standing_s > _STANDING_S:
            found.append(f"gatherer {name}: its cursor has stood for {standing_s:.0f} s although there is more to read")
    put_aside = details.get("dead_letters_last_minute") or 0
    if put_aside > _DEAD_LETTERS_PER_MINUTE:
        found.append(f"{put_aside:,} rows of the last minute were put aside: see dead_letters of production")
    found += details.get("alarms") or ()
    catalog_error = (details.get("catalog") or {}).get("error")
    if catalog_error:
        found.append(f"the catalogs are not merged: {catalog_error}")
    return found
