"""The journal into a real database: everything once, outages, kills and a stop included."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.gatherer.ingest.batch_commit import commit_records
from kalshi_platform.gatherer.ingest.decoder import Decoder
from kalshi_platform.gatherer.ingest.fence import LOST, WENT_BACK
from kalshi_platform.local.postgres.server import PostgresServer
from kalshi_platform.market.frames import FrameBatch
from kalshi_platform.market.records import BookSubscriptionEnded, Record
from kalshi_platform.storage.partitions import PartitionKeeper
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.sqlstate import STATEMENT_TIMEOUT
from kalshi_platform_tests.fixtures.exchange import eventually
from kalshi_platform_tests.fixtures.gathered import BASE_US, STEPS, Stream
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.running_ingest import BOUNDS, RunningIngest, running_ingest

OpenDatabase = Callable[[str], Database]
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def rows(database: Database, query: str) -> list[tuple[object, ...]]:
    with database.transaction() as transaction:
        return transaction.fetch_all(query)


def count(database: Database, table: str) -> int:
    return int(str(rows(database, f"SELECT count(*) FROM {table}")[0][0]))


def all_steps(stream_id: int = 11, session_id: int = 1) -> list[Record]:
    stream = Stream(stream_id, session_id)
    for step in STEPS:
        stream.step(step)
    stream.close()
    return stream.records


def test_rows_ledger_and_position_of_a_session_arrive_together(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    with running_ingest(settings, database) as running:
        running.put(all_steps())
        running.settled()
        end = running.journal.end
    assert {
        name: count(database, name)
        for name in ("orderbook_deltas", "orderbook_snapshots", "trades", "tickers", "market_lifecycle", "dead_letters")
    } == {
        "orderbook_deltas": 2,
        "orderbook_snapshots": 2,
        "trades": 1,
        "tickers": 1,
        "market_lifecycle": 1,
        "dead_letters": 1,
    }
    assert rows(database, "SELECT gatherer, close_reason FROM sessions") == [("g1", "closed")]
    assert rows(database, "SELECT channel, end_reason FROM streams") == [("orderbook_delta", "closed")]
    assert rows(database, "SELECT min(seq_from), max(seq_to) FROM stream_segments") == [(1, 8)]
    ended = rows(database, "SELECT seq_from, seq_to FROM book_subscriptions ORDER BY 1")
    assert ended == [(1, 2), (2, 7)]
    assert rows(database, "SELECT seq_expected, seq_seen FROM sequence_gaps") == [(9, 12)]
    position = rows(database, "SELECT journal_id, segment, block_offset FROM journal_position")
    assert position == [(running.journal.journal_id, *end)]


def test_a_commit_has_one_number_and_says_where_its_rows_lie(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    database = open_database(gatherer_settings().timeseries_url)
    keeper = PartitionKeeper(database, BOUNDS, SYSTEM_CLOCK)
    stream = Stream()
    stream.snapshot()
    stream.delta()
    first = commit_records(database, keeper, "g1", stream.records)
    stream.records = []
    far = stream.delta(exchange_ts_us=BASE_US + 7_200_000_000)
    stream.delta()
    second = commit_records(database, keeper, "g1", stream.records)
    assert second.batch_no == first.batch_no + 1
    assert rows(database, "SELECT DISTINCT batch_no FROM orderbook_deltas WHERE seq > 2") == [(second.batch_no,)]
    (batch,) = rows(
        database, f"SELECT rows, extract(epoch FROM time_max)::bigint FROM batches WHERE batch_no = {second.batch_no}"
    )
    assert batch == (2, far.exchange_ts_us // 1_000_000)


def test_the_same_records_twice_change_nothing(gatherer_settings: SettingsFactory, open_database: OpenDatabase) -> None:
    database = open_database(gatherer_settings().timeseries_url)
    keeper = PartitionKeeper(database, BOUNDS, SYSTEM_CLOCK)
    tables = ("orderbook_deltas", "dead_letters", "book_subscriptions", "stream_segments", "sequence_gaps", "batches")
    commit_records(database, keeper, "g1", all_steps())
    before = {name: rows(database, f"SELECT * FROM {name} ORDER BY 1, 2") for name in tables}
    again = commit_records(database, keeper, "g1", all_steps(), repeated=True)
    assert set(again.inserted.values()) == {0}
    # Only the number that the repetition took is new.
    assert rows(database, "DELETE FROM batches WHERE table_name = 'ledger' RETURNING batch_no, rows") == [(2, 0)]
    assert {name: rows(database, f"SELECT * FROM {name} ORDER BY 1, 2") for name in tables} == before


def test_a_time_out_of_bounds_becomes_a_dead_letter_and_ends_the_claim(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    with running_ingest(settings, database) as running:
        stream = Stream()
        stream.snapshot()
        stream.delta(exchange_ts_us=1_000)
        stream.delta()
        running.put(stream.records)
        running.settled()
    assert rows(database, "SELECT reason, seq, ticker FROM dead_letters") == [("out_of_bounds", 2, "A")]
    assert rows(database, "SELECT seq_from, seq_to, end_reason FROM book_subscriptions") == [(1, 1, "out_of_bounds")]
    assert count(database, "orderbook_deltas") == 1
    assert running.lost == [["A"]]


def test_a_time_is_compared_with_the_ones_that_a_former_process_committed(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    stream, bounds = Stream(), replace(BOUNDS, behind=timedelta(days=2))
    stream.snapshot()
    stream.delta()
    with running_ingest(settings, database, bounds=bounds) as running:
        running.put(stream.records)
        running.settled()
        running.ingest.stop(10)
        stream.records = []
        stream.delta(exchange_ts_us=BASE_US - 10 * 86_400_000_000)
        running.put(stream.records)
    with running_ingest(settings, database, bounds=bounds) as running:
        running.settled()
    assert rows(database, "SELECT reason, seq, ticker FROM dead_letters") == [("out_of_bounds", 3, "A")]


def test_partitions_that_went_away_are_made_again(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    with running_ingest(settings, database) as running:
        stream = Stream()
        stream.delta()
        running.put(stream.records)
        running.settled()
        with database.transaction() as transaction:
            transaction.execute("SELECT drop_partitions_before('orderbook_deltas', 'infinity')")
        stream.records = []
        stream.delta()
        running.put(stream.records)
        running.settled()
    assert rows(database, "SELECT seq FROM orderbook_deltas") == [(2,)]


def test_a_process_that_begins_ends_what_the_former_one_left_open_at_its_last_frame(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    killed = RunningIngest(settings, database)
    former = Stream(11, 1)
    former.snapshot()
    for _ in range(40):
        former.delta()
    # It was killed before anything was committed.
    killed.put(former.records)
    killed.close()
    with running_ingest(settings, database, own_sessions=lambda: [2]) as running:
        own = Stream(12, 2)
        own.snapshot("B")
        own.delta("B")
        running.put(own.records, 2)
        running.settled()
    assert count(database, "orderbook_deltas") == 41
    assert rows(database, "SELECT session_id, close_reason, closed_at >= opened_at FROM sessions ORDER BY 1") == [
        (1, "gatherer ended", True),
        (2, None, None),
    ]
    assert rows(database, "SELECT stream_id, end_reason FROM streams ORDER BY 1") == [
        (11, "gatherer ended"),
        (12, None),
    ]
    assert rows(database, "SELECT stream_id, seq_to, end_reason FROM book_subscriptions ORDER BY 1") == [
        (11, 41, "gatherer ended"),
        (12, None, None),
    ]
    assert (running.alarms, running.restarts) == ([], 0)


def test_a_killed_process_whose_last_commit_is_under_way_is_waited_for(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    stream = Stream()
    stream.delta()
    with running_ingest(settings, database) as first:
        first.put(stream.records)
        first.settled()
    with database.transaction() as last:
        last.execute("UPDATE batch_counter SET last_batch_no = last_batch_no + 1")
        last.execute(
            "INSERT INTO book_subscriptions (stream_id, ticker, seq_from, exchange_index, batch_no)"
            f" VALUES ({stream.id}, 'A', 1, 0, 2)"
        )
        second = RunningIngest(settings, database)
        second.ingest.start()
        try:
            second.put(Stream(12, 2).records, 2)
            eventually(lambda: rows(database, WAITING) == [(1,)], what="the other commit waited for")
        except BaseException:
            second.close()
            raise
    second.settled()
    second.close()
    assert rows(database, "SELECT end_reason FROM book_subscriptions") == [("gatherer ended",)]


def test_nothing_is_lost_while_the_server_is_away_not_even_over_a_restart_of_the_process(
    gatherer_settings: SettingsFactory, stoppable_server: PostgresServer, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings(timeseries_url=stoppable_server.url("timeseries"))
    database = open_database(settings.timeseries_url)
    stream = Stream()

    def more(running: RunningIngest, deltas: int) -> None:
        for _ in range(deltas):
            stream.delta()
        running.put(stream.records)
        stream.records = []

    stream.snapshot()
    with running_ingest(settings, database) as running:
        more(running, 50)
        running.settled()
        stoppable_server.stop("immediate")
        more(running, 50)
        eventually(lambda: running.ingest.failures > 0, what="a failure")
        more(running, 50)
    # The process ended during the outage, and a new one begins during it.
    assert not running.ingest.is_settled
    newer = Stream(21, 9)
    with running_ingest(settings, database, own_sessions=lambda: [9]) as running:
        newer.snapshot("Z")
        newer.delta("Z")
        running.put(newer.records, 9)
        eventually(lambda: running.ingest.failures > 0, what="a failure of the second one")
        stoppable_server.start()
        running.settled(within_s=45)
    database = open_database(stoppable_server.url("timeseries"))
    assert rows(database, "SELECT count(*), count(DISTINCT seq) FROM orderbook_deltas WHERE stream_id = 11") == [
        (150, 150)
    ]
    assert rows(
        database, "SELECT sum(seq_to - seq_from + 1), max(seq_to) FROM stream_segments WHERE stream_id = 11"
    ) == [(151, 151)]
    assert rows(database, "SELECT session_id, close_reason FROM sessions ORDER BY 1") == [
        (1, "gatherer ended"),
        (9, None),
    ]
    assert rows(database, "SELECT seq_to FROM book_subscriptions WHERE stream_id = 11") == [(151,)]
    assert running.alarms == []


@pytest.mark.parametrize("is_behind", [False, True], ids=["at the pace of the exchange", "behind the journal"])
def test_a_connection_that_breaks_in_a_commit_is_no_loss(
    is_behind: bool, gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings(flush_rows=20, lag_rows=20) if is_behind else gatherer_settings()
    database, killer = open_database(settings.timeseries_url), open_database(settings.timeseries_url)
    stream = Stream()
    with running_ingest(settings, database) as running:
        for _ in range(60):
            for _ in range(20):
                stream.delta()
            running.put(stream.records)
            stream.records = []
            rows(
                killer,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
        running.settled(within_s=60)
    assert rows(database, "SELECT count(*), min(seq), max(seq) FROM orderbook_deltas") == [(1200, 1, 1200)]
    assert rows(database, "SELECT min(seq_from), max(seq_to) FROM stream_segments") == [(1, 1200)]
    assert count(database, "sequence_gaps") == 0
    assert running.alarms == []


@pytest.mark.parametrize("landed", [True, False], ids=["landed", "did not land"])
def test_a_commit_without_an_answer_is_found_out_by_its_position(
    landed: bool, gatherer_settings: SettingsFactory, open_database: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    stream = Stream()
    stream.snapshot()
    with running_ingest(settings, database) as running:
        running.put(stream.records)
        running.settled()
        ingest = running.ingest
        # Landed: the transaction is over, and its answer did not come.
        owner, name = (ingest._fence, "confirm") if landed else (ingest._writer, "commit")
        lost = fail_once(monkeypatch, owner, name)
        commits = running.counters.commits
        stream.records = []
        stream.delta()
        running.put(stream.records)
        running.settled()
        assert lost.is_set()
        assert running.counters.commits == commits + 1
        numbers = rows(database, "SELECT count(*) FROM batches")
    assert numbers == [(2,)]
    assert rows(database, "SELECT seq FROM orderbook_deltas") == [(2,)]
    assert running.counters.outages == 1


def test_what_comes_while_blocks_before_it_are_decoded_again_is_passed_on(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    stream = Stream()
    stream.snapshot()
    with running_ingest(settings, database) as running:
        running.put(stream.records)
        running.settled()
        ingest = running.ingest

        def receive_more_and_reload() -> None:
            stream.records = []
            stream.to_dead_letter()
            running.put(stream.records)
            ingest._reader.forget()

        fail_once(monkeypatch, ingest._writer, "commit", receive_more_and_reload)
        stream.records = []
        stream.delta()
        running.put(stream.records)
        running.settled()
    assert running.lost == [["A"]]
    assert running.alarms == ["dead_letter"]


def test_sessions_begin_again_where_the_ledger_was_ended_and_the_answer_did_not_come(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    with running_ingest(settings, database) as running:
        running.put(all_steps())
        running.settled()
        lost = fail_once(monkeypatch, running.ingest._fence, "confirm")
        rows(database, "UPDATE journal_position SET journal_id = 5 RETURNING batch_no")
        running.put(all_steps(12, 2), 2)
        running.settled()
    assert lost.is_set()
    assert running.restarts == 1
    assert LOST in running.alarms


def test_a_batch_that_takes_too_long_is_made_smaller_also_at_the_end_of_the_journal(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(gatherer_settings(), flush_rows=10)
    database = open_database(settings.timeseries_url)
    running, stream = RunningIngest(settings, database), Stream()
    commit, refused = running.ingest._writer.commit, []

    def refuse_large(records: Sequence[Record], *arguments: Any, **options: Any) -> None:
        if len(records) > 16:
            # The next batch has been read, up to the end of the journal.
            eventually(lambda: not running.ingest._reader.is_lagging)
            refused.append(len(records))
            raise DatabaseUnavailable("it took too long", kind=STATEMENT_TIMEOUT)
        commit(records, *arguments, **options)

    monkeypatch.setattr(running.ingest._writer, "commit", refuse_large)
    for _ in range(9):
        for _ in range(5):
            stream.delta()
        running.put(stream.records)
        stream.records = []
    running.ingest.start()
    running.settled()
    running.close()
    assert refused
    assert count(database, "orderbook_deltas") == 45


def test_what_went_back_is_not_settled_until_it_is_committed_again(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    stream = Stream()
    with running_ingest(settings, database) as running:
        running.put(stream.records)
        running.settled()
        segment, offset = running.journal.end
        stream.records = []
        stream.delta()
        running.put(stream.records)
        running.settled()
        with monkeypatch.context() as patched:
            patched.setattr(running.ingest._writer, "commit", lambda *_, **__: raise_unavailable())
            place = f"segment = {segment}, segment_created_ns = NULL, block_offset = {offset}"
            rows(database, f"UPDATE journal_position SET {place}, batch_no = batch_no - 1 RETURNING 1")
            running.ingest._compare_at = 0.0
            with running.journal.appended:
                running.journal.appended.notify_all()
            eventually(lambda: running.ingest.failures > 0)
            assert running.alarms == [WENT_BACK]
            assert not running.ingest.is_settled
        running.settled()


def fail_once(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, meanwhile: Callable[[], None] = lambda: None
) -> threading.Event:
    """Make the next call of a method do `meanwhile` and fail as an unavailable database; return what is set then."""
    failed, method = threading.Event(), getattr(owner, name)

    def call(*arguments: object, **options: object) -> None:
        if not failed.is_set():
            failed.set()
            meanwhile()
            raise_unavailable()
        method(*arguments, **options)

    monkeypatch.setattr(owner, name, call)
    return failed


def raise_unavailable() -> None:
    raise DatabaseUnavailable("the connection broke")


def test_a_stop_does_not_wait_for_a_database_that_gives_no_answer(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    stream = Stream()
    stream.snapshot()
    with running_ingest(settings, database) as first, database.transaction() as blocker:
        first.put(stream.records)
        first.settled()
        blocker.execute("LOCK TABLE batch_counter")
        stream.records = []
        stream.delta()
        first.put(stream.records)
        eventually(lambda: rows(database, WAITING) == [(1,)], what="a commit under way")
        stream.records = []
        stream.delta()
        first.put(stream.records)
        left: list[bool] = []
        stopping = threading.Thread(target=lambda: left.append(first.ingest.stop(0.2)), daemon=True)
        stopping.start()
        stopping.join(15)
        assert left == [False]
        blocker.connection.rollback()
        # It arrived after all: the next one begins behind it.
        eventually(lambda: count(database, "orderbook_deltas") == 1, what="the commit that hung")
    with running_ingest(settings, database) as second:
        second.put(Stream(12, 2).records, 2)
        second.settled()
    assert rows(database, "SELECT seq FROM orderbook_deltas ORDER BY 1") == [(2,), (3,)]
    assert rows(database, "SELECT min(seq_from), max(seq_to) FROM stream_segments") == [(1, 3)]
    assert rows(database, "SELECT seq_from, seq_to, end_reason FROM book_subscriptions") == [(1, 3, "gatherer ended")]


def test_a_stop_waits_for_the_last_commit_and_says_so(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kalshi_platform.gatherer.ingest.ingest.WAIT_REPORT_S", 0.1)
    settings = gatherer_settings()
    database, told = open_database(settings.timeseries_url), threading.Event()
    said: list[str] = []

    def hear(what: str) -> None:
        said.append(what)
        told.set()

    running = RunningIngest(settings, database)
    running.ingest.start()
    stream = Stream()
    running.put(stream.records)
    running.settled()
    with database.transaction() as blocker:
        blocker.execute("LOCK TABLE batch_counter")
        stream.records = []
        stream.delta()
        running.put(stream.records)
        release = threading.Thread(target=lambda: (told.wait(60), blocker.connection.rollback()), daemon=True)
        release.start()
        assert running.ingest.stop(120, hear)
        release.join(10)
        running.close()
    assert said[0].startswith("the last commit ("), said
    assert said[0].endswith(" bytes of the journal)"), said
    assert rows(database, "SELECT seq FROM orderbook_deltas") == [(1,)]


def test_a_block_that_makes_the_decoder_fail_costs_its_frames_and_marks_and_holds_nothing_up(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    decode = Decoder._decode_frames

    def fail(decoder: Decoder, batch: FrameBatch, low: int, high: int) -> None:
        decode(decoder, batch, low, high)
        if b'"price_dollars": "0.6600"' in b"".join(batch.payloads[low:high]):
            raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(Decoder, "_decode_frames", fail)
    stream = Stream()
    stream.snapshot("A")
    stream.snapshot("B")
    with running_ingest(settings, database) as running:
        running.put(stream.records)
        for price in (5_600, 6_600, 5_600):
            stream.records = []
            delta = msgspec.structs.replace(stream.delta("B"), price_e4=price)
            # What is unsubscribed in the block that fails is no longer followed.
            end = [BookSubscriptionEnded(stream.id, "A", stream.seq, "unsubscribed")] if price == 6_600 else []
            running.put([delta, *end])
        running.settled()
        assert running.counters.outages == 0
    assert rows(database, "SELECT seq FROM orderbook_deltas ORDER BY 1") == [(3,), (5,)]
    assert rows(database, "SELECT seq_expected, seq_seen FROM sequence_gaps") == [(4, 5)]
    ended = rows(database, "SELECT ticker, seq_to, end_reason FROM book_subscriptions ORDER BY 1")
    assert ended == [("A", 3, "journal damaged"), ("B", 3, "journal damaged")]
    assert rows(database, "SELECT reason FROM dead_letters") == [("journal_damaged",)]
    assert running.lost == [["A", "B"]]
    # It holds up no process that begins just behind it, either.
    with running_ingest(settings, database) as running:
        running.put(Stream(12, 2).records)
        running.settled()
    assert count(database, "streams") == 2


def test_large_books_bound_a_commit_by_their_bytes(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = replace(gatherer_settings(), flush_bytes=300_000)
    database = open_database(settings.timeseries_url)
    stream = Stream()
    levels = tuple((price, 100) for price in range(1, 2_001))
    records: list[Sequence[Record]] = []
    for number in range(60):
        stream.snapshot(f"M{number}")
        records.append([
            msgspec.structs.replace(each, yes=levels, no=levels) if hasattr(each, "yes") else each
            for each in stream.records
        ])  # fmt: skip
        stream.records = []
    running = RunningIngest(settings, database)
    for each in records:
        running.put(each)
    running.ingest.start()
    running.settled()
    running.close()
    ((books, batches, most),) = rows(
        database, "SELECT sum(rows)::int, count(*), max(rows) FROM batches WHERE table_name = 'orderbook_snapshots'"
    )
    assert books == 60
    assert int(str(most)) <= 5
    assert int(str(batches)) >= 12
