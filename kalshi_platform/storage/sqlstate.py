"""Translates a driver's exception: the server is away (try again), or it refused the statement (do not).

A server that is there but takes no writes (read-only, full, out of connections, another password) is as good as away:
what was to be written is kept and tried again. Every such message names what is wrong and the remedy. All SQLSTATEs
that the package knows stand here.
"""

from __future__ import annotations

from typing import Any

import psycopg2
import sqlalchemy.exc

from kalshi_platform.errors import DatabaseUnavailable, KalshiPlatformError, StatementRejected
from kalshi_platform.storage.connect import ConnectionRefused

DRIVER_ERRORS = (psycopg2.Error, sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError)
UNREACHABLE = "unreachable"
STATEMENT_TIMEOUT = "statement timeout"
# SQLSTATE classes that pass: 08 connection, 25P03/57 ended or cancelled by an operator, 28 a login that is refused,
# 40 deadlock or serialization, 53 out of disk, memory or connections, 55 lock not available, 58 I/O.
_TRANSIENT_CLASSES = {"08", "28", "40", "53", "55", "57", "58"}
# 25006 read-only transaction: a standby, or a server that an operator (or a full disk's guard) has closed for writes.
# 3D000 no such database: it ends when the database is made, or the URL corrected.
_TRANSIENT_STATES = {"25P03", "25006", "3D000"}
# SQLSTATE classes that are about the values of a row: 22 data exception, 23 constraint, 54 beyond a server's limit.
_ROW_CLASSES = {"22", "23", "54"}
READ_ONLY = "read only"
OUT_OF_MEMORY = "server out of memory"
LOGIN = "login refused"
SESSION_REFUSED = "session settings refused"
_KINDS = {
    "25006": READ_ONLY,
    "28000": LOGIN,
    "28P01": "wrong password",
    "3D000": "no such database",
    "42501": LOGIN,
    "53100": "server's disk full",
    "53200": OUT_OF_MEMORY,
    "53300": "too many connections",
    "55P03": "locked",
    "57014": STATEMENT_TIMEOUT,
    "57P01": "shut down",
    "57P02": "shut down",
    "57P03": "starting or stopping",
}
LOGIN_REFUSED = frozenset({LOGIN, "wrong password", "no such database", SESSION_REFUSED})
"""The server answers and refuses: at a start that is a wrong setting, later an outage like any other."""
# What a server, or a pooler in its stead, answers to settings that it does not know: of the feature, value, name.
_SESSION_CLASSES = {"0A", "22", "42"}
# PgBouncer answers "unsupported startup parameter", in English everywhere; the state alone means much else.
_PROTOCOL_STATE, _OF_A_SETTING = "08P01", "startup parameter"
_REMEDIES = {
    "25006": "it is a standby, or set read-only: name the primary, or allow writes again",
    "28000": "the server's pg_hba.conf or the role refuses this client",
    "28P01": "the URL in the settings holds another password than the server",
    "42501": "grant this role CONNECT on the database",
    "3D000": "create it and run kalshi-platform migrate, or correct the URL in the settings",
    "53100": "make room on the server's disk",
    "53300": "raise max_connections, or close other clients",
    SESSION_REFUSED: "name the PostgreSQL server itself in the settings, not a pooler before it: sessions are given"
    " settings at their start, and hold locks",
    "57014": "it took longer than the statement timeout: the server is overloaded, or a lock is held",
}


def translate_error(error: BaseException, where: str, connection: Any = None) -> KalshiPlatformError:
    """Return the platform's error for a driver's; `where` names the database without secrets."""
    text = first_line(error)
    if isinstance(error, ConnectionRefused):
        return refusal_error(where, text, error.sqlstate)
    sqlstate = getattr(error, "pgcode", None)
    if _is_transient(error, sqlstate) or (connection is not None and connection.closed):
        return unavailable_error(where, text, sqlstate)
    return StatementRejected(f"{where}: {text}", sqlstate=sqlstate)


def refusal_error(where: str, text: str, sqlstate: str | None) -> DatabaseUnavailable:
    """Return the error for a connection that could not be made; without a SQLSTATE no server answered."""
    state = sqlstate or ""
    is_setting = state == _PROTOCOL_STATE and _OF_A_SETTING in text
    if state not in _KINDS and (is_setting or state[:2] in _SESSION_CLASSES):
        return DatabaseUnavailable(f"{where}: {text} ({_REMEDIES[SESSION_REFUSED]})", kind=SESSION_REFUSED)
    return unavailable_error(where, text, sqlstate)


def unavailable_error(where: str, text: str, sqlstate: str | None) -> DatabaseUnavailable:
    """Return the error for a server that is away, or as good as away."""
    remedy = _REMEDIES.get(sqlstate or "")
    message = text if remedy is None else f"{text} ({remedy})"
    return DatabaseUnavailable(f"{where}: {message}", kind=_KINDS.get(sqlstate or "", UNREACHABLE))


def first_line(error: BaseException) -> str:
    """Return the first line of a message; further lines quote statements and rows."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def is_transient_state(sqlstate: str) -> bool:
    """Return whether the same statement may succeed later."""
    return sqlstate[:2] in _TRANSIENT_CLASSES or sqlstate in _TRANSIENT_STATES


def is_about_a_row(sqlstate: str | None) -> bool:
    """Return whether a refused statement may succeed without one of its rows: otherwise the schema is at fault."""
    return sqlstate is not None and sqlstate[:2] in _ROW_CLASSES


def _is_transient(error: BaseException, sqlstate: str | None) -> bool:
    if sqlstate:
        return is_transient_state(sqlstate)
    # Without a state the server did not answer: a lost connection, a refused one, or a pool that stayed empty.
    return isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError, sqlalchemy.exc.SQLAlchemyError))
