"""Wrong passwords, databases and clocks: one clear message each, and capture goes on wherever it can."""

from __future__ import annotations

import json
import logging
import threading
import urllib.error
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import ConfigurationError, KalshiPlatformError, SchemaMismatch
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.local.postgres.server import PostgresServer
from kalshi_platform.local.processes.ports import free_port
from kalshi_platform.local.status_lines import gatherer_lines
from kalshi_platform.monitoring.heartbeat import encode
from kalshi_platform.monitoring.settings import EndpointSettings
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.gatherer_service import RunningGatherer, client_settings, running_gatherer

SECRET = "not-the-password"


class ShiftedClock:
    """The machine's clock, wrong by some seconds."""

    def __init__(self, ahead_s: float) -> None:
        self._ahead_s = ahead_s

    def now(self) -> datetime:
        return SYSTEM_CLOCK.now() + timedelta(seconds=self._ahead_s)

    def now_ns(self) -> int:
        return SYSTEM_CLOCK.now_ns() + int(self._ahead_s * 1e9)

    def monotonic(self) -> float:
        return SYSTEM_CLOCK.monotonic()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        return SYSTEM_CLOCK.wait(stop, seconds)

    def pace(self) -> float:
        return SYSTEM_CLOCK.pace()


def with_login(url: str, user: str, password: str) -> str:
    """The URL with another login."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}").geturl()


def administer(server: PostgresServer, *statements: str) -> None:
    """Run statements as the server's owner, outside of the database they are about."""
    connection = psycopg2.connect(server.url("postgres"))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    finally:
        connection.close()


def refused(settings: GathererSettings, exchange: Any) -> KalshiPlatformError:
    """Start a gatherer; return what it ended with."""
    gatherer = RunningGatherer(settings, client_settings(exchange))
    gatherer.join(20)
    assert isinstance(gatherer.error, KalshiPlatformError)
    return gatherer.error


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_refused_login_and_an_unknown_database_end_a_start_and_name_the_settings(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    good = gatherer_settings()
    user = urlsplit(good.timeseries_url).username or ""
    names = {
        "timeseries_setting": "KALSHI_G1_TIMESERIES_DATABASE_URL",
        "catalog_setting": "KALSHI_G1_CATALOG_DATABASE_URL",
    }
    with running_exchange(tmp_path, markets=1, rate=0) as exchange:
        settings = gatherer_settings(
            timeseries_url=with_login(good.timeseries_url, user, SECRET),
            catalog_url=urlsplit(good.catalog_url)._replace(path="/no_such_one").geturl(),
            **names,
        )
        error = refused(settings, exchange)
    assert isinstance(error, ConfigurationError)
    password, database = error.problems
    assert password.startswith("KALSHI_G1_TIMESERIES_DATABASE_URL: database g1 timeseries")
    assert "password" in password
    assert SECRET not in str(error)
    assert database.startswith("KALSHI_G1_CATALOG_DATABASE_URL: database g1 catalog")
    assert 'database "no_such_one" does not exist' in database
    assert "kalshi-platform migrate" in database


def test_databases_of_another_mode_or_kind_end_a_start(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    settings = gatherer_settings()
    execute(settings.timeseries_url, "UPDATE schema_meta SET mode = 'timescale-apache'")
    with running_exchange(tmp_path, markets=1, rate=0) as exchange:
        error = refused(settings, exchange)
        assert isinstance(error, SchemaMismatch)
        assert "made in mode timescale-apache, the server now offers" in str(error)
        assert "restore the extension" in str(error)


def test_a_password_that_turns_wrong_makes_frames_wait_in_the_journal_until_it_is_right_again(
    gatherer_settings: SettingsFactory, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    role = "turning"
    end_sessions = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
    good = gatherer_settings()
    administer(postgres_server, f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'right'")
    try:
        settings = gatherer_settings(
            timeseries_url=with_login(good.timeseries_url, role, "right"), catalog_url=good.catalog_url
        )
        with (
            running_exchange(tmp_path, markets=2, rate=0) as exchange,
            running_gatherer(settings, exchange) as gatherer,
        ):
            gatherer.follows(2)
            administer(postgres_server, f"ALTER ROLE {role} PASSWORD '{SECRET}'", end_sessions)
            exchange.rate(100)
            eventually(lambda: gatherer.ingest.behind_bytes > 5_000, what="frames that wait")
            # The first attempt may still end by the session that was cut.
            wrong = "holds another password than the server"
            eventually(lambda: any(wrong in each for each in gatherer.status.troubles), what="the reason")
            (trouble, *_) = gatherer.status.troubles
            assert trouble.startswith("the database takes nothing, frames wait in the journal: database g1 timeseries")
            assert gatherer.status.health == "degraded"
            administer(postgres_server, f"ALTER ROLE {role} PASSWORD 'right'")
            eventually(lambda: gatherer.ingest.is_current, what="the end of the lag")
            eventually(lambda: gatherer.status.health == "ok", what="health")
        assert SECRET not in encode(gatherer.status).decode()
    finally:
        administer(postgres_server, end_sessions)
        # What the role made, partitions for example, goes to the owner of the rest.
        execute(good.timeseries_url, f"REASSIGN OWNED BY {role} TO CURRENT_USER")
        administer(postgres_server, f"DROP ROLE {role}")


def test_a_read_only_database_is_recorded_for_and_written_when_it_can_be(
    gatherer_settings: SettingsFactory, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    port = free_port()
    settings = gatherer_settings(endpoint=EndpointSettings(port=port))
    database = urlsplit(settings.timeseries_url).path[1:]
    administer(postgres_server, f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    with running_exchange(tmp_path, markets=2, rate=100) as exchange, running_gatherer(settings, exchange) as gatherer:
        gatherer.follows(2)
        eventually(lambda: gatherer.ingest.behind_bytes > 5_000, what="frames that wait")
        code, text = get(port, "/healthz")
        told = json.loads(text)
        assert (code, told["health"], told["reasons"]) == (200, "degraded", [])
        assert "read-only" in told["troubles"][0]
        assert "allow writes again" in told["troubles"][0]
        assert any("read-only" in line for line in gatherer_lines(gatherer.status))
        administer(postgres_server, f"ALTER DATABASE {database} RESET default_transaction_read_only")
        eventually(lambda: gatherer.ingest.is_current, what="the end of the lag")
        eventually(lambda: gatherer.status.health == "ok", what="health")
        eventually(lambda: gatherer.rows("SELECT state FROM heartbeats") == [("running",)], what="the heartbeat's row")


def test_a_database_that_comes_back_in_another_mode_is_reported_and_stops_nothing(
    gatherer_settings: SettingsFactory, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    settings = gatherer_settings()
    database = urlsplit(settings.timeseries_url).path[1:]
    execute(settings.timeseries_url, "UPDATE schema_meta SET mode = 'timescale-apache'")
    administer(postgres_server, f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    try:
        with (
            running_exchange(tmp_path, markets=2, rate=0) as exchange,
            running_gatherer(settings, exchange) as gatherer,
        ):
            gatherer.follows(2)
            assert gatherer.status.problems == []
            administer(postgres_server, f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
            eventually(lambda: gatherer.status.problems, what="the problem")
            assert any("made in mode timescale-apache" in trouble for trouble in gatherer.status.troubles)
            assert gatherer.status.alarms["wrong_database"] == 1
            assert gatherer.status.followed_markets == 2
            execute(settings.timeseries_url, "UPDATE schema_meta SET mode = server_mode()")
            eventually(lambda: gatherer.status.problems == [], what="the end of the problem")
    finally:
        administer(postgres_server, f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")


def test_when_the_journal_is_full_it_says_so_and_takes_up_again(
    gatherer_settings: SettingsFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kalshi_platform.gatherer.journal.housekeeping.CHECK_S", 3_600.0)
    port = free_port()
    settings = gatherer_settings(
        journal_max_bytes=400_000, journal_segment_bytes=50_000, journal_keep_s=3_600.0, archive_frames=False,
        endpoint=EndpointSettings(port=port),
    )  # fmt: skip
    with running_exchange(tmp_path, markets=2, rate=0) as exchange, running_gatherer(settings, exchange) as gatherer:
        gatherer.follows(2)
        exchange.rate(500)
        eventually(lambda: get(port, "/healthz")[0] == 503, what="ill health")
        told = json.loads(get(port, "/healthz")[1])
        assert (told["state"], told["health"]) == ("stalled", "not recording")
        assert "stopped reading" in told["reasons"][0]
        assert "KALSHI_JOURNAL_MAX_GIB" in told["reasons"][0]
        assert any(line.startswith("! it has stopped reading") for line in gatherer_lines(gatherer.status))
        exchange.rate(0)
        eventually(lambda: gatherer.ingest.behind_bytes == 0, what="everything committed")
        # Whatever is in the database goes before its time where there is no room.
        kept = gatherer.service.parts.housekeeping.keep_once()
        assert kept.compressed + kept.removed > 1
        eventually(lambda: get(port, "/healthz")[0] == 200, within_s=20, what="health")
        gatherer.follows(2)


def test_a_clock_five_minutes_off_is_named_with_its_size_by_the_refusal_and_the_heartbeat(
    gatherer_settings: SettingsFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = gatherer_settings(refused_backoff_s=0.5)
    with (
        running_exchange(tmp_path, markets=2, rate=0) as exchange,
        caplog.at_level(logging.WARNING),
        running_gatherer(settings, exchange, ShiftedClock(-300.0)) as gatherer,
    ):
        eventually(lambda: gatherer.status.connections["feed"].refused >= 1, what="the refusal")
        error = str(gatherer.status.connections["feed"].last_error)
        assert "HTTP 401" in error
        assert "this machine's clock is 300 s behind the exchange's: set it right (NTP)" in error
        assert "key" in error
        eventually(lambda: gatherer.clock_status.ahead_of_database_s is not None, what="the database's clock")
        eventually(lambda: gatherer.status.alarms.get("clock_offset") == 2, what="both alarms")
        clocks = gatherer.clock_status
        assert -301.5 < (clocks.ahead_of_exchange_s or 0.0) < -298.5
        assert -301.5 < (clocks.ahead_of_database_s or 0.0) < -298.5
        assert gatherer.status.problems == [
            "this machine's clock is 300 s behind the exchange's: set it right (NTP)",
            "this machine's clock is 300 s behind the database server's: set it right (NTP)",
        ]
    told = [text for text in caplog.messages if "receive times are wrong" in text]
    assert len(told) == 2, told


def test_a_clock_a_little_off_and_a_newer_schema_are_reported_while_everything_is_recorded(
    gatherer_settings: SettingsFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = gatherer_settings()
    execute(settings.timeseries_url, "INSERT INTO schema_migrations VALUES ('timeseries/999_later.sql', 'x')")
    with (
        caplog.at_level(logging.WARNING),
        running_exchange(tmp_path, markets=2, rate=0) as exchange,
        running_gatherer(settings, exchange, ShiftedClock(3.6)) as gatherer,
    ):
        gatherer.follows(2)
        eventually(lambda: len(gatherer.status.problems) == 2, what="both clocks told")
        assert "4 s ahead of the database server's" in gatherer.status.problems[1]
        assert gatherer.status.health == "degraded"
    assert [text for text in caplog.messages if text.startswith("database_of_newer_version")] == [
        'database_of_newer_version database="g1 timeseries" files=timeseries/999_later.sql'
        ' remedy="run the newer version of this package everywhere"'
    ]


def test_metrics_of_a_running_gatherer(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    port = free_port()
    settings = gatherer_settings(endpoint=EndpointSettings(port=port))
    with running_exchange(tmp_path, markets=3, rate=100) as exchange, running_gatherer(settings, exchange) as gatherer:
        gatherer.follows(3)
        eventually(lambda: gatherer.value("SELECT count(*) FROM orderbook_deltas") > 20)
        eventually(lambda: (gatherer.status.channels["orderbook_delta"].per_s or 0) > 0, what="a rate")
        code, text = get(port, "/metrics")
        assert code == 200
        found = {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"
        }
        assert found['kalshi_gatherer_messages_total{channel="orderbook_delta"}'] > 20
        assert found['kalshi_gatherer_rows_total{table="orderbook_deltas"}'] > 20
        assert found["kalshi_gatherer_followed_markets"] == 3
        assert found["kalshi_gatherer_receive_to_commit_seconds_count"] > 0
        assert found['kalshi_gatherer_last_message_age_seconds{channel="orderbook_delta",connection="books-0"}'] < 60
        assert found['kalshi_gatherer_connection_open{connection="feed"}'] == 1
        assert abs(found['kalshi_gatherer_clock_ahead_seconds{of="exchange"}']) < 2
        assert found["kalshi_gatherer_recording"] == 1
        assert get(port, "/healthz")[0] == 200
    assert settings.timeseries_url not in text
    with pytest.raises(urllib.error.URLError):
        get(port, "/healthz")


def execute(url: str, statement: str) -> None:
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()
