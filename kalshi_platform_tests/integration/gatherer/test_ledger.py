"""A ledger that is not what the gatherer left there: fallen back, changed by somebody, or taken by another process."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import psycopg2
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.coverage.claims import claim_intervals
from kalshi_platform.errors import AnotherWriter
from kalshi_platform.gatherer.ingest.batch_writer import BatchWriter
from kalshi_platform.gatherer.ingest.fence import DIFFERS, WENT_BACK, Fence
from kalshi_platform.gatherer.ingest.ledger import Ledger
from kalshi_platform.gatherer.ingest.open_transactions import OpenTransactions
from kalshi_platform.gatherer.ingest.writer import Writer
from kalshi_platform.gatherer.ingest.writer_counters import WriterCounters
from kalshi_platform.gatherer.journal.spool import Spool
from kalshi_platform.gatherer.journal.spool_file import CorruptRange
from kalshi_platform.market.records import Record
from kalshi_platform.storage import queries
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gathered import STEPS, Stream
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.gatherer_service import RunningGatherer, client_settings, running_gatherer
from kalshi_platform_tests.fixtures.past import Past
from kalshi_platform_tests.fixtures.stack import rows
from kalshi_platform_tests.integration.gatherer.test_outages import Feed, administer, running_writer, settled
from kalshi_platform_tests.integration.gatherer.test_writer import BOUNDS

OpenDatabase = Callable[[str], Database]
OPEN = (
    "SELECT count(*) FROM book_subscriptions m JOIN streams t USING (stream_id)"
    " WHERE seq_to IS NULL AND ended_at IS NULL"
)


def kinds_into(kinds: list[str]) -> Callable[[str, str], None]:
    """A callback that keeps the kinds of alarms."""
    return lambda kind, _: kinds.append(kind)


def test_nothing_is_claimed_beyond_an_ending_that_the_database_forgot(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    url = settings.timeseries_url
    begun: list[Any] = []
    alarms: list[Any] = []
    fence = Fence(on_restart=lambda: begun.append(1))
    feed = Feed()
    with running_writer(settings, open_database(url), fence=fence, on_alarm=kinds_into(alarms)) as writer:
        feed.stream.snapshot("A")
        feed.stream.snapshot("B")
        writer.put(feed.deltas(200))
        settled(writer)
        past = Past(url)
        known = feed.stream.seq
        feed.stream.leave("A")
        writer.put(feed.take())
        settled(writer)
        assert rows(url, "SELECT seq_to FROM book_subscriptions WHERE ticker = 'A'") == [(known,)]
        past.return_to()
        writer.put(feed.deltas(5_000))
        settled(writer)
        # What the stream begins anew is followed; what it said before the fall counts as far as its rows went then.
        feed.stream.snapshot("C")
        writer.put(feed.deltas(10))
        settled(writer)
    assert (begun, alarms) == ([1], [WENT_BACK])
    assert rows(url, "SELECT ticker, seq_from, seq_to FROM book_subscriptions ORDER BY 1") == [
        ("A", 1, known), ("B", 2, known), ("C", known + 5_001, None),
    ]  # fmt: skip
    assert rows(url, "SELECT seq_to FROM stream_segments ORDER BY 1 DESC LIMIT 1") == [(feed.stream.seq,)]
    ends = {ticker: spans[-1][1] for ticker, spans in _claims(url).items()}
    last_known_us = rows(url, f"SELECT {_US} FROM orderbook_deltas WHERE seq = {known}")[0][0]
    assert ends["A"] <= last_known_us


def test_a_batch_that_another_wrote_on_top_is_seen_though_the_number_fits(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    url = settings.timeseries_url
    alarms: list[Any] = []
    feed = Feed()
    with running_writer(settings, open_database(url), on_alarm=kinds_into(alarms)) as writer:
        feed.stream.snapshot("A")
        writer.put(feed.deltas(20))
        settled(writer)
        administer(url, "UPDATE batch_counter SET owner_token = 7")
        writer.put(feed.deltas(20))
        settled(writer)
        assert alarms == [WENT_BACK]
    feed.stored(url)


def test_a_changed_ledger_is_seen_without_a_commit_and_claims_nothing_that_is_not_known(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings(ledger_compare_interval_s=0.2)
    url = settings.timeseries_url
    begun: list[Any] = []
    alarms: list[Any] = []
    fence = Fence(on_restart=lambda: begun.append(1))
    feed = Feed()
    with running_writer(settings, open_database(url), fence=fence, on_alarm=kinds_into(alarms)) as writer:
        feed.stream.snapshot("A")
        feed.stream.snapshot("B")
        feed.stream.leave("A")
        writer.put(feed.deltas(20))
        settled(writer)
        compared = writer.counters.compared_s
        eventually(lambda: writer.counters.compared_s != compared, what="a comparison")
        assert alarms == []
        administer(url, "UPDATE book_subscriptions SET seq_to = NULL WHERE ticker = 'A'")
        eventually(lambda: begun, what="every session begun anew")
    assert alarms == [DIFFERS]
    assert rows(url, "SELECT ticker, seq_from, seq_to FROM book_subscriptions ORDER BY 1") == [
        ("A", 1, 1),
        ("B", 2, 22),
    ]
    assert rows(url, "SELECT close_reason FROM sessions") == [("ledger differed",)]


def test_a_former_process_that_had_committed_more_is_remembered(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    url = settings.timeseries_url
    alarms: list[Any] = []
    with running_writer(
        settings, open_database(url), fence=Fence(former_batch_no=9), on_alarm=kinds_into(alarms)
    ) as writer:
        feed = Feed()
        feed.stream.snapshot("A")
        writer.put(feed.deltas(20))
        settled(writer)
    assert alarms == [WENT_BACK]
    feed.stored(url)


def test_what_a_killed_process_left_in_the_spool_is_ended_and_is_no_difference(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings(ledger_compare_interval_s=0.2)
    url = settings.timeseries_url
    alarms: list[Any] = []
    begun: list[Any] = []
    killed, feed = Stream(11, 1), Feed(12)
    killed.snapshot("A")
    killed.delta()
    spool = Spool(settings.folder / "spool")
    spool.append(killed.records)
    spool.close()
    feed.stream.session_id = 2
    feed.stream.records = Stream(12, 2).records
    fence = Fence(on_restart=lambda: begun.append(1))
    with running_writer(
        settings, open_database(url), own_sessions=lambda: [2], fence=fence, on_alarm=kinds_into(alarms)
    ) as writer:
        feed.stream.snapshot("B")
        writer.put(feed.deltas(20))
        settled(writer)
        eventually(lambda: rows(url, "SELECT count(*) FROM sessions WHERE closed_at IS NULL") == [(1,)], what="the end")
        compared = writer.counters.compared_s
        eventually(lambda: writer.counters.compared_s != compared, what="a comparison")
    assert (alarms, begun) == ([], [])
    assert rows(url, "SELECT ticker, seq_to FROM book_subscriptions ORDER BY 1") == [("A", 2), ("B", None)]


def test_what_could_not_be_ended_in_a_ledger_that_fell_back_is_ended_by_the_next_attempt(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    database, begun = open_database(gatherer_settings().timeseries_url), list[int]()
    fence = Fence(on_restart=lambda: begun.append(1), former_batch_no=9)
    for _ in range(2):
        with database.transaction() as transaction:
            found = fence.compare(transaction, former_is_closed=False)
            assert found is not None
            assert found[0] == WENT_BACK
            fence.end_all(transaction, found[0])
            transaction.connection.rollback()
    with database.transaction() as transaction:
        found = fence.compare(transaction, former_is_closed=False)
        assert found is not None
        fence.end_all(transaction, found[0])
    # It was committed, and nobody was told: the connection broke before.
    assert begun == []
    with database.transaction() as transaction:
        assert fence.compare(transaction, former_is_closed=True) is None
    assert (begun, fence.batch_no) == ([1], 0)


def test_a_process_without_the_name_changes_nothing_in_the_ledger(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase, tmp_path: Path
) -> None:
    settings = gatherer_settings(ledger_compare_interval_s=0.2)
    url = settings.timeseries_url
    administer(url, "UPDATE batch_counter SET owner = 1")
    feed, other = Feed(11), Feed(12)
    with running_writer(settings, open_database(url), fence=Fence(1)) as writer:
        feed.stream.snapshot("A")
        writer.put(feed.deltas(20))
        settled(writer)
        disowned: list[int] = []
        second = Writer(
            settings, open_database(url), BOUNDS, SYSTEM_CLOCK, Spool(tmp_path / "second"),
            fence=Fence(2, lambda: disowned.append(1)),
        )  # fmt: skip
        second.start()
        try:
            other.stream.snapshot("B")
            second.put(other.deltas(20))
            eventually(lambda: disowned and second.counters.spooled, what="the second one refused")
            writer.put(feed.deltas(20))
            settled(writer)
        finally:
            second.stop(10)
        assert not second.is_settled()
    assert rows(url, "SELECT ticker, seq_to FROM book_subscriptions") == [("A", None)]
    assert rows(url, "SELECT count(*) FROM orderbook_deltas") == [(40,)]
    feed.stored(url)


def test_a_gatherer_whose_database_fell_back_follows_and_claims_everything_again(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    settings = gatherer_settings()
    past = Past(settings.timeseries_url)
    with (
        running_exchange(tmp_path, markets=10, rate=100) as exchange,
        running_gatherer(settings, exchange) as gatherer,
    ):
        gatherer.follows(10)
        eventually(lambda: gatherer.value(OPEN) == 10, what="ten subscriptions in the ledger")
        past.return_to()
        eventually(
            lambda: gatherer.status.alarms.get(WENT_BACK) == 1, within_s=60, what="the alarm"
        )  # fmt: skip
        eventually(
            lambda: gatherer.status.followed_markets == 10 and gatherer.value(OPEN) == 10,
            within_s=60, what="ten subscriptions in the ledger again",
        )  # fmt: skip
        told = gatherer.status
        assert (told.health, told.reasons) == ("degraded", [])
        assert any(WENT_BACK in text for text in told.troubles), told.troubles
        assert told.ledger is not None
        assert told.ledger.subscriptions == 10


def test_a_second_process_cut_off_at_its_start_leaves_the_ledger_of_the_first_alone(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    settings = gatherer_settings()
    parts = urlsplit(settings.timeseries_url)
    administer(settings.timeseries_url, "CREATE ROLE cut_off LOGIN PASSWORD 'x' CONNECTION LIMIT 0")
    try:
        administer(settings.timeseries_url, f"GRANT {parts.username} TO cut_off")
        second_url = parts._replace(netloc=f"cut_off:x@{parts.hostname}:{parts.port}").geturl()
        second_settings = gatherer_settings(
            timeseries_url=second_url, catalog_url=settings.catalog_url, state_dir=tmp_path / "second"
        )
        with (
            running_exchange(tmp_path, markets=5, rate=50) as exchange,
            running_gatherer(settings, exchange) as gatherer,
        ):
            gatherer.follows(5)
            eventually(lambda: gatherer.value(OPEN) == 5, what="five subscriptions in the ledger")
            second = RunningGatherer(second_settings, client_settings(exchange))
            second.follows(5)
            eventually(lambda: second.writer.spooled, what="the second one recording to its spool")
            administer(settings.timeseries_url, "ALTER ROLE cut_off CONNECTION LIMIT -1")
            second.join(60)
            assert isinstance(second.error, AnotherWriter)
            assert gatherer.value(OPEN) == 5
            assert gatherer.value("SELECT count(DISTINCT session_id) FROM sessions WHERE closed_at IS NOT NULL") == 0
            assert not gatherer.status.alarms.get(WENT_BACK)
    finally:
        administer(settings.timeseries_url, "DROP ROLE cut_off")


def test_two_gatherers_on_one_database_are_not_two_observers(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    settings = gatherer_settings()
    with (
        running_exchange(tmp_path, markets=2, rate=0) as exchange,
        running_gatherer(settings, exchange) as gatherer,
    ):
        gatherer.follows(2)
        second = RunningGatherer(
            gatherer_settings("g2", timeseries_url=settings.timeseries_url), client_settings(exchange)
        )
        second.join(60)
        with pytest.raises(AnotherWriter, match="gatherer g1 writes into"):
            raise second.error or AssertionError("it went on")
        assert gatherer.value("SELECT count(*) FROM heartbeats WHERE service = 'gatherer/g2'") == 0


_US = "(extract(epoch FROM exchange_ts) * 1000000)::bigint"


def _claims(url: str) -> dict[str, list[tuple[int, int]]]:
    book_subscriptions = pl.DataFrame(
        rows(url, "SELECT stream_id, ticker, exchange_index, seq_from, seq_to FROM book_subscriptions"),
        schema=["stream_id", "ticker", "exchange_index", "seq_from", "seq_to"], orient="row",
    )  # fmt: skip
    segments = pl.DataFrame(
        rows(url, "SELECT stream_id, seq_from, seq_to FROM stream_segments"),
        schema=["stream_id", "seq_from", "seq_to"], orient="row",
    )  # fmt: skip
    deltas = pl.DataFrame(
        rows(url, f"SELECT seq, {_US}, ticker, 0 FROM orderbook_deltas"),
        schema=["seq", "exchange_us", "ticker", "exchange_index"], orient="row",
    )  # fmt: skip
    return claim_intervals(book_subscriptions, segments, deltas, 10_000)


@pytest.mark.parametrize("seed", range(4))
def test_no_alarm_comes_however_batches_are_cut_and_repeated(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase, seed: int
) -> None:
    url = gatherer_settings().timeseries_url
    chance, alarms, counters = random.Random(seed), list[str](), WriterCounters()
    committer = BatchWriter(
        "g1", open_database(url), BOUNDS, SYSTEM_CLOCK, counters, Fence(), on_alarm=kinds_into(alarms)
    )  # fmt: skip
    committer.close_former([])
    sides = [_Side(Stream(11, 1), chance), _Side(Stream(12, 2), chance)]
    for number in range(10):
        batch = [record for side in sides for record in side.go_on(last=number == 8)]
        committer.commit(batch, repeated=False)
        committer.compare()
        if chance.random() < 0.5:
            # As after a commit of which nobody knows whether it arrived: the same again, in other parts.
            middle = chance.randrange(len(batch) + 1)
            for part in (batch[:middle], batch[middle:]):
                committer.commit(part, repeated=True)
                committer.compare()
        if number == 5:
            committer.record_spool_corruption(
                CorruptRange("0001.spool", 0, 10, "torn", b"", 0, is_torn=True), [1, 2], is_own=True
            )
            committer.compare()
        assert alarms == [], (seed, number, counters.ledger_alarm)
    assert rows(url, "SELECT count(*) FROM book_subscriptions WHERE seq_to IS NULL") == [(0,)]
    assert rows(url, "SELECT count(*) FROM sessions WHERE closed_at IS NULL") == [(0,)]


class _Side:
    """A stream that does what a session does, by chance."""

    def __init__(self, stream: Stream, chance: random.Random) -> None:
        self._stream = stream
        self._chance = chance
        self._followed: set[str] = set()
        self._is_over = False

    def go_on(self, *, last: bool) -> list[Record]:
        stream, followed = self._stream, self._followed
        for _ in range(0 if self._is_over else self._chance.randrange(15)):
            step, ticker = self._chance.choice(STEPS), self._chance.choice("ABC")
            if step in ("snapshot", "again"):
                (stream.again if ticker in followed else stream.snapshot)(ticker)
                followed.add(ticker)
            elif step == "leave":
                if ticker in followed:
                    stream.leave(ticker)
                    followed.discard(ticker)
            elif step == "gap":
                stream.gap(sorted(followed))
                followed.clear()
            else:
                stream.step(step)
        if last:
            for ticker in sorted(followed):
                stream.leave(ticker)
            stream.close()
            self._is_over = True
        taken, stream.records = stream.records, []
        return taken


def test_a_transaction_left_open_makes_no_batch_number_dearer(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    database = open_database(gatherer_settings().timeseries_url)
    with database.transaction() as transaction:
        # New statistics may let the planner read the whole table while that is the cheaper way.
        transaction.execute("ALTER TABLE batch_counter SET (autovacuum_enabled = off)")
    fence = Fence()
    lock, update = queries.load("gatherer")["next_own_batch"].split(";")

    def pages() -> list[int]:
        """What the statements of one batch read; nothing is changed by it."""
        told = []
        with database.transaction() as transaction:
            values = {"%(owner)s": "NULL", "%(last)s": str(fence._token), "%(token)s": "1"}
            changed = update
            for name, value in values.items():
                changed = changed.replace(name, value)
            for statement in (lock, changed, "SELECT batch_token()"):
                ((plan,),) = transaction.fetch_all(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}")
                told.append(int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]))
            assert transaction.fetch_one("SELECT max(owner_token) FROM batch_counter WHERE owner_token < 2") == (1,)
            transaction.connection.rollback()
        return told

    def commit(times: int) -> None:
        for _ in range(times):
            with database.transaction() as transaction:
                transaction.execute("SET LOCAL synchronous_commit = off")
                fence.next_batch(transaction, Ledger())
            fence.confirm()

    with database.transaction(isolation="REPEATABLE READ") as left_open:
        left_open.fetch_one("SELECT count(*) FROM batches")
        commit(300)
        before = pages()
        commit(2_000)
        after = pages()
    assert all(later <= earlier + 5 for earlier, later in zip(before, after, strict=True)), (before, after)


def test_an_open_transaction_is_reported_with_the_remedy(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings, alarms = gatherer_settings(), list[str]()
    database, clock = open_database(settings.timeseries_url), FakeClock()
    watch = OpenTransactions("g1", database, clock, kinds_into(alarms), open_for_s=0.0)
    watch.check()
    assert watch.problems() == []
    forgotten = psycopg2.connect(settings.timeseries_url, application_name="psql of somebody")
    try:
        with forgotten.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid(), txid_current()")
            (pid, _) = cursor.fetchone() or (0, 0)
        watch.check()
        assert watch.problems() == [], "asked once a minute"
        for _ in range(2):
            clock.step(60.0)
            watch.check()
        (told,) = watch.problems()
        assert told.startswith(f"pid {pid} (psql of somebody, idle in transaction) keeps a transaction open for")
        assert told.endswith(f"End it: SELECT pg_terminate_backend({pid})")
        assert alarms == ["open_transaction"]
    finally:
        forgotten.close()
    clock.step(60.0)
    eventually(lambda: not rows(settings.timeseries_url, f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"))
    watch.check()
    assert watch.problems() == []
