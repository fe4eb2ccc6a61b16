"""Derives from a gatherer's status whether it records everything it should, and what else needs attention. Pure."""

from __future__ import annotations

import msgspec

from kalshi_platform.gatherer.status.status import ConnectionStatus, GathererStatus

# How long fewer books than desired may be followed without a gain: a sync and a reconnect take less.
_SHORT_OF_BOOKS_S = 60.0
# How long the ledger may lack followed books: a commit takes less.
_SHORT_IN_LEDGER_S = 30.0
# More dead letters within a minute are no accident; each of a book ends claims.
_DEAD_LETTERS_PER_MINUTE = 5
_CLAIMS_AGE_S = 60.0
_BEHIND_S = 60.0
_FILLED_SHARE = 0.8
# A channel that sent something within that is active.
_ACTIVE_S = 30.0
# How long a ledger that differed is reported after it was repaired.
_LEDGER_ALARM_S = 900.0
RECORDING_STATES = frozenset({"syncing", "running"})
_STARTING = {
    "starting": "it starts",
    "waiting_for_exchange": "it waits for the exchange",
    "stopping": "it is stopping",
    "stopped": "it has stopped",
    "switched off": "it is switched off in service_switches",
}


def with_health(status: GathererStatus, silence_limit_s: float) -> GathererStatus:
    """Return the status with `health`, `reasons` and `troubles`.

    A connection is silent after `silence_limit_s` without any data.
    """
    reasons = [] if status.state in RECORDING_STATES else [_state_reason(status)]
    if status.state in RECORDING_STATES:
        reasons += _silent_connections(status, silence_limit_s)
        reasons += _missing_books(status)
    troubles = _troubles(status)
    health = "not recording" if reasons else "degraded" if troubles else "ok"
    return msgspec.structs.replace(status, health=health, reasons=reasons, troubles=troubles)


def _state_reason(status: GathererStatus) -> str:
    state = status.state
    text = "it has stopped reading" if state == "stalled" else _STARTING.get(state, f"its state is {state}")
    return f"{text}: {status.note}" if status.note else text


def _silent_connections(status: GathererStatus, limit_s: float) -> list[str]:
    texts = []
    for name, connection in status.connections.items():
        if connection.state == "closed":
            continue  # has nothing to follow
        age_s = connection.last_data_age_s
        silent_s = (status.uptime_s or 0.0) if age_s is None else age_s
        if silent_s > limit_s:
            error = f" ({connection.last_error})" if connection.last_error else ""
            texts.append(f"connection {name}: no data for {silent_s:.0f} s{error}")
    return texts


def _missing_books(status: GathererStatus) -> list[str]:
    """Return reasons for desired books that are not followed, or are missing in the ledger."""
    texts = []
    followed, ledger = status.followed_markets or 0, status.ledger
    short_s = status.short_of_books_s
    if short_s is not None and short_s > _SHORT_OF_BOOKS_S:
        desired = status.desired_markets or 0
        texts.append(f"{followed:,} of {desired:,} books are followed, and no more for {short_s:.0f} s")
    if ledger is not None and ledger.short_of_books_s is not None and ledger.short_of_books_s > _SHORT_IN_LEDGER_S:
        texts.append(
            f"the ledger follows {ledger.subscriptions or 0:,} of {followed:,} books, for {ledger.short_of_books_s:.0f}"
            " s: the others are not claimed"
        )
    return texts


def _troubles(status: GathererStatus) -> list[str]:
    refused = [
        f"connection {name}: {connection.last_error}"
        for name, connection in status.connections.items()
        if connection.state in ("waiting", "connecting") and connection.last_error
    ]
    return [
        *_storage_troubles(status),
        *_claim_troubles(status),
        *_repeated_losses(status.connections),
        *refused,
        *status.problems,
    ]


def _storage_troubles(status: GathererStatus) -> list[str]:
    texts = []
    ingest, journal, catalog = status.ingest, status.journal, status.catalog
    if ingest is not None:
        if ingest.database_error:
            texts.append(f"the database takes nothing, frames wait in the journal: {ingest.database_error}")
        elif ingest.behind_s > _BEHIND_S:
            texts.append(f"the database is {ingest.behind_s:.0f} s behind the journal")
    if journal is not None and journal.limit_bytes and journal.bytes_on_disk > _FILLED_SHARE * journal.limit_bytes:
        texts.append(f"the journal is {100 * journal.bytes_on_disk / journal.limit_bytes:.0f} % full")
    if catalog is not None:
        if catalog.database_error:
            texts.append(f"the catalog is not written: {catalog.database_error}")
        texts += [f"the listing of {what} is not whole: {why}" for what, why in catalog.failing.items()]
    return texts


def _claim_troubles(status: GathererStatus) -> list[str]:
    """Return troubles with claims: no commits that support them, a repaired ledger, dead letters."""
    texts = []
    ledger, books = status.ledger, status.channels.get("orderbook_delta")
    last_message_s = None if books is None else books.last_message_age_s
    if ledger is not None:
        age_s = ledger.last_claim_age_s
        if last_message_s is not None and last_message_s < _ACTIVE_S and age_s is not None and age_s > _CLAIMS_AGE_S:
            texts.append(f"books are received, and nothing that can be claimed was committed for {age_s:.0f} s")
        alarm_s = ledger.alarm_age_s
        if ledger.alarm and alarm_s is not None and alarm_s < _LEDGER_ALARM_S:
            texts.append(f"{ledger.alarm} ({alarm_s:.0f} s ago; look at the database)")
    letters = status.dead_letters_last_minute
    if letters > _DEAD_LETTERS_PER_MINUTE:
        texts.append(f"{letters:,} messages of the last minute were put aside: see reason and detail in dead_letters")
    return texts


def _repeated_losses(connections: dict[str, ConnectionStatus]) -> list[str]:
    return [
        f"connection {name}: {connection.asked_rarely:,} markets lose their claim again and again; their snapshots are"
        " asked for ever more rarely: see reason and detail in dead_letters, and gaps"
        for name, connection in connections.items()
        if connection.asked_rarely
    ]
