"""Health of a gatherer, health_of from its status."""

from __future__ import annotations

import msgspec
import pytest

from kalshi_platform.gatherer.status.health import with_health
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform_tests.fixtures.gatherer_status import well_status

SILENCE_LIMIT_S = 75.0


def health_of(**changes: object) -> GathererStatus:
    return with_health(well_status(**changes), SILENCE_LIMIT_S)


def with_connection(status: GathererStatus, **changes: object) -> GathererStatus:
    connection = msgspec.structs.replace(status.connections["books-0"], **changes)
    return with_health(msgspec.structs.replace(status, connections={"books-0": connection}), SILENCE_LIMIT_S)


def test_a_gatherer_that_records_everything_is_well() -> None:
    found = health_of()
    assert (found.health, found.reasons, found.troubles) == ("ok", [], [])


@pytest.mark.parametrize(
    ("state", "text"),
    [("stopping", "stopping"), ("waiting_for_exchange", "waits for the exchange"), ("stalled", "stopped reading"),
     ("starting", "starts"), ("never heard of", "never heard of")],
)  # fmt: skip
def test_a_state_without_recording_is_the_reason(state: str, text: str) -> None:
    found = health_of(state=state, note="back at noon")
    assert found.health == "not recording"
    assert text in found.reasons[0]
    assert found.reasons[0].endswith(": back at noon")


def test_a_silent_connection_is_not_recording_but_one_without_markets_is_none() -> None:
    found = with_connection(well_status(), last_data_age_s=80.0, state="waiting", last_error="refused")
    assert found.reasons == ["connection books-0: no data for 80 s (refused)"]
    assert with_connection(well_status(uptime_s=10.0), last_data_age_s=None).reasons == []
    assert with_connection(well_status(uptime_s=80.0), last_data_age_s=None).reasons
    assert with_connection(well_status(uptime_s=80.0), last_data_age_s=None, state="closed").reasons == []


def test_a_database_that_is_away_degrades_and_stops_nothing() -> None:
    status = well_status(problems=["this machine's clock is 300 s behind the exchange's: set it right (NTP)"])
    assert status.ingest is not None
    assert status.journal is not None
    status.ingest.database_error = "read-only"
    status.journal.bytes_on_disk = 17 * 1024**3
    found = with_connection(status, state="waiting")
    assert (found.health, found.reasons) == ("degraded", [])
    assert found.troubles == [
        "the database takes nothing, frames wait in the journal: read-only",
        "the journal is 85 % full",
        "connection books-0: an old one",
        "this machine's clock is 300 s behind the exchange's: set it right (NTP)",
    ]


def test_a_database_far_behind_the_journal_degrades() -> None:
    status = well_status()
    assert status.ingest is not None
    status.ingest.behind_s = 59.0
    assert with_health(status, SILENCE_LIMIT_S).health == "ok"
    status.ingest.behind_s = 90.0
    assert with_health(status, SILENCE_LIMIT_S).troubles == ["the database is 90 s behind the journal"]


def test_a_catalog_that_is_away_and_a_broken_listing_degrade() -> None:
    status = well_status()
    assert status.catalog is not None
    status.catalog.database_error = "no route"
    status.catalog.failing = {"events": "page 3 of 4"}
    assert with_health(status, SILENCE_LIMIT_S).troubles == [
        "the catalog is not written: no route",
        "the listing of events is not whole: page 3 of 4",
    ]


def test_too_few_books_for_long_are_a_reason() -> None:
    assert health_of(followed_markets=3, desired_markets=10_000, short_of_books_s=20.0).reasons == []
    found = health_of(state="syncing", followed_markets=3, desired_markets=10_000, short_of_books_s=90.0)
    assert found.reasons == ["3 of 10,000 books are followed, and no more for 90 s"]
    found = health_of(state="stopping", followed_markets=3, desired_markets=10_000, short_of_books_s=90.0)
    assert found.reasons == ["it is stopping"]


def test_books_that_the_ledger_does_not_follow_are_a_reason() -> None:
    status = well_status()
    assert status.ledger is not None
    status.ledger.subscriptions, status.ledger.short_of_books_s = 0, 45.0
    found = with_health(status, SILENCE_LIMIT_S)
    assert found.reasons == ["the ledger follows 0 of 59 books, for 45 s: the others are not claimed"]


def test_old_claims_a_repaired_ledger_and_many_dead_letters_degrade() -> None:
    status = well_status(dead_letters_last_minute=340)
    assert status.ledger is not None
    status.ledger.last_claim_age_s, status.ledger.alarm_age_s = 75.0, 60.0
    status.ledger.alarm = "database_went_back: batch 9"
    found = with_connection(status, asked_rarely=136)
    assert found.health == "degraded"
    assert found.troubles == [
        "books are received, and nothing that can be claimed was committed for 75 s",
        "database_went_back: batch 9 (60 s ago; look at the database)",
        "340 messages of the last minute were put aside: see reason and detail in dead_letters",
        "connection books-0: 136 markets lose their claim again and again; their snapshots are asked for ever more"
        " rarely: see reason and detail in dead_letters, and gaps",
    ]
    # A quiet exchange has nothing to claim, and what was repaired long ago is over.
    status.channels["orderbook_delta"].last_message_age_s = 80.0
    status.ledger.alarm_age_s = 1_000.0
    status.dead_letters_last_minute = 5
    assert with_health(status, SILENCE_LIMIT_S).health == "ok"
