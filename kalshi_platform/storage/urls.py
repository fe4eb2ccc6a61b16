"""One database URL in the forms that its readers want."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from kalshi_platform.errors import ConfigurationError

_SCHEMES = {"postgresql", "postgres", "postgresql+psycopg2"}


def libpq_url(url: str) -> str:
    """`postgresql://…`, as libpq, psycopg2 and ADBC want it. Raises ConfigurationError for another scheme."""
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise ConfigurationError(
            [f"{redacted(url)!r} is not a database URL; use postgresql://user:password@host:port/name"]
        )
    return urlunsplit(parts._replace(scheme="postgresql"))


def sqlalchemy_url(url: str) -> str:
    """`postgresql+psycopg2://…`: a bare `postgresql://` means psycopg 3 since SQLAlchemy 2.1."""
    return urlunsplit(urlsplit(libpq_url(url))._replace(scheme="postgresql+psycopg2"))


def redacted(url: str) -> str:
    """The URL without its password, for messages."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or "?"
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(an unreadable URL)"
    user = f"{parts.username}@" if parts.username else ""
    return f"{parts.scheme}://{user}{host}{port}{parts.path}"
