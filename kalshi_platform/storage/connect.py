"""Opens connections, and finds the SQLSTATE of a refused one.

A refused login reaches psycopg2 as words only: in the server's language, and in its encoding, because nothing has been
agreed upon yet. libpq knows the SQLSTATE behind them, and adds it to its message when verbosity is set before the
answer.
"""

from __future__ import annotations

import ctypes
import re
import select
from contextlib import closing
from typing import Any

import psycopg2
import psycopg2._psycopg
import psycopg2.extensions

from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.urls import TLS_REMEDY, with_settings
from kalshi_platform.surroundings import is_loopback

CONNECTION_SETTINGS = {
    "connect_timeout": "5",
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
"""How libpq notices within about half a minute that a server has vanished: keep-alives see it on an idle line,
tcp_user_timeout (ms) where something was sent and never acknowledged."""

# Whatever the shell, the URL or the role says: texts are Unicode here.
_ALWAYS = {"client_encoding": "UTF8"}
_VERBOSE = 2  # PQERRORS_VERBOSE
_PATIENCE_MS = 5_000
# Every message of a server begins with its severity, a colon and two spaces, in any language; libpq's own do not.
_SERVER_SAYS = ":  "
_STATE = re.compile(r"(?<=:  )([0-9A-Z]{5}): ")
_REMEMBERED = 200
# The extension module is linked with libpq, wherever that lies: its symbols are found through it.
_libpq = ctypes.CDLL(psycopg2._psycopg.__file__)  # noqa: SLF001 - it has no public name
_libpq.PQsetErrorVerbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
_libpq.PQerrorMessage.argtypes = [ctypes.c_void_p]
_libpq.PQerrorMessage.restype = ctypes.c_char_p
_states: dict[str, str] = {}
_seen_servers: set[str] = set()
_log = event_logger(__name__)


class ConnectionRefused(psycopg2.OperationalError):
    """No connection was made. `sqlstate`: the reason where a server answered, None where none did."""

    def __init__(self, words: str, sqlstate: str | None) -> None:
        super().__init__(words)
        self.sqlstate = sqlstate


def connection_url(url: str, application: str, options: str) -> str:
    """The libpq URL with the platform's settings; `options` are those of the server's session."""
    settings = {**CONNECTION_SETTINGS, "application_name": application, "options": options}
    return with_settings(url, settings, always=_ALWAYS)


def connect(target: str) -> Any:
    """A psycopg2 connection to a URL of `connection_url`. Raises ConnectionRefused.

    A session that crosses a network in plain text although its URL does not say so is logged, once for each server.
    """
    try:
        connection = psycopg2.connect(target)
    except (psycopg2.OperationalError, UnicodeDecodeError) as error:
        # Where psycopg2 cannot read a server's words, some builds of Python get an error without any.
        words = _words(error) or _STATE.sub("", _verbose_message(target))
        raise ConnectionRefused(words, state_of_refusal(target, words)) from error
    _warn_if_unencrypted(connection.info)
    return connection


def _warn_if_unencrypted(session: Any) -> None:
    server = f"{session.host}:{session.port}"
    if server in _seen_servers:
        return
    _seen_servers.add(server)
    is_meant = is_loopback(session.host) or session.dsn_parameters.get("sslmode") == "disable"
    if not session.ssl_in_use and not is_meant:
        _log.warning("database_without_tls", server=server, remedy=TLS_REMEDY)


def state_of_refusal(target: str, words: str) -> str | None:
    """Return the SQLSTATE of a refusal whose message is `words`; None where no server sent it, or not again.

    Connects once more, and keeps the answer: the same words mean the same.
    """
    if _SERVER_SAYS not in words:
        return None
    if (known := _states.get(words)) is not None:
        return known
    message = _verbose_message(target)
    state = _STATE.search(message)
    if state is None or _STATE.sub("", message).splitlines()[0] not in words:
        return None
    if len(_states) >= _REMEMBERED:
        _states.clear()
    return _states.setdefault(words, state[1])


def _verbose_message(target: str) -> str:
    """How the server refuses, with the SQLSTATE before its words; "" when it does not refuse."""
    try:
        with closing(psycopg2.connect(target, async_=1)) as connection:
            return _refusal_of(connection)
    except (psycopg2.Error, UnicodeDecodeError) as error:
        return _words(error)


def _refusal_of(connection: Any) -> str:
    _libpq.PQsetErrorVerbosity(connection.pgconn_ptr, _VERBOSE)
    try:
        while (wanted := connection.poll()) != psycopg2.extensions.POLL_OK:
            waiting = select.poll()
            reads = wanted == psycopg2.extensions.POLL_READ
            waiting.register(connection.fileno(), select.POLLIN if reads else select.POLLOUT)
            if not waiting.poll(_PATIENCE_MS):
                return ""
    except (psycopg2.Error, UnicodeDecodeError):
        message: bytes = _libpq.PQerrorMessage(connection.pgconn_ptr) or b""
        return message.decode("utf-8", "replace")
    return ""


def _words(error: BaseException) -> str:
    if isinstance(error, UnicodeDecodeError):  # psycopg2 takes every server's words for UTF-8
        return error.object.decode("utf-8", "replace")
    return str(error)
