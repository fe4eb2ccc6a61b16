"""What a driver's error means: try again, or not; and whether a row is to blame."""

from __future__ import annotations

import psycopg2
import pytest

from kalshi_platform.errors import DatabaseUnavailable, StatementRejected
from kalshi_platform.storage.connect import ConnectionRefused
from kalshi_platform.storage.sqlstate import is_about_a_row, translate_error


class Refused(psycopg2.Error):
    """An error of the server with a SQLSTATE of the test's choice."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(f"the server says {sqlstate}\nLINE 1: secret row")
        self._state = sqlstate

    @property
    def pgcode(self) -> str:  # type: ignore[override]
        return self._state


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("25006", "read only"),
        ("28P01", "wrong password"),
        ("53100", "server's disk full"),
        ("53300", "too many connections"),
        ("55P03", "locked"),
        ("57014", "statement timeout"),
        ("57P01", "shut down"),
        ("57P03", "starting or stopping"),
        ("40P01", "unreachable"),
        ("58030", "unreachable"),
    ],
)
def test_a_server_that_takes_no_writes_now_is_away(sqlstate: str, kind: str) -> None:
    error = translate_error(Refused(sqlstate), "database x")
    assert isinstance(error, DatabaseUnavailable)
    assert error.kind == kind
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("sqlstate", "kind", "remedy"),
    [
        ("28P01", "wrong password", "another password"),
        ("22023", "session settings refused", "not a pooler"),
        ("55000", "unreachable", None),
        ("XX000", "unreachable", None),
        (None, "unreachable", None),
    ],
)
def test_a_refused_connection_is_away_whatever_its_state(sqlstate: str | None, kind: str, remedy: str | None) -> None:
    error = translate_error(ConnectionRefused("connection failed: FATAL:  mots\n", sqlstate), "database x")
    assert isinstance(error, DatabaseUnavailable)
    assert error.kind == kind
    assert (remedy or "database x: connection failed") in str(error)


@pytest.mark.parametrize(
    ("sqlstate", "row"), [("22003", True), ("23514", True), ("54000", True), ("42P01", False), ("42501", False)]
)
def test_a_refused_statement_is_no_outage_and_not_always_a_rows_fault(sqlstate: str, row: bool) -> None:
    error = translate_error(Refused(sqlstate), "database x")
    assert isinstance(error, StatementRejected)
    assert error.sqlstate == sqlstate
    assert is_about_a_row(error.sqlstate) is row
