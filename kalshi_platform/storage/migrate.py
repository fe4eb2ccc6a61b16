"""Applies the numbered files of `sql/`, and checks that a database is what they made.

Each file is one transaction and may be applied again (a DBA can run it with `psql -1 -f`); what was applied stands in
`schema_migrations` with its hash. The mode (native partitions or TimescaleDB) is fixed when a database is made.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import kalshi_platform
from kalshi_platform.errors import SchemaMismatch, StatementRejected
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.sqlstate import DRIVER_ERRORS, translate_error

DatabaseKind: TypeAlias = Literal["timeseries", "catalog", "production"]
FOLDERS: dict[DatabaseKind, tuple[str, ...]] = {
    # `streams`: columns that a gatherer's tables of messages and production's have both.
    "timeseries": ("common", "timeseries", "streams", "roles"),
    "catalog": ("catalog", "roles"),
    "production": ("common", "catalog", "production", "streams", "roles"),
}
# Both have tables of the same names with other columns.
_EXCLUSIVE = {"timeseries", "production"}
_LOCK = "kalshi-platform migrations"
_log = event_logger(__name__)


@dataclass(frozen=True)
class SqlFile:
    """One numbered file: `name` is its path below `sql/`."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """The checksum of the file's text, as hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Migrated:
    """The result of a migration: files applied now, and the mode of the database ("" for a catalog).

    `roles_missing`: roles of sql/roles that are absent, because the login that migrates may not create roles.
    """

    applied: tuple[str, ...]
    mode: str
    roles_missing: tuple[str, ...] = ()


def sql_root() -> Path:
    """The folder of the SQL files: inside the installed package, or at the top of a checkout."""
    package = Path(kalshi_platform.__file__).parent
    for candidate in (package / "sql", package.parent / "sql"):
        if (candidate / "common").is_dir():
            return candidate
    raise SchemaMismatch(f"the sql/ folder is missing beside {package.name}; reinstall the package")


def files_of(kind: DatabaseKind) -> tuple[SqlFile, ...]:
    """The files of a kind of database in the order in which they apply."""
    root = sql_root()
    paths = [path for folder in FOLDERS[kind] for path in sorted((root / folder).glob("*.sql"))]
    return tuple(SqlFile(f"{path.parent.name}/{path.name}", path.read_text(encoding="utf-8")) for path in paths)


def migrate(database: Database, kind: DatabaseKind, *, use_timescale: bool = True) -> Migrated:
    """Bring `database` up to date, and grant the roles of sql/roles their privileges in it.

    May run in several processes at once.

    Raises SchemaMismatch when an applied file was changed, a file fails, the mode differs, or the database is of
    another kind, or cannot hold every text.
    """
    applied: list[str] = []
    with database.transaction() as transaction:
        _check_encoding(database, transaction)
        transaction.lock(_LOCK)
        transaction.execute(load("storage")["create_migrations"])
        _check_kind(database, kind, _known(transaction))
    for file in files_of(kind):
        with database.transaction() as transaction:
            transaction.lock(_LOCK)
            if _is_current(database, file, _known(transaction)):
                continue
            if not use_timescale:
                transaction.execute(load("storage")["keep_native"])
            _apply(database, transaction, file)
        applied.append(file.name)
        _log.info("sql_file_applied", database=database.name, file=file.name)
    mode = check(database, kind)
    with database.transaction() as transaction:
        transaction.lock(_LOCK)
        roles_missing = _grant_roles(database, transaction)
    return Migrated(tuple(applied), mode, roles_missing)


def check(database: Database, kind: DatabaseKind) -> str:
    """Return the mode of the database ("" for a catalog). Raises SchemaMismatch, naming the remedy."""
    files = files_of(kind)
    with database.transaction() as transaction:
        _check_encoding(database, transaction)
        row = transaction.fetch_one(load("storage")["has_migrations"])
        if not row or not row[0]:
            raise SchemaMismatch(f"database {database.name} is empty; run: kalshi-platform migrate")
        known = _known(transaction)
        _check_kind(database, kind, known)
        missing = [file.name for file in files if not _is_current(database, file, known)]
        if missing:
            raise SchemaMismatch(f"database {database.name} lacks {', '.join(missing)}; run: kalshi-platform migrate")
        newer = set(known) - {file.name for file in files}
        unknown = sorted(name for name in newer if name.split("/")[0] in FOLDERS[kind])
        if unknown:
            _log.warning(
                "database_of_newer_version",
                database=database.name,
                files=unknown,
                remedy="run the newer version of this package everywhere",
            )
        if kind == "catalog":
            return ""
        recorded, actual = transaction.fetch_one(load("storage")["mode"]) or ("?", "?")
    if recorded != actual:
        raise SchemaMismatch(
            f"database {database.name} was made in mode {recorded}, the server now offers {actual};"
            " the mode of a database never changes: restore the extension, or start with a new database"
        )
    return str(recorded)


def _grant_roles(database: Database, transaction: Transaction) -> tuple[str, ...]:
    """Give roles their privileges also on tables of files that came after theirs; return the roles that are absent."""
    if transaction.fetch_one(load("storage")["can_grant_roles"]) != (True,):
        return ()
    row = transaction.fetch_one(load("storage")["grant_roles"])
    missing = tuple(row[0]) if row else ()
    if missing:
        _log.warning(
            "roles_missing",
            database=database.name,
            roles=missing,
            remedy="have an administrator run CREATE ROLE for each, then migrate again; until then logins other than"
            " the owner have no privileges",
        )
    return missing


def _check_encoding(database: Database, transaction: Transaction) -> None:
    encoding = transaction.connection.get_parameter_status("server_encoding")
    if encoding != "UTF8":
        raise SchemaMismatch(
            f"database {database.name} has the encoding {encoding}, which does not hold every text as it is;"
            " use a new one: CREATE DATABASE name ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0"
        )


def _apply(database: Database, transaction: Transaction, file: SqlFile) -> None:
    try:
        with transaction.connection.cursor() as cursor:
            cursor.execute(file.text)
    except DRIVER_ERRORS as error:
        failure = translate_error(error, f"database {database.name}: {file.name}", transaction.connection)
        if isinstance(failure, StatementRejected):
            raise SchemaMismatch(f"{failure} (nothing of the file was applied)") from error
        raise failure from error
    transaction.execute(load("storage")["record_migration"], (file.name, file.sha256))


def _check_kind(database: Database, kind: DatabaseKind, known: dict[str, str]) -> None:
    folders = {name.split("/")[0] for name in known}
    others = (_EXCLUSIVE - {kind}) & folders if kind in _EXCLUSIVE else set()
    if others:
        raise SchemaMismatch(
            f"database {database.name} is a {others.pop()} database and cannot be a {kind} database as well;"
            " give each its own database"
        )


def _known(transaction: Transaction) -> dict[str, str]:
    return dict(transaction.fetch_all(load("storage")["applied_migrations"]))


def _is_current(database: Database, file: SqlFile, known: dict[str, str]) -> bool:
    recorded = known.get(file.name)
    if recorded is not None and recorded != file.sha256:
        raise SchemaMismatch(
            f"database {database.name}: {file.name} was changed after it had been applied;"
            " restore the file and put the change into a new numbered file"
        )
    return recorded is not None
