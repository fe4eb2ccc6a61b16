"""Metrics of a gatherer's status."""

from __future__ import annotations

from kalshi_platform.gatherer.status.metrics import gatherer_metrics
from kalshi_platform_tests.fixtures.gatherer_status import well_status


def test_metrics_carry_units_and_labels() -> None:
    found = {family.name: family for family in gatherer_metrics(well_status())}
    assert all(name.startswith("kalshi_gatherer_") for name in found)

    def value(name: str, **labels: str) -> float:
        (sample,) = [each for each in found[f"kalshi_gatherer_{name}"].samples if each.labels == labels]
        return sample.value

    assert value("messages", channel="orderbook_delta") == 100
    assert value("rows", table="orderbook_deltas") == 7
    assert value("journal_bytes") == 2 * 1024**2
    assert value("journal_behind_bytes") == 2_048
    assert value("journal_behind_seconds") == 0.2
    assert value("dead_letters") == 4
    assert value("gaps", connection="books-0") == 1
    assert value("reconnects", connection="books-0") == 2
    assert value("alarms", kind="gap") == 1
    assert value("records_put_aside", reason="unwritable") == 1
    assert value("wanted_markets") == 60
    assert value("followed_markets") == 59
    assert value("suspect_markets") == 1
    assert value("ledger_subscriptions") == 59
    assert value("last_claim_age_seconds") == 0.3
    assert value("dead_letters_last_minute") == 0
    assert value("last_message_age_seconds", connection="books-0", channel="orderbook_delta") == 0.4
    assert value("clock_ahead_seconds", of="exchange") == 0.1
    assert value("lease") == 1
    assert value("threads") == 14
    assert value("state", state="running") == 1
    assert value("recording") == 1
    assert value("database_up") == 1
    lags = {(each.name, each.labels.get("le")): each.value
            for each in found["kalshi_gatherer_receive_to_commit_seconds"].samples}  # fmt: skip
    assert lags["kalshi_gatherer_receive_to_commit_seconds_bucket", "1"] == 2
    assert lags["kalshi_gatherer_receive_to_commit_seconds_count", None] == 3
    assert lags["kalshi_gatherer_receive_to_commit_seconds_sum", None] == 2.5


def test_metrics_of_a_gatherer_without_an_ingest_yet_have_no_rows() -> None:
    status = well_status(state="starting", ingest=None, ledger=None, reasons=["it starts"])
    found = {family.name: family for family in gatherer_metrics(status)}
    assert [each.value for each in found["kalshi_gatherer_recording"].samples] == [0.0]
    assert "kalshi_gatherer_rows" not in found
