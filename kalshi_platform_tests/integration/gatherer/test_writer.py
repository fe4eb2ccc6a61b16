"""The writer on a real database: everything once, outages and kills included."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.gatherer.ingest.batch_commit import close_former, commit_records
from kalshi_platform.gatherer.ingest.fence import Fence
from kalshi_platform.gatherer.ingest.writer import Writer
from kalshi_platform.gatherer.journal.spool import Spool
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.local.postgres.server import PostgresServer
from kalshi_platform.local.processes.ports import free_port
from kalshi_platform.market.records import BookDelta, Record
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.disk import full_disk
from kalshi_platform_tests.fixtures.exchange import eventually
from kalshi_platform_tests.fixtures.gathered import BASE_US, STEPS, Stream
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory

OpenDatabase = Callable[[str], Database]
# The streams of the tests lie in 2026-11: believable whatever the machine's clock says.
BOUNDS = PartitionBounds(ahead=timedelta(days=3650))


def rows(database: Database, query: str) -> list[tuple[object, ...]]:
    with database.transaction() as transaction:
        return transaction.fetch_all(query)


def count(database: Database, table: str) -> int:
    return int(str(rows(database, f"SELECT count(*) FROM {table}")[0][0]))


@contextmanager
def running_writer(settings: GathererSettings, database: Database, **options: object) -> Iterator[Writer]:
    writer = Writer(
        settings,
        database,
        BOUNDS,
        SYSTEM_CLOCK,
        Spool(settings.folder / "spool"),
        **options,  # type: ignore[arg-type]
    )
    writer.start()
    try:
        yield writer
    finally:
        writer.stop(10)


def settled(writer: Writer) -> None:
    eventually(writer.is_settled, what="everything written")


def all_steps(stream_id: int = 11, session_id: int = 1) -> list[Record]:
    stream = Stream(stream_id, session_id)
    for step in STEPS:
        stream.step(step)
    stream.close()
    return stream.records


def test_rows_and_ledger_of_a_session_arrive_together(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    with running_writer(settings, database) as writer:
        writer.put(all_steps())
        settled(writer)
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
    assert rows(database, "SELECT seq_from, seq_to FROM stream_segments ORDER BY 1") == [(1, 8)]
    assert rows(database, "SELECT seq_from, seq_to, end_reason FROM book_subscriptions ORDER BY 1") == [
        (1, 2, "snapshot"),
        (2, 8, "gap"),
    ]
    assert rows(database, "SELECT seq_expected, seq_seen FROM sequence_gaps") == [(9, 12)]


def test_each_commit_has_one_number_and_says_where_its_rows_lie(
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
    lost: list[Sequence[str]] = []
    with running_writer(settings, database, on_lost_claim=lost.append) as writer:
        stream = Stream()
        stream.snapshot()
        stream.delta(exchange_ts_us=1_000)
        stream.delta()
        writer.put(stream.records)
        settled(writer)
    assert rows(database, "SELECT reason, seq, ticker FROM dead_letters") == [("out_of_bounds", 2, "A")]
    assert rows(database, "SELECT seq_from, seq_to, end_reason FROM book_subscriptions") == [(1, 1, "out_of_bounds")]
    assert count(database, "orderbook_deltas") == 1
    assert lost == [["A"]]


def test_one_row_that_the_database_refuses_is_quarantined_and_the_others_go_on(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    with running_writer(settings, database) as writer:
        stream = Stream()
        stream.snapshot()
        stream.delta()
        stream.lifecycle()
        # The column is jsonb.
        stream.records[-1] = msgspec.structs.replace(stream.records[-1], content='{"title": no JSON')
        stream.delta()
        stream.lifecycle()
        writer.put(stream.records)
        settled(writer)
    assert writer.counters.unwritable == 1
    assert rows(database, "SELECT seq FROM orderbook_deltas ORDER BY 1") == [(2,), (4,)]
    assert rows(database, "SELECT seq FROM market_lifecycle") == [(5,)]
    assert rows(database, "SELECT reason, seq FROM dead_letters") == [("unwritable", 3)]
    assert rows(database, "SELECT seq_from, seq_to FROM book_subscriptions") == [(1, None)]


@pytest.mark.parametrize("swapped", [False, True], ids=["snapshot first", "book_subscription first"])
def test_a_refused_snapshot_takes_its_book_subscription_with_it(
    swapped: bool, gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    lost: list[Sequence[str]] = []
    with running_writer(settings, database, on_lost_claim=lost.append) as writer:
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
            writer.put(stream.records)
            settled(writer)
    assert rows(database, "SELECT reason, seq, ticker FROM dead_letters") == [("unwritable", 3, "A")]
    assert rows(database, "SELECT ticker, seq FROM orderbook_snapshots ORDER BY seq") == [("A", 1), ("B", 5)]
    # What ends before it begins claims nothing.
    assert rows(database, "SELECT ticker, seq_from, seq_to, end_reason FROM book_subscriptions ORDER BY seq_from") == [
        ("A", 1, 3, "snapshot"),
        ("A", 3, 2, "unwritable"),
        ("B", 5, None, None),
    ]
    assert lost == [("A",), ("A",)]


def test_partitions_that_went_away_are_made_again(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    with running_writer(settings, database) as writer:
        stream = Stream()
        stream.delta()
        writer.put(stream.records)
        settled(writer)
        with database.transaction() as transaction:
            transaction.execute("SELECT drop_partitions_before('orderbook_deltas', 'infinity')")
        stream.records = []
        stream.delta()
        writer.put(stream.records)
        settled(writer)
    assert rows(database, "SELECT seq FROM orderbook_deltas") == [(2,)]


def test_an_overfull_queue_goes_to_disk_and_arrives_in_order(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings(flush_rows=10, queue_rows=20, flush_interval_s=0.05)
    database = open_database(settings.timeseries_url)
    with running_writer(settings, database) as writer, database.transaction() as blocker:
        blocker.execute("LOCK TABLE batch_counter")
        stream = Stream()
        for _ in range(30):
            stream.snapshot(f"M{stream.seq}")
            stream.delta(f"M{stream.seq - 1}")
            writer.put(stream.records)
            stream.records = []
        eventually(lambda: writer.counters.spooled > 0)
        blocker.connection.rollback()
        settled(writer)
    assert count(database, "orderbook_deltas") == 30
    assert rows(database, "SELECT min(seq_from), max(seq_to), sum(seq_to - seq_from + 1) FROM stream_segments") == [
        (1, 60, 60)
    ]


def test_the_ledger_closes_a_former_process_and_claims_no_more_than_was_committed(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    database = open_database(gatherer_settings().timeseries_url)
    keeper = PartitionKeeper(database, BOUNDS, SYSTEM_CLOCK)
    former, own = Stream(11, 1), Stream(12, 2)
    for stream in (former, own):
        stream.snapshot()
        stream.delta()
        commit_records(database, keeper, "g1", stream.records)
    fence = Fence()
    assert close_former(database, "g1", [2], fence) == 1
    assert rows(database, "SELECT session_id, close_reason, closed_at >= opened_at FROM sessions ORDER BY 1") == [
        (1, "process ended", True),
        (2, None, None),
    ]
    assert rows(database, "SELECT stream_id, end_reason FROM streams ORDER BY 1") == [
        (11, "process ended"),
        (12, None),
    ]
    assert rows(database, "SELECT stream_id, seq_to, end_reason FROM book_subscriptions ORDER BY 1") == [
        (11, 2, "process ended"),
        (12, None, None),
    ]
    assert close_former(database, "g2", [], fence) == 0


def test_a_killed_process_whose_last_commit_is_under_way_is_waited_for(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    database = open_database(gatherer_settings().timeseries_url)
    keeper = PartitionKeeper(database, BOUNDS, SYSTEM_CLOCK)
    stream = Stream()
    commit_records(database, keeper, "g1", stream.records)
    closed: list[int] = []
    closing = threading.Thread(target=lambda: closed.append(close_former(database, "g1", [], Fence())), daemon=True)
    with database.transaction() as last:
        last.execute("UPDATE batch_counter SET last_batch_no = last_batch_no + 1")
        last.execute(
            "INSERT INTO book_subscriptions (stream_id, ticker, seq_from, exchange_index, batch_no)"
            " VALUES (11, 'A', 1, 0, 2)"
        )
        closing.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        eventually(lambda: closed or rows(database, waiting) == [(1,)], what="the other commit waited for")
        assert not closed
    closing.join(20)
    assert closed == [1]
    assert rows(database, "SELECT end_reason FROM book_subscriptions") == [("process ended",)]


def test_nothing_is_lost_while_the_server_is_away_not_even_over_a_restart_of_the_process(
    gatherer_settings: SettingsFactory, stoppable_server: PostgresServer, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings(timeseries_url=stoppable_server.url("timeseries"))
    database = open_database(settings.timeseries_url)
    stream = Stream()

    def more(writer: Writer, deltas: int) -> None:
        for _ in range(deltas):
            stream.delta()
        writer.put(stream.records)
        stream.records = []

    stream.snapshot()
    with running_writer(settings, database) as writer:
        more(writer, 50)
        settled(writer)
        stoppable_server.stop("immediate")
        more(writer, 50)
        eventually(lambda: writer.counters.spooled > 0)
        more(writer, 50)
        assert writer.database_is_away
    # The process ended during the outage, and a new one begins during it.
    assert list((settings.folder / "spool").iterdir())
    newer = Stream(21, 9)
    with running_writer(settings, database, own_sessions=lambda: [9]) as writer:
        newer.snapshot("Z")
        newer.delta("Z")
        writer.put(newer.records)
        eventually(lambda: writer.counters.spooled > 0)
        stoppable_server.start()
        database = open_database(stoppable_server.url("timeseries"))
        settings = replace(settings, timeseries_url=stoppable_server.url("timeseries"))
        eventually(writer.is_settled, within_s=45)
    assert rows(database, "SELECT count(*), count(DISTINCT seq) FROM orderbook_deltas WHERE stream_id = 11") == [
        (150, 150)
    ]
    assert rows(
        database, "SELECT sum(seq_to - seq_from + 1), max(seq_to) FROM stream_segments WHERE stream_id = 11"
    ) == [(151, 151)]
    assert rows(database, "SELECT session_id, close_reason FROM sessions ORDER BY 1") == [
        (1, "process ended"),
        (9, None),
    ]
    assert rows(database, "SELECT seq_to FROM book_subscriptions WHERE stream_id = 11") == [(151,)]
    assert not list((settings.folder / "spool").iterdir())


def test_a_connection_that_breaks_in_a_commit_is_no_loss(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    database, killer = open_database(settings.timeseries_url), open_database(settings.timeseries_url)
    stream = Stream()
    with running_writer(settings, database) as writer:
        for _ in range(60):
            for _ in range(20):
                stream.delta()
            writer.put(stream.records)
            stream.records = []
            rows(
                killer,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
        settled(writer)
    assert rows(database, "SELECT count(*), min(seq), max(seq) FROM orderbook_deltas") == [(1200, 1, 1200)]
    assert rows(database, "SELECT min(seq_from), max(seq_to) FROM stream_segments") == [(1, 1200)]
    assert isinstance(stream.delta(), BookDelta)


def test_a_stop_does_not_wait_for_a_database_that_gives_no_answer(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    database = open_database(settings.timeseries_url)
    stream = Stream()
    stream.snapshot()
    with running_writer(settings, database) as first, database.transaction() as blocker:
        # With the second batch whatever a writer does at its start is over.
        for records in (stream.records[:1], stream.records[1:]):
            first.put(records)
            settled(first)
        blocker.execute("LOCK TABLE batch_counter")
        stream.records = []
        stream.delta()
        first.put(stream.records)
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        eventually(lambda: rows(database, waiting) == [(1,)], what="a commit under way")
        stream.records = []
        stream.delta()
        first.put(stream.records)
        left: list[bool] = []
        stopping = threading.Thread(target=lambda: left.append(first.stop(0.2)), daemon=True)
        stopping.start()
        stopping.join(15)
        assert left == [False]
        assert first.queued() == 0
        blocker.connection.rollback()
        # It arrived after all, and is written once more: that changes nothing.
        eventually(lambda: not first.is_alive(), what="the end of the thread that hung")
    assert count(database, "orderbook_deltas") == 1
    with running_writer(settings, database) as second:
        settled(second)
    assert rows(database, "SELECT seq FROM orderbook_deltas ORDER BY 1") == [(2,), (3,)]
    assert rows(database, "SELECT min(seq_from), max(seq_to) FROM stream_segments") == [(1, 3)]
    assert rows(database, "SELECT seq_from, seq_to, end_reason FROM book_subscriptions") == [(1, 3, "process ended")]
    assert not list((settings.folder / "spool").iterdir())


def test_with_neither_database_nor_disk_nothing_more_is_taken_and_nothing_is_lost(
    gatherer_settings: SettingsFactory,
    stoppable_server: PostgresServer,
    open_database: OpenDatabase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = gatherer_settings(
        timeseries_url=stoppable_server.url("timeseries"), flush_rows=10, queue_rows=20, flush_interval_s=0.05
    )
    database = open_database(settings.timeseries_url)
    stream = Stream()
    stoppable_server.stop()
    with running_writer(settings, database) as writer:

        def receive() -> None:
            for _ in range(60):
                stream.delta()
                writer.wait_for_room()
                writer.put(stream.records)
                stream.records = []

        receiving = threading.Thread(target=receive, daemon=True)
        with full_disk(0):
            receiving.start()
            eventually(lambda: writer.is_stalled, what="a full memory")
            # Several attempts later it is still waiting, and memory has not grown.
            eventually(lambda: writer.failures >= 3, what="more attempts")
            assert receiving.is_alive()
            assert writer.counters.records_put <= 21
        receiving.join(10)
        assert not receiving.is_alive()
        assert not writer.is_stalled
        stoppable_server.start()
        eventually(writer.is_settled, within_s=45)
    assert rows(database, "SELECT count(*), count(DISTINCT seq) FROM orderbook_deltas") == [(60, 60)]
    assert writer.counters.stalls == 1
    assert "recording_stalled" in caplog.text


def test_an_end_is_not_held_up_by_a_full_memory(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    settings = gatherer_settings(
        timeseries_url=f"postgresql://127.0.0.1:{free_port()}/none", flush_rows=2, queue_rows=2
    )
    ending = threading.Event()
    with full_disk(0), running_writer(settings, open_database(settings.timeseries_url), ending=ending) as writer:
        receiving = threading.Thread(target=lambda: writer.put(all_steps()), daemon=True)
        receiving.start()
        eventually(lambda: writer.is_stalled)
        ending.set()
        receiving.join(10)
        assert not receiving.is_alive()
        assert not writer.stop(0.1)
    assert "records_lost" in caplog.text
