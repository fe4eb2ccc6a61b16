"""What no database takes does not hold up what it does, and what nobody can read costs no more than its count."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import msgspec
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.gatherer.ingest.batch_commit import commit_records
from kalshi_platform.gatherer.ingest.batch_writer import BatchRefused, BatchWriter
from kalshi_platform.gatherer.ingest.fence import Fence
from kalshi_platform.gatherer.ingest.ingest_counters import IngestCounters
from kalshi_platform.gatherer.journal.block_format import Position
from kalshi_platform.market.names import readable
from kalshi_platform.market.records import DeadLetter, DeadLettersCounted, Record, SessionClosed
from kalshi_platform.market.times import datetime_from_us
from kalshi_platform.storage import migrate as migrations
from kalshi_platform.storage.partitions import PartitionKeeper
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform_tests.fixtures.gathered import BASE_US, Stream
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.running_ingest import BOUNDS, running_ingest
from kalshi_platform_tests.integration.gatherer.test_ingest import OpenDatabase, count, rows

HOUR_US = 3_600_000_000
END = Position(1, 500)
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
    fence = Fence(5)
    writer = BatchWriter("g1", database, BOUNDS, SYSTEM_CLOCK, IngestCounters(), fence, lost.extend)
    with pytest.raises(BatchRefused):
        writer.commit(records, END, repeated=False)
    writer.commit_parts(records, END)
    assert rows(database, "SELECT journal_id, segment, block_offset FROM journal_position") == [(5, *END)]
    assert rows(database, "SELECT ticker, seq FROM orderbook_deltas WHERE ticker = 'A'") == [("A", 6)]
    assert rows(database, "SELECT ticker, seq_from, seq_to FROM book_subscriptions WHERE ticker = 'A'") == [("A", 1, 6)]
    assert rows(database, "SELECT min(seq_from), max(seq_to), sum(seq_to - seq_from + 1) FROM stream_segments") == [
        (1, 6, 6)
    ]
    # Whatever was not stored is not claimed.
    followed = rows(database, "SELECT ticker FROM book_subscriptions WHERE seq_to IS NULL OR seq_to > seq_from")
    assert followed == [("A",)]
    letters = rows(
        database, "SELECT channel, ticker FROM dead_letters WHERE channel LIKE 'BookSubscription%' ORDER BY 1"
    )
    assert ("BookSubscriptionStarted", readable(ticker)) in letters
    assert all(str(name).isprintable() and len(str(name)) <= 200 for _, name in letters)
    (closed,) = rows(database, "SELECT closed_at IS NOT NULL, length(close_reason) FROM sessions")
    assert closed == (True, 200)
    assert lost == []


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
    bounds = replace(BOUNDS, behind=BOUNDS.ahead)
    with running_ingest(settings, database, bounds=bounds) as running:
        running.put(stream.records)
        running.settled()
        end = running.journal.end
    database.dispose()
    assert rows(reading, "SELECT segment, block_offset FROM journal_position") == [tuple(end)]
    assert rows(reading, "SELECT count(*), count(DISTINCT exchange_ts) FROM orderbook_deltas") == [(hours, hours)]
    assert rows(reading, "SELECT min(seq_from), max(seq_to), sum(seq_to - seq_from + 1) FROM stream_segments") == [
        (1, 1 + 2 * hours, 1 + 2 * hours)
    ]
    assert rows(reading, "SELECT seq_from, seq_to, end_reason FROM book_subscriptions") == [
        (1, 1 + 2 * hours, "unsubscribed")
    ]
    # What a server gives each of its connections on average, by default.
    assert database.most_locks <= 2 * 64


def test_a_row_that_the_database_refuses_goes_aside_and_the_others_go_on(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    database = open_database(gatherer_settings().timeseries_url)
    counters = IngestCounters()
    writer = BatchWriter("g1", database, BOUNDS, SYSTEM_CLOCK, counters, Fence(5))
    stream = Stream()
    stream.snapshot()
    stream.delta()
    stream.lifecycle()
    # The column is jsonb.
    stream.records[-1] = msgspec.structs.replace(stream.records[-1], content='{"title": no JSON')
    stream.delta()
    stream.lifecycle()
    writer.commit_parts(stream.records, END)
    assert counters.unwritable == 1
    assert rows(database, "SELECT seq FROM orderbook_deltas ORDER BY 1") == [(2,), (4,)]
    assert rows(database, "SELECT seq FROM market_lifecycle") == [(5,)]
    assert rows(database, "SELECT reason, seq FROM dead_letters") == [("unwritable", 3)]
    assert rows(database, "SELECT seq_from, seq_to FROM book_subscriptions") == [(1, None)]


@pytest.mark.parametrize("swapped", [False, True], ids=["snapshot first", "book_subscription first"])
def test_a_refused_snapshot_takes_its_book_subscription_with_it(
    swapped: bool, gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    database = open_database(gatherer_settings().timeseries_url)
    lost: list[Sequence[str]] = []
    writer = BatchWriter("g1", database, BOUNDS, SYSTEM_CLOCK, IngestCounters(), Fence(5), lost.append)
    stream = Stream()
    stream.snapshot()
    stream.delta()
    stream.again()
    # No column holds such a size.
    place = len(stream.records) - 2
    stream.records[place] = msgspec.structs.replace(stream.records[place], yes=((100, 2**64),))
    if swapped:
        stream.records[place:] = reversed(stream.records[place:])
    stream.delta()
    stream.snapshot("B")
    stream.leave("A")
    for _ in range(2):
        writer.commit_parts(stream.records, END)
    assert rows(database, "SELECT reason, seq, ticker FROM dead_letters") == [("unwritable", 3, "A")]
    assert rows(database, "SELECT ticker, seq FROM orderbook_snapshots ORDER BY seq") == [("A", 1), ("B", 5)]
    # What ends before it begins claims nothing.
    assert rows(database, "SELECT ticker, seq_from, seq_to, end_reason FROM book_subscriptions ORDER BY seq_from") == [
        ("A", 1, 3, "snapshot"),
        ("A", 3, 2, "unwritable"),
        ("B", 5, None, None),
    ]
    assert lost == [("A",), ("A",)]


def test_a_batch_of_which_only_parts_arrived_is_written_again_from_its_beginning(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger is ahead of the position then: that is no hole, and nothing is doubled."""
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    stream = Stream()
    stream.snapshot()
    for hour in range(60):
        stream.delta(exchange_ts_us=BASE_US - hour * HOUR_US)
    bounds = replace(BOUNDS, behind=BOUNDS.ahead)
    with running_ingest(settings, database, bounds=bounds) as running:
        fence = running.ingest._fence
        confirm, parts = fence.confirm, list[int]()

        def fail_once() -> None:
            confirm()
            parts.append(1)
            if len(parts) == 2:
                # As after a kill: nothing of what this process knew is left.
                running.ingest._reader.forget()
                raise DatabaseUnavailable("the connection broke")

        monkeypatch.setattr(fence, "confirm", fail_once)
        running.put(stream.records)
        running.settled()
        # One for the mark that the process began, and of the other block three, of which two were written twice.
        assert len(parts) >= 5
    assert count(database, "orderbook_deltas") == 60
    assert count(database, "sequence_gaps") == 0
    assert rows(database, "SELECT min(seq_from), max(seq_to) FROM stream_segments") == [(1, 61)]
    assert rows(database, "SELECT seq_from, seq_to, end_reason FROM book_subscriptions") == [(1, None, None)]
    assert (running.alarms, running.lost) == ([], [])


def letters(number: int, *, at_us: int = BASE_US, reason: str = "shape") -> list[Record]:
    return [
        DeadLetter((at_us + place) * 1_000, reason, "odd", b"\x00" * 400, 1, place + 1, "orderbook_delta", None)
        for place in range(number)
    ]


def scans(database: Database) -> int:
    """How often the letters of any day were read as a whole."""
    database.dispose()  # a connection tells its statistics at its end
    query = "SELECT coalesce(sum(seq_scan), 0) FROM pg_stat_user_tables WHERE relname LIKE 'dead_letters%'"
    return int(str(rows(database, query)[0][0]))


def test_a_letter_that_is_written_again_is_found_by_its_key(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    database = open_database(gatherer_settings().timeseries_url)
    keeper = PartitionKeeper(database, BOUNDS, SYSTEM_CLOCK)
    commit_records(database, keeper, "g1", letters(500))
    before = scans(database)
    for repeated in (True, False):
        # The last one is new: equal in all but the reason.
        commit = commit_records(
            database, keeper, "g1", [*letters(500), *letters(1, reason=f"other {repeated}")], repeated=repeated
        )
        assert commit.inserted == {"dead_letters": 1}
    assert rows(database, "SELECT count(*), count(DISTINCT fingerprint) FROM dead_letters") == [(502, 502)]
    assert scans(database) - before <= 4  # the two counts above, and no scan for a letter


def test_a_flood_of_rows_that_go_aside_is_a_sample_and_its_exact_count(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings(dead_letters_per_minute=10)
    database = open_database(settings.timeseries_url)
    with running_ingest(settings, database) as running:
        stream = Stream()
        stream.snapshot()
        for _ in range(3):
            for _ in range(100):
                stream.delta(exchange_ts_us=1_000)
            running.put(stream.records)
            running.settled()
            stream.records = []
    assert rows(database, "SELECT count(*) FROM dead_letters") == [(10,)]
    assert rows(database, "SELECT reason, sum(letters)::int FROM dead_letter_counts GROUP BY 1") == [
        ("out_of_bounds", 290)
    ]
    assert rows(database, "SELECT min(seq_from), max(seq_to), sum(seq_to - seq_from + 1) FROM stream_segments") == [
        (1, 301, 301)
    ]
    assert rows(database, "SELECT seq_from, seq_to, end_reason FROM book_subscriptions") == [(1, 1, "out_of_bounds")]
    assert running.counters.out_of_bounds == 300


def test_old_letters_go_a_few_days_at_a_time(gatherer_settings: SettingsFactory, open_database: OpenDatabase) -> None:
    database = open_database(gatherer_settings().timeseries_url)
    keeper = PartitionKeeper(database, BOUNDS, SYSTEM_CLOCK)
    day_us = 24 * HOUR_US
    for day in range(7):
        at_us = BASE_US - day * day_us
        counted = DeadLettersCounted(at_us // 60_000_000 * 60_000_000, "shape", 1, 5)
        commit_records(database, keeper, "g1", [*letters(3, at_us=at_us), counted])
    before = datetime_from_us(BASE_US - 2 * day_us)
    left = []
    for _ in range(3):
        with database.transaction() as transaction:
            transaction.fetch_one("SELECT drop_old_dead_letters(%s, 3)", (before,))
        left += rows(database, "SELECT count(DISTINCT received_at::date) FROM dead_letters")
    # That of the day in which the moment lies stays whole.
    assert left == [(4,), (3,), (3,)]
    assert rows(database, "SELECT count(*) FROM dead_letter_counts") == [(3,)]
    # The partitions are made again when a late letter needs one.
    commit_records(
        database, PartitionKeeper(database, BOUNDS, SYSTEM_CLOCK), "g1", letters(1, at_us=BASE_US - 6 * day_us)
    )


def test_letters_from_before_the_key_stay_through_the_migration(
    database_factory: DatabaseFactory, open_database: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(database_factory())
    files = migrations.files_of("timeseries")
    older = tuple(file for file in files if "170_" not in file.name and "column_comments" not in file.name)
    monkeypatch.setattr(migrations, "files_of", lambda _: older)
    migrations.migrate(database, "timeseries")
    with database.transaction() as transaction:
        transaction.execute("SELECT ensure_partitions('dead_letters', now() - interval '2 days', now())")
        transaction.execute(
            "INSERT INTO dead_letters (received_at, stream_id, seq, reason, detail, payload, batch_no)"
            " SELECT now() - (place % 3) * interval '1 day', 1, 0, 'shape', '', '', 1"
            " FROM generate_series(1, 300) AS place"
        )
    monkeypatch.setattr(migrations, "files_of", lambda _: files)
    migrations.migrate(database, "timeseries")
    assert rows(database, "SELECT count(*), count(fingerprint) FROM dead_letters") == [(300, 0)]
    keeper = PartitionKeeper(database, BOUNDS, SYSTEM_CLOCK)
    now_us = SYSTEM_CLOCK.now_ns() // 1_000
    for _ in range(2):
        commit_records(database, keeper, "g1", letters(2, at_us=now_us), repeated=True)
    assert rows(database, "SELECT count(*), count(fingerprint) FROM dead_letters") == [(302, 2)]
