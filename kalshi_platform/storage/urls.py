"""Converts a database URL to the forms of its readers, and checks it before a driver can quote it in an error text."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.surroundings import is_loopback

TLS_REMEDY = "append ?sslmode=verify-full&sslrootcert=FILE to its URL, or ?sslmode=disable where the network is private"
"""What to do where `may_be_unencrypted`."""

_SCHEMES = {"postgresql", "postgres", "postgresql+psycopg2"}
_FORM = "use postgresql://user:password@host:port/name"
_UNREADABLE = "(an unreadable database URL)"
# libpq quotes what it cannot decode, so a broken escape in a password must never reach it.
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")


def libpq_url(url: str) -> str:
    """`postgresql://…`, as libpq, psycopg2 and ADBC want it. Raises ConfigurationError, without the password."""
    url = url.strip()
    problem = _problem(url)
    if problem:
        raise ConfigurationError([f"{redacted(url)}: {problem}; {_FORM}"])
    return urlunsplit(urlsplit(url)._replace(scheme="postgresql"))


def sqlalchemy_url(url: str) -> str:
    """`postgresql+psycopg2://…`: a bare `postgresql://` means psycopg 3 since SQLAlchemy 2.1."""
    return urlunsplit(urlsplit(libpq_url(url))._replace(scheme="postgresql+psycopg2"))


def with_settings(url: str, defaults: dict[str, str], always: dict[str, str]) -> str:
    """The libpq URL with settings added to its query: of `defaults` those that it lacks, `always` in any case."""
    parts = urlsplit(libpq_url(url))
    given = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in always]
    names = {name for name, _ in given}
    added = [(name, value) for name, value in defaults.items() if name not in names]
    query = [*given, *added, *always.items()]
    return urlunsplit(parts._replace(query=urlencode(query, quote_via=quote)))


def may_be_unencrypted(url: str, default_sslmode: str = "") -> bool:
    """Whether a session by this URL may cross a network in plain text without the URL saying that it shall.

    `default_sslmode`: PGSSLMODE, for a URL that names none. `sslmode=disable` in the URL says so; an unreadable URL is
    another's problem.
    """
    try:
        parts = urlsplit(url.strip())
        host, given = parts.hostname, dict(parse_qsl(parts.query))
    except ValueError:
        return False
    return not is_loopback(host) and (given.get("sslmode") or default_sslmode or "prefer") in ("prefer", "allow")


def redacted(url: str) -> str:
    """Return the URL without its password, for messages. What may be a password is not shown at all."""
    try:
        parts = urlsplit(url.strip())
        if parts.scheme not in _SCHEMES or _has_stray_separator(parts):
            return _UNREADABLE
        port = f":{parts.port}" if parts.port else ""
        host = parts.hostname or ""
    except ValueError:
        return _UNREADABLE
    user = f"{parts.username}@" if parts.username else ""
    return f"{parts.scheme}://{user}{host}{port}{parts.path}"


def _problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            return "this is not a PostgreSQL URL"
        if _has_stray_separator(parts):
            return "a special character in it must be percent-encoded (/ is %2F, @ is %40, # is %23, ? is %3F)"
        if _BROKEN_ESCAPE.search(url):
            return "it holds a % that is no escape; a plain % is written %25"
        host, _port = parts.hostname, parts.port
    except ValueError:
        return "its host or port is not readable (one host only; percent-encode special characters)"
    if not host or unquote(host).startswith("/") or "host" in dict(parse_qsl(parts.query)):
        return "a host is needed (Unix sockets are not supported, connect over TCP)"
    if len(parts.path) < 2:
        return "the name of the database is missing"
    return None


def _has_stray_separator(parts: SplitResult) -> bool:
    # A password with a plain / ? # or @ moves the borders between the parts of the URL.
    rest = f"{parts.path}?{parts.query}#{parts.fragment}"
    return "@" in rest or bool(parts.fragment) or parts.path.count("/") > 1 or parts.netloc.count("@") > 1
