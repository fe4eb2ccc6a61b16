"""What no database takes does not hold up what it does: the spool of a gatherer that was stuck drains."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import msgspec
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.gatherer.spool import Spool
from kalshi_platform.gatherer.writer import Writer
from kalshi_platform.market.names import readable
from kalshi_platform.market.records import SessionClosed
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform_tests.fixtures.gathered import BASE_US, Stream
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.integration.test_gatherer_writer import BOUNDS, OpenDatabase, rows, settled

HOUR_US = 3_600_000_000
# Random, so that no compression makes it fit into an index after all.
LONG = "".join(random.Random(3).choices(string.ascii_letters, k=3_503))


@pytest.mark.parametrize("ticker", [LONG, "A\x00B"], ids=["too long", "NUL"])
def test_a_ticker_that_no_index_holds_goes_aside_with_all_that_names_it(
    ticker: str, gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    lost: list[str] = []
    stream = Stream()
    stream.snapshot("A")
    stream.snapshot("ODD")
    stream.delta("ODD")
    stream.trade("ODD")
    stream.ticker("ODD")
    stream.lifecycle("ODD")
    stream.delta("A")
    stream.leave("ODD")
    stream.leave("A")
    stream.close()
    records = [
        msgspec.structs.replace(each, ticker=ticker) if getattr(each, "ticker", None) == "ODD" else each
        for each in stream.records
    ]
    records = [
        msgspec.structs.replace(each, reason="closed \x00 " + 3_000 * "r") if type(each) is SessionClosed else each
        for each in records
    ]
    writer = Writer(
        settings, database, BOUNDS, SYSTEM_CLOCK, Spool(settings.folder / "spool"), on_lost_claim=lost.extend
    )
    writer.start()
    try:
        writer.put(records)
        settled(writer)
    finally:
        writer.stop(10)
    assert rows(database, "SELECT ticker, seq FROM orderbook_deltas WHERE ticker = 'A'") == [("A", 6)]
    assert rows(database, "SELECT ticker, seq_from, seq_to FROM memberships WHERE ticker = 'A'") == [("A", 1, 6)]
    assert rows(database, "SELECT min(seq_from), max(seq_to), sum(seq_to - seq_from + 1) FROM stream_segments") == [
        (1, 6, 6)
    ]
    # Whatever was not stored is not claimed.
    followed = rows(database, "SELECT ticker FROM memberships WHERE seq_to IS NULL OR seq_to > seq_from")
    assert followed == [("A",)]
    letters = rows(database, "SELECT channel, ticker FROM dead_letters WHERE channel LIKE 'Membership%' ORDER BY 1")
    assert ("MembershipStarted", readable(ticker)) in letters
    assert all(str(name).isprintable() and len(str(name)) <= 200 for _, name in letters)
    (closed,) = rows(database, "SELECT closed_at IS NOT NULL, length(close_reason) FROM sessions")
    assert closed == (True, 200)
    assert lost == []
    assert not list((settings.folder / "spool").iterdir())


class LocksCounted(Database):
    """Notes how many places of the server's lock table each transaction had at its end."""

    most_locks = 0

    @contextmanager
    def transaction(self, *, isolation: str | None = None) -> Iterator[Transaction]:
        with super().transaction(isolation=isolation) as transaction:
            yield transaction
            row = transaction.fetch_one("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()")
            assert row is not None
            self.most_locks = max(self.most_locks, int(row[0]))


def test_no_transaction_needs_more_of_the_lock_table_than_one_has_a_right_to(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    reading = open_database(settings.timeseries_url)
    database = LocksCounted(settings.timeseries_url, name="counted")
    stream = Stream()
    stream.snapshot()
    hours = 100
    for hour in range(hours):
        stream.delta(exchange_ts_us=BASE_US - hour * HOUR_US)
        stream.ack()
    stream.leave()
    # As a former process left it: everything in one block of the spool.
    former = Spool(settings.folder / "spool")
    former.append(stream.records)
    former.close()
    bounds = replace(BOUNDS, behind=BOUNDS.ahead)
    writer = Writer(settings, database, bounds, SYSTEM_CLOCK, Spool(settings.folder / "spool"))
    writer.start()
    try:
        settled(writer)
    finally:
        writer.stop(10)
        database.dispose()
    assert rows(reading, "SELECT count(*), count(DISTINCT exchange_ts) FROM orderbook_deltas") == [(hours, hours)]
    assert rows(reading, "SELECT min(seq_from), max(seq_to), sum(seq_to - seq_from + 1) FROM stream_segments") == [
        (1, 1 + 2 * hours, 1 + 2 * hours)
    ]
    assert rows(reading, "SELECT seq_from, seq_to, end_reason FROM memberships") == [(1, 1 + 2 * hours, "unsubscribed")]
    # What a server gives each of its connections on average, by default.
    assert database.most_locks <= 2 * 64
