"""Database URLs: one spelling for every driver, and no password in any message."""

from __future__ import annotations

from types import SimpleNamespace

import psycopg2.extensions
import pytest

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.storage import connect
from kalshi_platform.storage.urls import libpq_url, may_be_unencrypted, redacted, sqlalchemy_url, with_settings


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_every_scheme_becomes_what_the_driver_wants(scheme: str) -> None:
    url = f"{scheme}://user:secret@db.example:5433/kalshi?sslmode=require"
    assert libpq_url(url) == "postgresql://user:secret@db.example:5433/kalshi?sslmode=require"
    assert sqlalchemy_url(url).startswith("postgresql+psycopg2://user:secret@")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("host=db password=hunter2 dbname=x", "not a PostgreSQL URL"),
        ("mysql://u:hunter2@h/d", "not a PostgreSQL URL"),
        ("", "not a PostgreSQL URL"),
        ("postgresql:///kalshi", "Unix sockets are not supported"),
        ("postgresql://u:hunter2@%2Fvar%2Frun%2Fpostgresql/kalshi", "Unix sockets are not supported"),
        ("postgresql://u:hunter2@h/kalshi?host=/tmp", "Unix sockets are not supported"),
        ("postgresql://u:hunter2@h:5432", "name of the database is missing"),
        ("postgresql://u:hunter2@h:5432/", "name of the database is missing"),
        ("postgresql://u:hunter2@a:1,b:2/kalshi", "one host only"),
        ("postgresql://u:hunter2@h:port/kalshi", "host or port"),
        ("postgresql://u:12/hunter2@h/kalshi", "percent-encoded"),
        ("postgresql://u:12?hunter2@h/kalshi", "percent-encoded"),
        ("postgresql://u:12#hunter2@h/kalshi", "percent-encoded"),
        ("postgresql://u:12@hunter2@h/kalshi", "percent-encoded"),
        ("postgresql://u:hunter2%zz@h/kalshi", "no escape"),
        ("postgresql://u:hunter2%00@h/kalshi", "no escape"),
    ],
)
def test_what_cannot_work_is_refused_without_showing_the_password(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        libpq_url(url)
    assert "hunter2" not in str(caught.value)
    assert "12" not in redacted(url)


def test_a_redacted_url_still_says_where() -> None:
    assert redacted("postgresql://user:secret@db.example:5433/kalshi?password=secret") == (
        "postgresql://user@db.example:5433/kalshi"
    )


@pytest.mark.parametrize("host", ["[::1]", "127.0.0.1", "db.example"])
def test_hosts_stay_as_they_are(host: str) -> None:
    parsed = psycopg2.extensions.parse_dsn(libpq_url(f" postgresql://u:p@{host}:1/d\n"))
    assert parsed["host"] == host.strip("[]")


def test_added_settings_yield_to_given_ones_but_for_those_that_must_hold_and_survive_the_driver() -> None:
    url = with_settings(
        "postgresql://u:p%40%2F+%20x@h/d?connect_timeout=9&client_encoding=latin1",
        {"connect_timeout": "5", "options": "-c timezone=UTC -c jit=off"},
        always={"client_encoding": "UTF8"},
    )
    parsed = psycopg2.extensions.parse_dsn(url)
    assert parsed["connect_timeout"] == "9"
    assert parsed["client_encoding"] == "UTF8"
    assert parsed["options"] == "-c timezone=UTC -c jit=off"
    assert parsed["password"] == "p@/+ x"


@pytest.mark.parametrize(
    ("url", "default", "expected"),
    [
        ("postgresql://u:p@db.example/x", "", True),
        ("postgresql://u:p@db.example/x?sslmode=prefer", "", True),
        ("postgresql://u:p@db.example/x?sslmode=allow", "", True),
        ("postgresql://u:p@db.example/x?sslmode=verify-full", "", False),
        ("postgresql://u:p@db.example/x?sslmode=require", "", False),
        ("postgresql://u:p@db.example/x?sslmode=disable", "", False),
        ("postgresql://u:p@db.example/x", "verify-full", False),
        ("postgresql://u:p@db.example/x?sslmode=prefer", "verify-full", True),
        ("postgresql://u:p@127.0.0.1/x", "", False),
        ("postgresql://u:p@127.8.0.1/x", "", False),
        ("postgresql://u:p@localhost/x", "", False),
        ("postgresql://u:p@[::1]/x", "", False),
        ("postgresql://u:p@[2001:db8::1]/x", "", True),
        ("postgresql://u:p@[half/x", "", False),
    ],
)
def test_a_database_beyond_this_machine_is_to_be_encrypted_unless_its_url_says_otherwise(
    url: str, default: str, expected: bool
) -> None:
    assert may_be_unencrypted(url, default) is expected


@pytest.mark.parametrize(
    ("host", "sslmode", "encrypted", "times"),
    [
        ("db.example", "prefer", False, 1),
        ("db.example", "prefer", True, 0),
        ("db.example", "disable", False, 0),
        ("127.0.0.1", "prefer", False, 0),
    ],
)
def test_a_server_that_is_reached_in_plain_text_is_logged_once(
    host: str,
    sslmode: str,
    encrypted: bool,
    times: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = SimpleNamespace(host=host, port=5432, ssl_in_use=encrypted, dsn_parameters={"sslmode": sslmode})
    monkeypatch.setattr(connect, "_seen_servers", set())
    monkeypatch.setattr("psycopg2.connect", lambda _target: SimpleNamespace(info=session))
    for _ in range(2):
        connect.connect("postgresql://u:hunter2@db.example/x")
    assert [record for record in caplog.records if "hunter2" in record.getMessage()] == []
    assert sum("database_without_tls" in record.getMessage() for record in caplog.records) == times
