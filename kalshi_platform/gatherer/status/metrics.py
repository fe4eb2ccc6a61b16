"""Makes Prometheus metrics from a gatherer's status. Pure; every name contains its unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from kalshi_platform.gatherer.status.status import (
    CatalogStatus,
    ConnectionStatus,
    GathererStatus,
    IngestStatus,
    JournalStatus,
    PollerStatus,
)
from kalshi_platform.monitoring.metrics import (
    Labels,
    MetricFamily,
    by_label,
    counter,
    counters,
    gauge,
    gauges,
    histogram,
)

_P = "kalshi_gatherer_"


def gatherer_metrics(status: GathererStatus) -> Iterator[MetricFamily]:
    """Yield the metrics of a status."""
    yield gauges(f"{_P}state", "1 for the state it is in.", ["state"], {(status.state,): 1})
    yield gauge(f"{_P}recording", "1 while it records everything it should, else 0.", float(not status.reasons))
    yield gauge(f"{_P}wanted_markets", "Markets whose books are to be followed.", status.desired_markets)
    yield gauge(
        f"{_P}followed_markets", "Markets whose books are followed, each from its snapshot on.", status.followed_markets
    )
    yield gauge(f"{_P}suspect_markets", "Markets that lost a frame and wait for a snapshot.", status.suspect_markets)
    if status.ledger is not None:
        yield gauge(
            f"{_P}ledger_subscriptions", "Markets followed in the ledger, once for each stream.",
            status.ledger.subscriptions,
        )  # fmt: skip
        yield gauge(
            f"{_P}last_claim_age_seconds", "Since a commit last brought something of books that can be claimed.",
            status.ledger.last_claim_age_s,
        )  # fmt: skip
    yield gauge(
        f"{_P}dead_letters_last_minute", "Messages put aside within the last minute.", status.dead_letters_last_minute
    )
    messages = by_label({name: each.messages for name, each in status.channels.items()})
    yield counters(f"{_P}messages", "Messages received, by channel.", ["channel"], messages)
    yield from _connections(status.connections)
    if status.journal is not None:
        yield from _journal(status.journal)
    if status.ingest is not None:
        yield from _ingest(status.ingest)
    if status.poller is not None:
        yield from _poller(status.poller)
    if status.catalog is not None:
        yield from _catalog(status.catalog)
    yield counters(f"{_P}alarms", "Alarms by kind.", ["kind"], by_label(status.alarms))
    yield gauge(f"{_P}alerts_waiting", "Alerts that wait to be delivered.", status.alerts_waiting)
    if status.clock is not None:
        ahead = {"exchange": status.clock.ahead_of_exchange_s, "database": status.clock.ahead_of_database_s}
        yield gauges(f"{_P}clock_ahead_seconds", "How far this machine's clock is ahead.", ["of"], by_label(ahead))
    yield gauge(f"{_P}lease", "1 while its name is locked in the database.", float(status.has_database_lock))
    if status.process is not None:
        yield gauge(f"{_P}threads", "Threads of the process.", status.process.threads)


def _connections(connections: Mapping[str, ConnectionStatus]) -> Iterator[MetricFamily]:
    def all_of(value: Callable[[ConnectionStatus], float | None]) -> Labels:
        return {(name,): value(each) for name, each in connections.items()}

    label = ["connection"]
    yield gauges(
        f"{_P}connection_open", "1 while the connection is open.", label, all_of(lambda each: each.state == "open")
    )
    yield counters(f"{_P}frames", "Frames received, by connection.", label, all_of(lambda each: each.frames))
    yield counters(f"{_P}gaps", "Losses seen in sequence numbers.", label, all_of(lambda each: each.gaps))
    yield counters(f"{_P}reconnects", "Connections made anew.", label, all_of(lambda each: each.reconnects))
    yield counters(f"{_P}refused", "Handshakes refused for the signature.", label, all_of(lambda each: each.refused))
    ages: Labels = {
        (name, channel): age_s
        for name, each in connections.items()
        for channel, age_s in each.last_message_age_s.items()
    }
    yield gauges(
        f"{_P}last_message_age_seconds", "Since the last message of a channel.", ["connection", "channel"], ages
    )
    yield gauges(
        f"{_P}last_data_age_seconds", "Since any frame of a connection, answers to questions included.", label,
        all_of(lambda each: each.last_data_age_s),
    )  # fmt: skip
    yield gauges(
        f"{_P}markets_asked_rarely", "Markets that lose their claim again and again.", label,
        all_of(lambda each: each.asked_rarely),
    )  # fmt: skip


def _journal(journal: JournalStatus) -> Iterator[MetricFamily]:
    yield gauge(f"{_P}journal_bytes", "Bytes of the journal on disk.", journal.bytes_on_disk)
    yield gauge(f"{_P}journal_limit_bytes", "Bytes the journal may have.", journal.limit_bytes)
    yield counter(f"{_P}stalls", "Times it had to stop reading.", journal.stalls)


def _ingest(ingest: IngestStatus) -> Iterator[MetricFamily]:
    yield counters(f"{_P}rows", "New rows committed, by table.", ["table"], by_label(ingest.rows))
    yield counter(f"{_P}commits", "Transactions committed.", ingest.commits)
    yield gauge(f"{_P}journal_behind_bytes", "Bytes of the journal that are not in the database.", ingest.behind_bytes)
    yield gauge(
        f"{_P}journal_behind_seconds", "Since the last message in the database was received, while others wait.",
        ingest.behind_s,
    )  # fmt: skip
    yield counter(f"{_P}journal_damages", "Parts of the journal that could not be read.", ingest.damages)
    yield counter(f"{_P}dead_letters", "Messages of unknown shape, put aside.", ingest.dead_letters)
    quarantined = {"out_of_bounds": ingest.out_of_bounds, "unwritable": ingest.unwritable}
    yield counters(
        f"{_P}records_put_aside", "Rows that did not become one, by reason.", ["reason"], by_label(quarantined)
    )
    yield gauge(f"{_P}database_up", "1 while the timeseries database takes writes.", float(not ingest.database_error))
    yield histogram(
        f"{_P}receive_to_commit_seconds",
        "From the receipt of a commit's oldest record to the commit.",
        ingest.lag_buckets,
    )


def _catalog(catalog: CatalogStatus) -> Iterator[MetricFamily]:
    yield gauge(
        f"{_P}catalog_failing_listings",
        "Listings (series, events, markets) that failed or lack something.",
        len(catalog.failing),
    )
    yield gauge(f"{_P}catalog_left_out_objects", "Objects that the last syncs could not read.", catalog.left_out)
    yield counter(
        f"{_P}catalog_unfit_fields", "Fields of an unexpected shape that were left empty.", catalog.unfit_fields
    )
    yield counter(
        f"{_P}rest_mended_values", "Texts and numbers of REST answers that were broken.", catalog.mended_values
    )


def _poller(poller: PollerStatus) -> Iterator[MetricFamily]:
    if poller.minute is not None:
        yield gauge(f"{_P}poll_duration_seconds", "Of the last poll of books over REST.", poller.took_s)
        yield gauge(f"{_P}poll_stored_books", "Books stored by the last poll.", poller.stored)
        yield gauge(f"{_P}poll_oldest_book_age_seconds", "Age of the oldest book after it.", poller.oldest_age_s)
    yield counter(f"{_P}recovered_books", "Books fetched over REST after a loss.", poller.recovered)
