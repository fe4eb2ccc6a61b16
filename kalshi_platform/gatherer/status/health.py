"""Is it recording, and is all well? From the figures alone, for `/healthz`, `status` and people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# How long fewer books than wanted may be followed without a gain: a sync and a reconnect take less.
_SHORT_OF_BOOKS_S = 60.0
# How long the ledger may lack what is followed: a commit takes less.
_SHORT_IN_LEDGER_S = 30.0
# More messages put aside within a minute are no accident; each of a book ends claims.
_DEAD_LETTERS_PER_MINUTE = 5
_CLAIMS_AGE_S = 60.0
# A channel that sent something within that is active.
_ACTIVE_S = 30.0
# How long a ledger that differed is told after it was mended.
_LEDGER_ALARM_S = 900.0
RECORDING_STATES = frozenset({"syncing", "running"})
_STARTING = {
    "starting": "it starts",
    "waiting_for_exchange": "it waits for the exchange",
    "stopping": "it is stopping",
    "stopped": "it has stopped",
    "switched off": "it is switched off in service_switches",
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
        reasons += _short(details)
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


def _short(details: Mapping[str, Any]) -> list[str]:
    """What should be followed and is not, or is, and the ledger does not say so."""
    found = []
    followed, ledger = details.get("followed") or 0, details.get("ledger") or {}
    short_s = details.get("short_of_books_s")
    if short_s is not None and short_s > _SHORT_OF_BOOKS_S:
        found.append(f"{followed:,} of {details['wanted']:,} books are followed, and no more for {short_s:.0f} s")
    short_s = ledger.get("short_of_books_s")
    if short_s is not None and short_s > _SHORT_IN_LEDGER_S:
        found.append(
            f"the ledger follows {ledger['subscriptions']:,} of {followed:,} books, for {short_s:.0f} s: the others are"
            " not claimed"
        )
    return found


def _unclaimed(details: Mapping[str, Any]) -> list[str]:
    """Books are received, and nothing is committed that can be claimed; a ledger that was mended."""
    found = []
    ledger = details.get("ledger") or {}
    heard_s = ((details.get("channels") or {}).get("orderbook_delta") or {}).get("last_message_age_s")
    age_s = ledger.get("last_claim_age_s")
    if heard_s is not None and heard_s < _ACTIVE_S and age_s is not None and age_s > _CLAIMS_AGE_S:
        found.append(f"books are received, and nothing that can be claimed was committed for {age_s:.0f} s")
    alarm_s = ledger.get("alarm_age_s")
    if ledger.get("alarm") and alarm_s is not None and alarm_s < _LEDGER_ALARM_S:
        found.append(f"{ledger['alarm']} ({alarm_s:.0f} s ago; every session began anew, look at the database)")
    put_aside = details.get("dead_letters_last_minute") or 0
    if put_aside > _DEAD_LETTERS_PER_MINUTE:
        found.append(f"{put_aside:,} messages of the last minute were put aside: see reason and detail in dead_letters")
    return found


def _asked_rarely(connections: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"connection {name}: {figures['asked_rarely']:,} markets lose their claim again and again; their snapshots are"
        " asked for ever more rarely: see reason and detail in dead_letters, and gaps"
        for name, figures in connections.items()
        if figures.get("asked_rarely")
    ]


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
    catalog = details.get("catalog") or {}
    if catalog.get("database_error"):
        found.append(f"the catalog is not written: {catalog['database_error']}")
    found += [f"the listing of {what} is not whole: {why}" for what, why in (catalog.get("failing") or {}).items()]
    refused = [
        f"connection {name}: {figures['last_error']}"
        for name, figures in (details.get("connections") or {}).items()
        if figures.get("state") in ("waiting", "connecting") and figures.get("last_error")
    ]
    rarely = _asked_rarely(details.get("connections") or {})
    return [*found, *_unclaimed(details), *rarely, *refused, *(details.get("problems") or ())]
