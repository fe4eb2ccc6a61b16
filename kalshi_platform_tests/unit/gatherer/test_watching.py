"""What a gatherer tells of itself: traffic, rates, lags, health, metrics, and lines for people."""

from __future__ import annotations

from typing import Any

import pytest

from kalshi_platform.gatherer.status.channel_counters import Traffic, summed
from kalshi_platform.gatherer.status.health import health_of
from kalshi_platform.gatherer.status.latency_histogram import BUCKETS_S, Lags
from kalshi_platform.gatherer.status.metrics import gatherer_metrics
from kalshi_platform.gatherer.status.rate_meter import Rates
from kalshi_platform.local.status_lines import byte_text, gatherer_lines
from kalshi_platform.market.records import BookDelta, BookSnapshot, SessionOpened
from kalshi_platform.monitoring.metrics import Histogram, Metric

DELTA = BookDelta("T", "yes", 4_200, 100, 1, 2, 3, 9, 0)
SNAPSHOT = BookSnapshot("T", "ws", 1, 2, (), ())


def details(**changes: Any) -> dict[str, Any]:
    """Details of a gatherer that is well."""
    connection = {
        "state": "open", "frames": 10, "gaps": 1, "reconnects": 2, "refused": 0, "dead_letters": 0,
        "asked_rarely": 0, "last_data_age_s": 0.4, "last_message_age_s": {"orderbook_delta": 0.4},
        "last_error": "an old one",
    }  # fmt: skip
    writer = {
        "rows": {"orderbook_deltas": 7}, "rows_per_s": 812.0, "commits": 3, "queued": 5, "spool_bytes": 2_048,
        "held_bytes": 1_500,
        "spool_limit_bytes": 20 * 1024**3, "spooled": 0, "replayed": 0, "stalls": 0, "database_error": None,
        "disk_error": None, "out_of_bounds": 2, "unwritable": 1,
        "lag_p50_ms": 100.0, "lag_p99_ms": 240.0, "lag_max_ms": 300.0,
        "lag_buckets": {"up_to_s": [[0.1, 1], [1.0, 2]], "count": 3, "total_s": 2.5},
    }  # fmt: skip
    return {
        "note": "",
        "followed": 59,
        "wanted": 60,
        "suspects": 1,
        "short_of_books_s": None,
        "ledger": {
            "subscriptions": 59,
            "last_claim_age_s": 0.3,
            "compared_age_s": 20.0,
            "short_of_books_s": None,
            "alarm": None,
            "alarm_age_s": None,
        },
        "dead_letters_last_minute": 0,
        "channels": {"orderbook_delta": {"messages": 100, "per_s": 640.0, "last_message_age_s": 0.4}},
        "connections": {"books-0": connection},
        "writer": writer,
        "catalog": {
            "database_error": None,
            "failing": {},
            "left_out": 0,
            "unfit_fields": 2,
            "mended_values": 1,
            "cut_listings": 0,
        },
        "books": {"recovered": 0},
        "alarms": {"gap": 1},
        "clock": {"ahead_of_exchange_s": 0.1, "ahead_of_database_s": None},
        "problems": [],
        "lease": True,
        "process": {"rss_bytes": 150 * 1024**2, "threads": 14, "open_files": 32},
        "reasons": [],
        "troubles": [],
        **changes,
    }


def test_traffic_is_counted_by_channel_with_the_time_of_the_last_message() -> None:
    first, second = Traffic(), Traffic()
    first.saw([DELTA, SNAPSHOT, DELTA, SessionOpened(1, "feed", "ws://x", False, 1)], 500.0)
    second.saw([DELTA], 300.0)
    assert list(first.channels()) == ["orderbook_delta"]
    total = summed([first, second])
    assert (total["orderbook_delta"].messages, total["orderbook_delta"].last_s) == (4, 500.0)
    assert (total["trade"].messages, total["trade"].last_s) == (0, None)


def test_rates_are_measured_between_looks_a_second_or_more_apart() -> None:
    rates = Rates(100.0)
    rates.look({"trade": 50}, 100.5)
    assert rates.per_s == {}
    rates.look({"trade": 50}, 105.0)
    assert (rates.per_s, rates.over_s) == ({"trade": 10.0}, 5.0)
    rates.look({"trade": 50, "ticker": 10}, 110.0)
    assert rates.per_s == {"trade": 0.0, "ticker": 2.0}


def test_lags_keep_the_last_ones_and_count_all() -> None:
    lags = Lags(kept=2)
    for lag_ms in (100.0, 101.0, 10_000_000.0):
        lags.append(lag_ms)
    assert list(lags) == [101.0, 10_000_000.0]
    assert (lags.number, round(lags.total_s, 3)) == (3, 10_000.201)
    assert lags.buckets()[:3] == [[0.05, 0], [0.1, 1], [0.15, 2]]
    assert lags.buckets()[-1] == [BUCKETS_S[-1], 2]


def test_a_gatherer_that_records_everything_is_well() -> None:
    health = health_of("running", details(), 1_000.0, 75.0)
    assert (health.word, health.is_recording) == ("ok", True)


@pytest.mark.parametrize(
    ("state", "said"),
    [("stopping", "stopping"), ("waiting_for_exchange", "waits for the exchange"), ("stalled", "stopped reading"),
     ("starting", "starts"), ("never heard of", "never heard of")],
)  # fmt: skip
def test_who_does_not_record_says_why(state: str, said: str) -> None:
    health = health_of(state, details(note="back at noon"), 1_000.0, 75.0)
    assert health.word == "not recording"
    assert said in health.reasons[0]


def test_a_silent_connection_is_not_recording_but_one_without_markets_is_none() -> None:
    changed = details()
    connection = changed["connections"]["books-0"]
    connection |= {"last_data_age_s": 80.0, "state": "waiting", "last_error": "refused"}
    health = health_of("running", changed, 1_000.0, 75.0)
    assert health.reasons == ("connection books-0: no data for 80 s (refused)",)
    connection |= {"last_data_age_s": None}
    assert health_of("running", changed, 10.0, 75.0).is_recording
    assert not health_of("running", changed, 80.0, 75.0).is_recording
    connection |= {"state": "closed"}
    assert health_of("running", changed, 80.0, 75.0).is_recording


def test_a_database_that_is_away_degrades_and_stops_nothing() -> None:
    changed = details(problems=["this machine's clock is 300 s behind the exchange's: set it right (NTP)"])
    changed["writer"] |= {"database_error": "read-only", "spool_bytes": 15 * 1024**3}
    changed["connections"]["books-0"]["state"] = "waiting"
    health = health_of("running", changed, 1_000.0, 75.0)
    assert (health.word, health.is_recording) == ("degraded", True)
    assert health.troubles == (
        "records go to the spool: read-only",
        "the spool is 75 % full",
        "connection books-0: an old one",
        "this machine's clock is 300 s behind the exchange's: set it right (NTP)",
    )


def test_who_follows_too_few_books_for_long_does_not_record_what_it_should() -> None:
    assert health_of("running", details(followed=3, wanted=10_000, short_of_books_s=20.0), 1_000.0, 75.0).is_recording
    short = details(followed=3, wanted=10_000, short_of_books_s=90.0)
    health = health_of("syncing", short, 1_000.0, 75.0)
    assert health.reasons == ("3 of 10,000 books are followed, and no more for 90 s",)
    assert health_of("stopping", short, 1_000.0, 75.0).reasons == ("it is stopping",)


def test_what_the_ledger_does_not_follow_is_not_claimed() -> None:
    changed = details()
    changed["ledger"] |= {"subscriptions": 0, "short_of_books_s": 45.0}
    health = health_of("running", changed, 1_000.0, 75.0)
    assert health.reasons == ("the ledger follows 0 of 59 books, for 45 s: the others are not claimed",)


def test_old_claims_a_mended_ledger_and_many_dead_letters_are_told() -> None:
    changed = details(dead_letters_last_minute=340)
    changed["ledger"] |= {"last_claim_age_s": 75.0, "alarm": "database_went_back: batch 9", "alarm_age_s": 60.0}
    health = health_of("running", changed, 1_000.0, 75.0)
    assert (health.word, health.is_recording) == ("degraded", True)
    assert health.troubles == (
        "books are received, and nothing that can be claimed was committed for 75 s",
        "database_went_back: batch 9 (60 s ago; every session began anew, look at the database)",
        "340 messages of the last minute were put aside: see reason and detail in dead_letters",
    )
    changed["connections"]["books-0"]["asked_rarely"] = 136
    assert health_of("running", changed, 1_000.0, 75.0).troubles[3:] == (
        "connection books-0: 136 markets lose their claim again and again; their snapshots are asked for ever more"
        " rarely: see reason and detail in dead_letters, and gaps",
    )
    changed["connections"]["books-0"]["asked_rarely"] = 0
    # A quiet exchange has nothing to claim, and what was mended long ago is over.
    changed["channels"]["orderbook_delta"]["last_message_age_s"] = 80.0
    changed["ledger"]["alarm_age_s"] = 1_000.0
    assert health_of("running", changed | {"dead_letters_last_minute": 5}, 1_000.0, 75.0).word == "ok"


def test_metrics_carry_units_and_labels() -> None:
    found = {metric.name: metric for metric in gatherer_metrics("running", True, details())}
    assert all(name.startswith("kalshi_gatherer_") for name in found)

    def value(name: str, **labels: str) -> float | None:
        metric = found[f"kalshi_gatherer_{name}"]
        assert isinstance(metric, Metric)
        (sample,) = [each for each in metric.samples if each.labels == labels]
        return sample.value

    assert value("messages", channel="orderbook_delta") == 100
    assert value("rows", table="orderbook_deltas") == 7
    assert value("queue_records") == 5
    assert value("spool_bytes") == 2_048
    assert value("gaps", connection="books-0") == 1
    assert value("reconnects", connection="books-0") == 2
    assert value("alarms", kind="gap") == 1
    assert value("records_put_aside", reason="unwritable") == 1
    assert value("followed_markets") == 59
    assert value("suspect_markets") == 1
    assert value("ledger_subscriptions") == 59
    assert value("last_claim_age_seconds") == 0.3
    assert value("dead_letters_last_minute") == 0
    assert value("last_message_age_seconds", connection="books-0", channel="orderbook_delta") == 0.4
    assert value("state", state="running") == 1
    assert value("recording") == 1
    assert value("database_up") == 1
    lags = found["kalshi_gatherer_receive_to_commit_seconds"]
    assert isinstance(lags, Histogram)
    assert (lags.count, lags.total) == (3, 2.5)


def test_metrics_of_a_gatherer_that_has_no_writer_yet() -> None:
    names = {metric.name for metric in gatherer_metrics("starting", False, details(writer=None, ledger=None))}
    assert "kalshi_gatherer_recording" in names
    assert "kalshi_gatherer_rows" not in names


def test_lines_for_people() -> None:
    lines = gatherer_lines(details(troubles=["the spool is 75 % full"]))
    assert lines == [
        "follows 59 of 60 books (59 in the ledger), 1 wait for a snapshot; 640 messages/s (orderbook_delta 640);"
        " gaps 1, reconnects 2",
        "812 rows/s, receipt to commit 100 ms (p99 240, most 300); 5 records in memory, spool 2.0 KiB of 20 GiB",
        "150 MiB of memory, 14 threads, 32 open files",
        "! the spool is 75 % full",
    ]


def test_details_of_another_version_are_no_error() -> None:
    assert gatherer_lines({}) == []
    assert byte_text(None) == "?"
    assert byte_text(999) == "999 B"
