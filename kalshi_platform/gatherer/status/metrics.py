"""The details of a heartbeat → metrics. Pure; every name carries its unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kalshi_platform.monitoring.metrics import Histogram, Metric, Sample, by_label, counter, gauge

_P = "kalshi_gatherer_"


def gatherer_metrics(state: str, is_recording: bool, details: Mapping[str, Any]) -> Iterator[Metric | Histogram]:
    """What Prometheus is told of a gatherer in this state."""
    yield by_label("gauge", f"{_P}state", "1 for the state it is in.", "state", {state: 1})
    yield gauge(f"{_P}recording", "1 while it records everything it should, else 0.", float(is_recording))
    yield gauge(f"{_P}wanted_markets", "Markets whose books are to be followed.", details["wanted"])
    yield gauge(
        f"{_P}followed_markets", "Markets whose books are followed, each from its snapshot on.", details["followed"]
    )
    yield gauge(f"{_P}suspect_markets", "Markets that lost a frame and wait for a snapshot.", details["suspects"])
    if details["ledger"] is not None:
        yield gauge(
            f"{_P}ledger_subscriptions", "Markets followed in the ledger, once for each stream.",
            details["ledger"]["subscriptions"],
        )  # fmt: skip
        yield gauge(
            f"{_P}last_claim_age_seconds", "Since a commit last brought something of books that can be claimed.",
            details["ledger"]["last_claim_age_s"],
        )  # fmt: skip
    yield gauge(
        f"{_P}dead_letters_last_minute", "Messages put aside within the last minute.",
        details["dead_letters_last_minute"],
    )  # fmt: skip
    yield from _channels(details["channels"])
    yield from _connections(details["connections"])
    if details["writer"] is not None:
        yield from _writer(details["writer"])
    yield from _books(details["books"])
    yield from _catalog(details["catalog"])
    yield by_label("counter", f"{_P}alarms", "Alarms by kind.", "kind", details["alarms"])
    clock = details["clock"]
    whose = {"exchange": clock["ahead_of_exchange_s"], "database": clock["ahead_of_database_s"]}
    yield by_label("gauge", f"{_P}clock_ahead_seconds", "How far this machine's clock is ahead.", "of", whose)
    yield gauge(f"{_P}lease", "1 while its name is locked in the database.", float(details["lease"]))
    yield gauge(f"{_P}threads", "Threads of the process.", details["process"]["threads"])


def _channels(channels: Mapping[str, Any]) -> Iterator[Metric]:
    totals = {name: each["messages"] for name, each in channels.items()}
    yield by_label("counter", f"{_P}messages", "Messages received, by channel.", "channel", totals)


def _connections(connections: Mapping[str, Any]) -> Iterator[Metric]:
    def all_of(key: str) -> dict[str, float | None]:
        return {name: each[key] for name, each in connections.items()}

    is_open = {name: float(each["state"] == "open") for name, each in connections.items()}
    yield by_label("gauge", f"{_P}connection_open", "1 while the connection is open.", "connection", is_open)
    yield by_label("counter", f"{_P}frames", "Frames received, by connection.", "connection", all_of("frames"))
    yield by_label("counter", f"{_P}gaps", "Losses seen in sequence numbers.", "connection", all_of("gaps"))
    yield by_label("counter", f"{_P}reconnects", "Connections made anew.", "connection", all_of("reconnects"))
    yield by_label("counter", f"{_P}refused", "Handshakes refused for the signature.", "connection", all_of("refused"))
    yield by_label(
        "counter", f"{_P}dead_letters", "Messages of unknown shape, put aside.", "connection", all_of("dead_letters")
    )
    ages = [
        Sample(age_s, {"connection": name, "channel": channel})
        for name, each in connections.items()
        for channel, age_s in each["last_message_age_s"].items()
    ]
    yield Metric(f"{_P}last_message_age_seconds", "Since the last message of a channel.", "gauge", ages)
    yield by_label(
        "gauge", f"{_P}last_data_age_seconds", "Since any frame of a connection, answers to questions included.",
        "connection", all_of("last_data_age_s"),
    )  # fmt: skip
    yield by_label(
        "gauge", f"{_P}markets_requested_rarely", "Markets that lose their claim again and again.",
        "connection", all_of("asked_rarely"),
    )  # fmt: skip


def _writer(writer: Mapping[str, Any]) -> Iterator[Metric | Histogram]:
    yield by_label("counter", f"{_P}rows", "New rows committed, by table.", "table", writer["rows"])
    yield counter(f"{_P}commits", "Transactions committed.", writer["commits"])
    yield gauge(f"{_P}queue_records", "Records in memory, neither committed nor on disk.", writer["queued"])
    yield gauge(f"{_P}held_bytes", "About the memory of records that are not committed.", writer["held_bytes"])
    yield gauge(f"{_P}spool_bytes", "Bytes that wait on disk for the database.", writer["spool_bytes"])
    yield gauge(f"{_P}spool_limit_bytes", "Bytes the spool may hold.", writer["spool_limit_bytes"])
    yield counter(f"{_P}spooled_records", "Records that went to disk.", writer["spooled"])
    yield counter(f"{_P}replayed_records", "Records read back from disk and committed.", writer["replayed"])
    aside = {"out_of_bounds": writer["out_of_bounds"], "unwritable": writer["unwritable"]}
    yield by_label("counter", f"{_P}records_put_aside", "Rows that did not become one, by reason.", "reason", aside)
    yield counter(f"{_P}stalls", "Times it had to stop reading.", writer["stalls"])
    yield gauge(
        f"{_P}database_up", "1 while the timeseries database takes writes.", float(not writer["database_error"])
    )
    lags = writer["lag_buckets"]
    yield Histogram(
        f"{_P}receive_to_commit_seconds",
        "From the receipt of a commit's oldest record to the commit.",
        lags["up_to_s"],
        lags["count"],
        lags["total_s"],
    )


def _catalog(catalog: Mapping[str, Any]) -> Iterator[Metric]:
    yield gauge(
        f"{_P}catalog_failing_listings",
        "Listings (series, events, markets) that failed or lack something.",
        float(len(catalog["failing"])),
    )
    yield gauge(
        f"{_P}catalog_left_out_objects", "Objects that the last syncs could not read.", float(catalog["left_out"])
    )
    yield counter(
        f"{_P}catalog_unfit_fields", "Fields of an unexpected shape that were left empty.", catalog["unfit_fields"]
    )
    yield counter(
        f"{_P}rest_mended_values", "Texts and numbers of REST answers that were broken.", catalog["mended_values"]
    )


def _books(books: Mapping[str, Any]) -> Iterator[Metric]:
    if "minute" in books:
        yield gauge(f"{_P}poll_duration_seconds", "Of the last poll of books over REST.", books["took_s"])
        yield gauge(f"{_P}poll_stored_books", "Books stored by the last poll.", books["stored"])
        yield gauge(f"{_P}poll_oldest_book_age_seconds", "Age of the oldest book after it.", books["oldest_age_s"])
    yield counter(f"{_P}recovered_books", "Books fetched over REST after a loss.", books["recovered"])
