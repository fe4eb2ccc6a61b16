"""What a driver's exception means: the server is away (try again), or it refused the statement (do not)."""

from __future__ import annotations

from typing import Any

import psycopg2
import sqlalchemy.exc

from kalshi_platform.errors import DatabaseUnavailable, KalshiPlatformError, StatementRejected

DRIVER_ERRORS = (psycopg2.Error, sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError)
# SQLSTATE classes that pass: 08 connection, 25P03/57 ended or cancelled by an operator, 40 deadlock or serialization,
# 53 out of disk, memory or connections, 55 lock not available, 58 I/O.
_TRANSIENT_CLASSES = {"08", "40", "53", "55", "57", "58"}
_TRANSIENT_STATES = {"25P03"}


def translated(error: BaseException, where: str, connection: Any = None) -> KalshiPlatformError:
    """The platform's error for a driver's; `where` names the database without secrets."""
    sqlstate = getattr(error, "pgcode", None)
    if _is_transient(error, sqlstate) or (connection is not None and connection.closed):
        return DatabaseUnavailable(f"{where}: {first_line(error)}")
    return StatementRejected(f"{where}: {first_line(error)}", sqlstate=sqlstate)


def first_line(error: BaseException) -> str:
    """What the server said first; further lines quote statements and rows."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def is_transient_state(sqlstate: str) -> bool:
    """Whether the same statement may succeed later."""
    return sqlstate[:2] in _TRANSIENT_CLASSES or sqlstate in _TRANSIENT_STATES


def _is_transient(error: BaseException, sqlstate: str | None) -> bool:
    if sqlstate:
        return is_transient_state(sqlstate)
    # Without a state the server did not answer: a lost connection, a refused one, or a pool that stayed empty.
    return isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError, sqlalchemy.exc.SQLAlchemyError))
