"""The gatherer as a service: its start, its end, its name, outages and kills."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import AnotherWriter, SchemaMismatch
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.gatherer.on_demand import poll_books
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.reports import BooksPolled, StreamsCommitted
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.gatherer.switch import run_while_enabled
from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform.local.postgres.server import PostgresServer
from kalshi_platform.monitoring.heartbeat import Heartbeat, read_file
from kalshi_platform.storage.migrate import migrate
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.gatherer_service import (
    BOUNDS,
    RunningGatherer,
    client_settings,
    running_gatherer,
)
from kalshi_platform_tests.fixtures.past import Past
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.stack import clean_environment, command, rows

Delta = tuple[str, str, int, int, int]


def published(exchange: ServerThread) -> Counter[Delta]:
    """Every delta of the exchange's ledger so far: (ticker, side, price_e4, delta_e2, exchange_ts_us)."""
    exchange.flush_truth()
    folder = exchange.settings.truth
    assert folder is not None
    parts = [pq.read_table(path) for path in sorted(folder.glob("deltas-*.parquet"))]
    table = pa.concat_tables(parts).select(["ticker", "side", "price_e4", "delta_e2", "exchange_ts_us"])
    return Counter(tuple(row.values()) for row in table.to_pylist())


def recorded(url: str) -> Counter[Delta]:
    """Every delta in a timeseries database."""
    query = (
        "SELECT ticker, side, price_e4, delta_e2, (extract(epoch FROM exchange_ts) * 1000000)::bigint"
        " FROM orderbook_deltas"
    )
    return Counter(rows(url, query))


def test_an_inactive_exchange_is_waited_for_until_it_is_back(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with running_exchange(tmp_path, markets=2, rate=0) as exchange:
        exchange.fault("exchange_inactive", seconds=3_600)
        with running_gatherer(gatherer_settings(status_wait_max_s=0.5), exchange) as gatherer:
            eventually(lambda: "inactive" in gatherer.status.note, what="the wait is told")
            (reason,) = gatherer.status.reasons
            assert reason.startswith("it waits for the exchange: exchange inactive, expected back: 20")
            assert gatherer.value("SELECT count(*) FROM sessions") == 0
            exchange.clear_faults()
            gatherer.follows(2)


def test_a_trading_pause_is_no_stop(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    with running_exchange(tmp_path, markets=2, rate=0) as exchange:
        exchange.fault("exchange_pause", seconds=60)
        with running_gatherer(gatherer_settings(), exchange) as gatherer:
            gatherer.follows(2)


def test_a_failing_rest_api_delays_the_start_but_does_not_end_it(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with running_exchange(tmp_path, markets=2, rate=0) as exchange:
        exchange.fault("rest_status", path="/exchange/status", status=500, count=4)
        exchange.fault("rest_status", path="/markets", status=503, count=4)
        with running_gatherer(gatherer_settings(), exchange, max_attempts=3) as gatherer:
            gatherer.follows(2, within_s=25)


def test_every_followed_market_has_a_rest_book_for_every_interval(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with running_exchange(tmp_path, markets=130, rate=100, read_refill_rate=5_000) as exchange:
        with running_gatherer(gatherer_settings(snapshot_interval_s=1.0), exchange) as gatherer:
            gatherer.follows(130)
            polls = "SELECT snapshot_ts, count(*) FROM orderbook_snapshots WHERE source = 'rest' GROUP BY 1 ORDER BY 1"
            eventually(lambda: len(gatherer.rows(polls)) >= 4, what="four polls")
        found = gatherer.rows(polls)
        moments = [moment.timestamp() for moment, _ in found]
        assert {count for _, count in found[1:-1]} == {130}
        assert moments == [moments[0] + second for second in range(len(moments))]
        poll = next(report for report in gatherer.reports if isinstance(report, BooksPolled))
        assert (poll.subscribed, poll.stored, poll.skipped, poll.requests) == (130, 130, 0, 2)
        ages = gatherer.rows(
            "SELECT bool_and(requested_at <= received_at AND snapshot_ts <= requested_at)"
            " FROM orderbook_snapshots WHERE source = 'rest'"
        )
        assert ages == [(True,)]


def test_books_can_be_polled_on_demand_beside_a_running_service(
    gatherer_settings: SettingsFactory, tmp_path: Path, open_database: Callable[[str], Database]
) -> None:
    settings = gatherer_settings()
    with running_exchange(tmp_path, markets=3, rate=50) as exchange, running_gatherer(settings, exchange) as gatherer:
        gatherer.follows(3)
        rest = RestClient(client_settings(exchange), SYSTEM_CLOCK)
        timeseries, catalog = open_database(settings.timeseries_url), open_database(settings.catalog_url)
        report = poll_books(settings, rest, SYSTEM_CLOCK, BOUNDS, timeseries, catalog)
        assert (report.asked, report.stored, report.failed) == (3, 3, 0)
        assert gatherer.value("SELECT count(DISTINCT ticker) FROM orderbook_snapshots WHERE source = 'rest'") == 3


def test_a_second_process_of_the_name_is_refused(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    settings = gatherer_settings()
    elsewhere = gatherer_settings(
        timeseries_url=settings.timeseries_url, catalog_url=settings.catalog_url, state_dir=tmp_path / "elsewhere"
    )
    with running_exchange(tmp_path, markets=2, rate=0) as exchange, running_gatherer(settings, exchange) as gatherer:
        gatherer.follows(2)
        for second_settings in (settings, elsewhere):
            second = RunningGatherer(second_settings, client_settings(exchange))
            second.join(30)
            assert isinstance(second.error, AnotherWriter)
        gatherer.follows(2)
        assert gatherer.value("SELECT state FROM heartbeats") == "running"


def test_the_off_switch_ends_the_service_cleanly(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    with running_exchange(tmp_path, markets=2, rate=20) as exchange:
        gatherer = RunningGatherer(gatherer_settings(), client_settings(exchange))
        gatherer.follows(2)
        execute(
            gatherer.settings.timeseries_url,
            "INSERT INTO service_switches (service, enabled, reason) VALUES ('gatherer/g1', false, 'a test')",
        )
        gatherer.join()
        assert gatherer.error is None
        assert gatherer.rows("SELECT state FROM heartbeats") == [("stopped",)]
        assert gatherer.value("SELECT count(*) FROM sessions WHERE closed_at IS NULL") == 0
        again = RunningGatherer(gatherer.settings, client_settings(exchange))
        again.join()
        assert again.error is None
        assert again.value("SELECT count(*) FROM sessions") == gatherer.value("SELECT count(*) FROM sessions")


def test_a_database_without_our_tables_is_refused_by_name(
    gatherer_settings: SettingsFactory, database_factory: DatabaseFactory, tmp_path: Path
) -> None:
    with running_exchange(tmp_path, markets=2, rate=0) as exchange:
        settings = gatherer_settings(timeseries_url=database_factory())
        gatherer = RunningGatherer(settings, client_settings(exchange))
        gatherer.join()
        assert isinstance(gatherer.error, SchemaMismatch)


def test_heartbeat_row_file_and_report_tell_the_same_story(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    with running_exchange(tmp_path, markets=2, rate=100) as exchange:
        with running_gatherer(gatherer_settings(), exchange) as gatherer:
            gatherer.follows(2)
            eventually(lambda: gatherer.value("SELECT count(*) FROM orderbook_deltas") > 20)
            eventually(lambda: gatherer.rows("SELECT state FROM heartbeats") == [("running",)])
            eventually(lambda: followed(gatherer.settings) == 2, what="both books in the file")
            beat = heartbeat_of(gatherer.settings)
            assert beat is not None
            assert (beat.service, beat.state) == ("gatherer/g1", "running")
            content = gatherer.settings.heartbeat_file.read_text()
        (row,) = gatherer.rows("SELECT service, state, details FROM heartbeats")
        assert row[:2] == ("gatherer/g1", "stopped")
        deltas = gatherer.value("SELECT count(*) FROM orderbook_deltas")
        assert row[2]["ingest"]["rows"]["orderbook_deltas"] == deltas
        assert row[2]["ingest"]["lag_p99_ms"] > 0
        assert row[2]["ingest"]["behind_bytes"] == 0
        streams = [report for report in gatherer.reports if isinstance(report, StreamsCommitted)]
        assert sum(report.rows.get("orderbook_deltas", 0) for report in streams) == deltas
    assert gatherer.settings.timeseries_url not in content


AWAY_S = float(os.environ.get("KALSHI_AWAY_S", "1"))


@contextlib.contextmanager
def stopped(server: PostgresServer, _: str) -> Iterator[None]:
    server.stop("immediate")
    yield
    server.start()


@contextlib.contextmanager
def restored(_: PostgresServer, url: str) -> Iterator[None]:
    """What came meanwhile is gone, as after a restore or a failover to a lagging replica."""
    past = Past(url)
    yield
    past.return_to()


@contextlib.contextmanager
def replaced_by_an_empty_one(server: PostgresServer, url: str) -> Iterator[None]:
    server.create_database("empty")
    database = Database(server.url("empty"), name="empty")
    migrate(database, "timeseries")
    database.dispose()
    yield
    name = urlsplit(url).path.lstrip("/")
    for statement in (
        f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'",
        f"DROP DATABASE {name} WITH (FORCE)",
        f"ALTER DATABASE empty RENAME TO {name}",
    ):
        execute_alone(server.url("postgres"), statement)


@pytest.mark.parametrize("lose", [stopped, restored, replaced_by_an_empty_one], ids=["stopped", "restored", "empty"])
def test_nothing_is_lost_doubled_or_claimed_in_vain_whatever_happens_to_the_database(
    lose: Callable[[PostgresServer, str], contextlib.AbstractContextManager[None]],
    gatherer_settings: SettingsFactory,
    stoppable_server: PostgresServer,
    tmp_path: Path,
) -> None:
    """Under load; KALSHI_AWAY_S is for how long (30, for example: the default is short)."""
    url = stoppable_server.url("timeseries")
    settings = gatherer_settings(
        timeseries_url=url, catalog_url=stoppable_server.url("catalog"), ledger_compare_interval_s=0.5
    )
    with running_exchange(tmp_path, markets=8, rate=0, truth=tmp_path / "truth") as exchange:
        with running_gatherer(settings, exchange) as gatherer:
            gatherer.follows(8)
            exchange.rate(400)
            eventually(lambda: gatherer.value("SELECT count(*) FROM orderbook_deltas") > 200)
            with lose(stoppable_server, url):
                frames = gatherer.status.connections["books-0"].frames
                time.sleep(AWAY_S)
                eventually(lambda: gatherer.status.connections["books-0"].frames > frames + 200, what="more frames")
            eventually(lambda: gatherer.ingest.is_current, within_s=45, what="the end of the lag")
            exchange.rate(0)
            eventually(lambda: recorded(url) == published(exchange), within_s=60, what="all deltas, each once")
            eventually(lambda: gatherer.value(OPEN_BOOKS) == 8, what="all books claimed")
            went_back = gatherer.status.alarms.get("database_went_back", 0)
            assert went_back == (lose is not stopped)
        assert gatherer.value("SELECT count(*) FROM sequence_gaps") == 0
        assert gatherer.value("SELECT count(*) FROM sessions") == 2
        assert gatherer.value("SELECT count(*) FROM book_subscriptions WHERE end_reason <> 'stopped'") == 0
    assert sum(recorded(url).values()) > 400


OPEN_BOOKS = "SELECT count(*) FROM book_subscriptions WHERE seq_to IS NULL"


def test_capture_begins_although_both_databases_are_away(
    gatherer_settings: SettingsFactory, stoppable_server: PostgresServer, tmp_path: Path
) -> None:
    settings = gatherer_settings(
        timeseries_url=stoppable_server.url("timeseries"), catalog_url=stoppable_server.url("catalog")
    )
    stoppable_server.stop()
    with running_exchange(tmp_path, markets=5, rate=0, truth=tmp_path / "truth") as exchange:
        with running_gatherer(settings, exchange) as gatherer:
            gatherer.follows(5)
            exchange.rate(300)
            eventually(lambda: gatherer.ingest.behind_bytes > 50_000)
            exchange.rate(0)
            stoppable_server.start()
            eventually(lambda: gatherer.ingest.behind_bytes == 0, within_s=45, what="the end of the lag")
            eventually(lambda: gatherer.catalog("SELECT count(*) FROM markets") > [(4,)], what="the catalog, too")
        assert recorded(settings.timeseries_url) == published(exchange)


# -- as a process


def process_environment(settings: GathererSettings, exchange: ServerThread) -> dict[str, str]:
    return clean_environment(
        KALSHI_GATHERERS="g1",
        KALSHI_G1_TIMESERIES_DATABASE_URL=settings.timeseries_url,
        KALSHI_G1_CATALOG_DATABASE_URL=settings.catalog_url,
        KALSHI_REST_URL=exchange.rest_url,
        KALSHI_WS_URL=exchange.ws_url,
        KALSHI_API_KEY_ID=exchange.key_id,
        KALSHI_PRIVATE_KEY_PATH=str(exchange.key_file),
        KALSHI_STATE_DIR=str(settings.state_dir),
    )


def heartbeat_of(settings: GathererSettings) -> Heartbeat[GathererStatus] | None:
    return read_file(settings.heartbeat_file, GathererStatus)


def followed(settings: GathererSettings) -> int:
    beat = heartbeat_of(settings)
    return 0 if beat is None else beat.details.followed_markets or 0


def test_after_kill_9_the_ledger_claims_only_what_was_committed(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    settings = gatherer_settings()
    with running_exchange(tmp_path, markets=6, rate=800) as exchange:
        environment = process_environment(settings, exchange)
        with command(["gather", "g1"], environment, tmp_path, tmp_path / "first.log") as process:
            eventually(lambda: rows(settings.timeseries_url, "SELECT count(*) > 500 FROM orderbook_deltas")[0][0],
                       within_s=40, what="deltas of the first process")  # fmt: skip
            process.kill()
            process.wait(10)
        assert rows(settings.timeseries_url, "SELECT count(*) FROM sessions WHERE closed_at IS NULL") == [(2,)]
        exchange.rate(0)
        with command(["gather", "g1"], environment, tmp_path, tmp_path / "second.log") as process:
            eventually(lambda: followed(settings) == 6, within_s=40, what="all books followed again")
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
    reasons = rows(settings.timeseries_url, "SELECT close_reason, count(*) FROM sessions GROUP BY 1 ORDER BY 1")
    assert reasons == [("gatherer ended", 2), ("stopped", 2)]
    # Every number a segment claims is a row or a frame that made none: here only snapshots and deltas were sent.
    claimed = rows(
        settings.timeseries_url,
        "SELECT g.stream_id, sum(g.seq_to - g.seq_from + 1)::bigint"
        " FROM stream_segments g JOIN streams USING (stream_id)"
        " WHERE channel = 'orderbook_delta' GROUP BY 1 ORDER BY 1",
    )
    there = rows(
        settings.timeseries_url,
        "SELECT stream_id, count(*) FROM (SELECT stream_id, seq FROM orderbook_deltas UNION ALL"
        " SELECT stream_id, seq FROM orderbook_snapshots WHERE source = 'ws') r GROUP BY 1 ORDER BY 1",
    )
    assert claimed == there
    beyond = rows(
        settings.timeseries_url,
        "SELECT count(*) FROM book_subscriptions m WHERE m.seq_to IS NULL OR m.seq_to >"
        " (SELECT max(seq_to) FROM stream_segments g WHERE g.stream_id = m.stream_id)",
    )
    assert beyond == [(0,)]


def test_the_command_ends_with_codes_that_mean_something(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    settings = gatherer_settings()
    with running_exchange(tmp_path, markets=2, rate=0) as exchange:
        environment = process_environment(settings, exchange)
        # A shell that starts a job in the background leaves SIGINT ignored: the gatherer must hear it nevertheless.
        first = subprocess.Popen(
            ["sh", "-c", 'trap "" INT; exec "$0" "$@"', sys.executable, "-m", "kalshi_platform.cli", "gather", "g1"],
            env=environment,
            cwd=tmp_path,
            stderr=subprocess.PIPE,
        )
        try:
            eventually(lambda: followed(settings) == 2, within_s=40, what="the first process")
            second = subprocess.run(
                [sys.executable, "-m", "kalshi_platform.cli", "gather", "g1"],
                env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert second.returncode == 3, second.stderr
            assert "another process" in second.stderr
            first.send_signal(signal.SIGINT)
            _, errors = first.communicate(timeout=30)
            assert first.returncode == 0, errors
        finally:
            if first.poll() is None:
                first.kill()
                first.wait()
    incomplete = {key: value for key, value in environment.items() if key != "KALSHI_G1_CATALOG_DATABASE_URL"}
    third = subprocess.run(
        [sys.executable, "-m", "kalshi_platform.cli", "gather", "g1"],
        env=incomplete, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert third.returncode == 2
    assert "KALSHI_G1_CATALOG_DATABASE_URL" in third.stderr


def test_a_stop_is_heard_while_the_name_is_still_held_by_another(
    gatherer_settings: SettingsFactory, tmp_path: Path, open_database: Callable[[str], Database]
) -> None:
    settings = gatherer_settings(lease_patience_s=600.0)
    with (
        running_exchange(tmp_path, markets=2, rate=0) as exchange,
        open_database(settings.timeseries_url).advisory_lock("gatherer", "g1") as lock,
    ):
        assert lock is not None
        gatherer = RunningGatherer(settings, client_settings(exchange))
        eventually(lambda: gatherer.service.parts.lock.is_refused, what="the refusal")
        gatherer.stop_event.set()
        gatherer.join(10)
        assert gatherer.error is None
        assert gatherer.rows("SELECT * FROM heartbeats") == []


def test_a_former_holder_leaves_the_heartbeat_row_to_the_new_one(
    gatherer_settings: SettingsFactory, tmp_path: Path, open_database: Callable[[str], Database]
) -> None:
    settings = gatherer_settings(lease_patience_s=2.0, heartbeat_interval_s=0.5)
    database = open_database(settings.timeseries_url)
    with running_exchange(tmp_path, markets=2, rate=0) as exchange:
        gatherer = RunningGatherer(settings, client_settings(exchange))
        gatherer.follows(2)
        with contextlib.ExitStack() as stack:

            def taken_over() -> bool:
                rows(
                    settings.timeseries_url,
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database ="
                    " (SELECT oid FROM pg_database WHERE datname = current_database())",
                )
                return stack.enter_context(database.advisory_lock("gatherer", "g1")) is not None

            eventually(taken_over, what="the lock")
            execute(settings.timeseries_url, "UPDATE heartbeats SET state = 'the other'")
            gatherer.join()
        assert isinstance(gatherer.error, AnotherWriter)
        assert gatherer.rows("SELECT state FROM heartbeats") == [("the other",)]


def test_no_state_says_running_after_the_stop(
    gatherer_settings: SettingsFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_exchange(tmp_path, markets=2, rate=0) as exchange, caplog.at_level(logging.INFO):
        exchange.fault("rest_status", path="/markets", status=503, count=10_000)
        gatherer = RunningGatherer(gatherer_settings(), client_settings(exchange, max_attempts=1))
        eventually(lambda: "catalog_sync_failed" in caplog.text, what="a sync that goes on")
        gatherer.stop()
    assert gatherer.error is None
    states = [text.rpartition("state=")[2] for text in caplog.messages if text.startswith("state_changed ")]
    assert states[-2:] == ["stopping", "stopped"]
    assert "running" not in states


def test_a_gatherer_that_waits_when_switched_off_records_again_when_switched_on(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    settings, stop = gatherer_settings(), threading.Event()
    url = settings.timeseries_url
    execute(url, "INSERT INTO service_switches (service, enabled) VALUES ('gatherer/g1', false)")
    with running_exchange(tmp_path, markets=2, rate=50) as exchange:
        waiting = threading.Thread(
            target=lambda: run_while_enabled(settings, client_settings(exchange), SYSTEM_CLOCK, BOUNDS, stop),
            daemon=True,
        )
        waiting.start()
        try:
            eventually(lambda: states(settings) == ("switched off", "switched off"), what="the wait")
            before = rows(url, "SELECT at FROM heartbeats")
            eventually(lambda: rows(url, "SELECT at FROM heartbeats") > before, what="a heartbeat while it waits")
            assert rows(url, "SELECT count(*) FROM sessions") == [(0,)]
            execute(url, "UPDATE service_switches SET enabled = true")
            eventually(lambda: followed(settings) == 2, what="both books followed")
            execute(url, "UPDATE service_switches SET enabled = false")
            eventually(lambda: states(settings) == ("switched off", "switched off"), what="the wait after recording")
            assert rows(url, "SELECT count(*) FROM sessions WHERE closed_at IS NULL") == [(0,)]
            assert waiting.is_alive()
        finally:
            stop.set()
            waiting.join(20)
        assert not waiting.is_alive()


def test_the_command_waits_when_switched_off_and_ends_on_request(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    settings = gatherer_settings()
    execute(settings.timeseries_url, "INSERT INTO service_switches (service, enabled) VALUES ('gatherer/g1', false)")
    with running_exchange(tmp_path, markets=2, rate=0) as exchange:
        environment = process_environment(settings, exchange)
        with command(["gather", "g1"], environment, tmp_path, tmp_path / "gather.log") as process:
            eventually(lambda: states(settings)[1] == "switched off", within_s=40, what="the wait")
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def states(settings: GathererSettings) -> tuple[str | None, str | None]:
    """What the heartbeat's file and its row say."""
    beat = heartbeat_of(settings)
    row = rows(settings.timeseries_url, "SELECT state FROM heartbeats")
    return None if beat is None else beat.state, str(row[0][0]) if row else None


def test_the_polls_leave_an_account_of_their_resolution(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    with running_exchange(tmp_path, markets=3, rate=0) as exchange:
        with running_gatherer(gatherer_settings(snapshot_interval_s=1.0), exchange) as gatherer:
            gatherer.follows(3)
            eventually(lambda: gatherer.value("SELECT count(*) FROM snapshot_polls") >= 2, what="two polls")
            assert (gatherer.poller_status.oldest_age_s or 0.0) < 5
        polls = gatherer.rows(
            "SELECT minute, markets_desired, markets_requested, markets_answered, markets_failed, requests, tokens,"
            " started_at >= minute, finished_at >= started_at, oldest_age_s BETWEEN 0 AND 5"
            " FROM snapshot_polls ORDER BY minute"
        )
        assert {poll[1:] for poll in polls[1:]} == {(3, 3, 3, 0, 1, 10.0, True, True, True)}
        reported = {report.minute for report in gatherer.reports if isinstance(report, BooksPolled)}
        assert {poll[0] for poll in polls} == reported


def test_a_frozen_server_does_not_hold_up_the_end(
    gatherer_settings: SettingsFactory, stoppable_server: PostgresServer, tmp_path: Path
) -> None:
    url = stoppable_server.url("timeseries")
    settings = gatherer_settings(timeseries_url=url, catalog_url=stoppable_server.url("catalog"), stop_timeout_s=1.0)
    with running_exchange(tmp_path, markets=4, rate=0, truth=tmp_path / "truth") as exchange:
        with running_gatherer(settings, exchange) as gatherer:
            gatherer.follows(4)
            exchange.rate(200)
            eventually(lambda: gatherer.value("SELECT count(*) FROM orderbook_deltas") > 50)
            # Frozen, its connections stay open: nothing but the silence tells.
            server = [pid for (pid,) in rows(url, "SELECT pid FROM pg_stat_activity")]
            server += [int(file.read_text().split()[0]) for file in stoppable_server.data_dir.rglob("postmaster.pid")]
            with frozen(server):
                eventually(lambda: gatherer.ingest.behind_bytes > 10_000, what="frames that wait for the server")
                exchange.rate(0)
                frames = sum(published(exchange).values())
                eventually(lambda: gatherer.status.connections["books-0"].frames >= frames + 5, what="all frames")
                gatherer.stop_event.set()
                gatherer.join(20)
        with running_gatherer(settings, exchange) as again:
            again.follows(4)
            eventually(lambda: again.ingest.behind_bytes == 0, what="the rest of the journal")
        assert recorded(url) == published(exchange)


@contextlib.contextmanager
def frozen(pids: Sequence[int]) -> Iterator[None]:
    """Stop processes without ending them."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_a_stopped_service_leaves_no_thread(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    with running_exchange(tmp_path, markets=2, rate=0) as exchange:
        with running_gatherer(gatherer_settings("gx"), exchange) as gatherer:
            gatherer.follows(2)
            names = {thread.name for thread in threading.enumerate() if thread.name.startswith("gx ")}
            assert {"gx ingest", "gx feed", "gx books-0", "gx heartbeat", "gx snapshots"} <= names
        eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("gx ")], what="all threads gone")


def execute_alone(url: str, statement: str) -> None:
    """Execute outside of a transaction."""
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


def execute(url: str, statement: str) -> None:
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()
