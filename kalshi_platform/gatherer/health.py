"""Is it recording, and is all well? From the figures alone, for `/healthz`, `status` and people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RECORDING_STATES = frozenset({"syncing", "running"})
_STARTING = {
    "starting": "it starts",
    "waiting_for_exchange": "it waits for the exchange",
    "stopping": "it is stopping",
    "stopped": "it has stopped",
    "switched off": "it is switched off in desired_services",
}


@dataclass(frozen=True)
class Health:
    """`reasons`: why it does not record what it should (empty: it does); `troubles`: what else needs somebody."""

    reasons: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()

    @property
    def is_recording(self) -> bool:
        """Whether everything that should be recorded is."""
        return not self.reasons

    @property
    def word(self) -> str:
        """`ok`, `degraded` (recording, but something needs somebody) or `not recording`."""
        if self.reasons:
            return "not recording"
        return "degraded" if self.troubles else "ok"


def health_of(state: str, details: Mapping[str, Any], uptime_s: float, silence_limit_s: float) -> Health:
    """Judge the details of a heartbeat. A connection is silent after `silence_limit_s` without any data."""
    reasons = [] if state in RECORDING_STATES else [_why(state, details)]
    if state in RECORDING_STATES:
        reasons += _silent(details.get("connections") or {}, uptime_s, silence_limit_s)
    return Health(tuple(reasons), tuple(_troubles(details)))


def _why(state: str, details: Mapping[str, Any]) -> str:
    said = "it has stopped reading" if state == "stalled" else _STARTING.get(state, f"its state is {state}")
    return f"{said}: {details['note']}" if details.get("note") else said


def _silent(connections: Mapping[str, Mapping[str, Any]], uptime_s: float, limit_s: float) -> list[str]:
    found = []
    for name, figures in connections.items():
        if figures.get("state") == "closed":
            continue  # has nothing to follow
        age_s = figures.get("last_data_age_s")
        silent_s = uptime_s if age_s is None else age_s
        if silent_s > limit_s:
            error = figures.get("last_error")
            found.append(f"connection {name}: no data for {silent_s:.0f} s" + (f" ({error})" if error else ""))
    return found


def _troubles(details: Mapping[str, Any]) -> list[str]:
    writer = details.get("writer") or {}
    found = []
    if writer.get("database_error"):
        found.append(f"records go to the spool: {writer['database_error']}")
    if writer.get("disk_error"):
        found.append(f"the spool takes nothing: {writer['disk_error']}")
    limit, used = writer.get("spool_limit_bytes"), writer.get("spool_bytes") or 0
    if limit and used > limit / 2:
        found.append(f"the spool is {100 * used / limit:.0f} % full")
    catalog_error = (details.get("catalog") or {}).get("database_error")
    if catalog_error:
        found.append(f"the catalog is not written: {catalog_error}")
    refused = [
        f"connection {name}: {figures['last_error']}"
        for name, figures in (details.get("connections") or {}).items()
        if figures.get("state") in ("waiting", "connecting") and figures.get("last_error")
    ]
    return [*found, *refused, *(details.get("problems") or ())]
