"""Opens the table catalog: a SQL catalog in the production database, or what the settings name instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import RESTError, UnauthorizedError

from kalshi_platform.errors import ConfigurationError, LakeUnavailable
from kalshi_platform.lake.iceberg.file_io import STORE, StoreFileIO
from kalshi_platform.lake.iceberg.settings import OWN_SCHEMA, IcebergSettings
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.storage.connect import CONNECTION_SETTINGS
from kalshi_platform.storage.migrate import check
from kalshi_platform.storage.pool import AdvisoryLock, Database
from kalshi_platform.storage.sqlstate import DRIVER_ERRORS, translate_error
from kalshi_platform.storage.urls import libpq_url, sqlalchemy_url, with_settings

NAME = "kalshi"
"""The catalog's name, which a SQL catalog keeps in its rows."""
_CREATION = "lake tables"


@contextmanager
def open_catalog(settings: IcebergSettings, store: ObjectStore) -> Iterator[Catalog]:
    """Give the catalog, whose tables read and write their metadata through `store`.

    Raises ConfigurationError, SchemaMismatch (production lacks the schema: migrate), DatabaseUnavailable,
    LakeUnavailable (a REST catalog does not answer); in the block the same.
    """
    io = {"py-io-impl": f"{StoreFileIO.__module__}.{StoreFileIO.__qualname__}", STORE: store}
    with _translated(settings):
        catalog = _rest(settings, io) if settings.is_rest else _sql(settings, io)
        try:
            yield catalog
        finally:
            catalog.close()


@contextmanager
def exclusive(settings: IcebergSettings, store: ObjectStore, table: str) -> Iterator[AdvisoryLock | None]:
    """Hold the lock of one table of the catalog in production; None where another process holds it.

    A catalog elsewhere has no lock: its own comparison of versions keeps two registrations apart.
    """
    if settings.catalog_uri or settings.production_url is None:
        yield _NoLock()
        return
    database = Database(settings.production_url, name="production")
    try:
        with database.advisory_lock("lake table", store.root, table) as lock:
            yield lock
    finally:
        database.dispose()


class _NoLock(AdvisoryLock):
    """Stands for a lock where none is needed."""

    def __init__(self) -> None:
        super().__init__(None, "")

    def is_held(self) -> bool:
        return True


def _rest(settings: IcebergSettings, io: dict[str, Any]) -> Catalog:
    from pyiceberg.catalog.rest import RestCatalog

    given = {
        "warehouse": settings.warehouse,
        "token": settings.token,
        "credential": settings.credential,
        "rest.sigv4-enabled": "true" if settings.use_sigv4 else "",
    }
    properties = {name: value for name, value in given.items() if value}
    return RestCatalog(NAME, uri=settings.catalog_uri, **properties, **io)


def _sql(settings: IcebergSettings, io: dict[str, Any]) -> Catalog:
    from pyiceberg.catalog.sql import SqlCatalog

    if settings.catalog_uri.startswith("sqlite:"):
        return SqlCatalog(NAME, uri=settings.catalog_uri, **io)
    if settings.catalog_uri:
        return SqlCatalog(NAME, uri=sqlalchemy_url(settings.catalog_uri), **io)
    if settings.production_url is None:
        raise ConfigurationError(
            ["no table catalog: set KALSHI_PRODUCTION_DATABASE_URL, or KALSHI_ICEBERG_CATALOG_URI for another one"]
        )
    database = Database(settings.production_url, name="production")
    try:
        check(database, "production")
        # The catalog makes its tables where it finds none: not in two processes at once.
        with database.transaction() as transaction:
            transaction.lock(_CREATION)
            return SqlCatalog(NAME, uri=_url_in_own_schema(settings.production_url), **io)
    finally:
        database.dispose()


def _url_in_own_schema(url: str) -> str:
    """The address of production for a session that makes and finds tables in the catalog's own schema."""
    given = dict(parse_qsl(urlsplit(libpq_url(url)).query)).get("options", "")
    always = {"client_encoding": "UTF8", "options": f"{given} -c search_path={OWN_SCHEMA}".strip()}
    defaults = {**CONNECTION_SETTINGS, "application_name": "kalshi-platform tables"}
    return sqlalchemy_url(with_settings(url, defaults, always))


@contextmanager
def _translated(settings: IcebergSettings) -> Iterator[None]:
    try:
        yield
    except DRIVER_ERRORS as error:
        raise translate_error(error, "the table catalog") from error
    except UnauthorizedError as error:
        raise ConfigurationError(
            ["the REST catalog refuses the login; check KALSHI_ICEBERG_TOKEN or KALSHI_ICEBERG_CREDENTIAL"]
        ) from error
    except FileNotFoundError as error:
        raise ConfigurationError(
            [f"{error}, which the table catalog names; run: kalshi-platform catalog register --rebuild"]
        ) from error
    except (RESTError, OSError) as error:  # what the HTTP client raises is an OSError, too
        where, text = "the table catalog", str(error)
        if settings.is_rest:
            scheme, host, login = _parts(settings.catalog_uri)
            where = f"{scheme}://{host}"
            # What the HTTP client says may quote the address, and of one that it cannot parse any part.
            if isinstance(error, ValueError):
                text = "the address cannot be read"
            elif login:
                text = text.replace(f"{login}@", "")
        raise LakeUnavailable(f"{where}: {type(error).__name__}: {text}") from error


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, host with its port, and the login of an address, which no message may show."""
    scheme, _, rest = url.partition("://")
    # From the last @ on: a password may hold what else ends a host.
    login, _, host = rest.rpartition("@")
    return scheme, re.split("[/?#]", host)[0], login
