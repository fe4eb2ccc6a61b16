"""Copies of a database server's files, made as a database administrator would: base backups and a streaming replica.

`put_back` is a restore from a backup; `Replica` is an asynchronous standby which, cut off from its primary, lags, and
then takes its place under the same address. In both cases whoever is connected loses its connection and finds, under
the same URL, a server that does not know the last commits.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.local.postgres.cluster import ServerState, make_data_dir, save_state
from kalshi_platform.local.postgres.programs import find_programs
from kalshi_platform.local.postgres.server import USER, PostgresServer
from kalshi_platform.local.postgres.server_user import find_server_user
from kalshi_platform.local.processes.ports import LOOPBACK, free_port
from kalshi_platform.storage.pool import Database


def base_backup(server: PostgresServer, name: str, *, for_replica: bool = False) -> Path:
    """Copy a running server's files beside its own, in a folder `name`; return it. Raises DatabaseUnavailable.

    `for_replica`: the copy follows the server when it is started.
    """
    target = server.cluster.with_name(name)
    shutil.rmtree(target, ignore_errors=True)
    server_user = find_server_user(server.cluster)
    target.mkdir(mode=0o700)
    server_user.chown(target)
    programs = find_programs(server_user, server.settings.shared_roots)
    done = server_user.run(
        [
            str(programs / "pg_basebackup"), "--pgdata", str(target), "--checkpoint", "fast", "--wal-method", "stream",
            "--no-sync", "--no-manifest", *(["--write-recovery-conf"] if for_replica else []),
        ],
        env={
            "PGHOST": LOOPBACK, "PGPORT": str(server.port), "PGUSER": USER, "PGPASSWORD": _password(server),
            "PGAPPNAME": "proof",
        },
        timeout_s=120,
    )  # fmt: skip
    if done.returncode != 0:
        raise DatabaseUnavailable(f"no backup of server {server.name}: {done.stdout.strip()[-1000:]}")
    return target


def put_back(server: PostgresServer, copy: Path) -> None:
    """Stop the server, put the copy in place of its files and start it again."""
    server.stop()
    _swap(server, copy)
    server.start()


class Replica:
    """A standby of `primary`, following it from the start on."""

    def __init__(self, primary: PostgresServer) -> None:
        self._primary = primary
        self._copy = base_backup(primary, f"{primary.name}-replica", for_replica=True)
        data_dir = primary.data_dir.with_name(f"{primary.name}-replica")
        make_data_dir(data_dir)
        (data_dir / "cluster.location").write_text(f"{self._copy}\n", encoding="utf-8")
        save_state(data_dir, ServerState(free_port(), _password(primary)))
        self._server = PostgresServer(data_dir, f"{primary.name} replica", primary.settings)
        self._server.start()

    def close(self) -> None:
        """Stop the standby if it runs."""
        self._server.stop()

    def lag_bytes(self) -> int:
        """How far it is behind its primary."""
        newest = _asked(self._primary, "SELECT pg_current_wal_lsn()::text")
        return int(_asked(self._server, f"SELECT greatest(0, '{newest}' - pg_last_wal_replay_lsn())::bigint"))

    def cut_off(self) -> None:
        """Let it hear nothing of its primary any more."""
        with (self._copy / "postgresql.auto.conf").open("a", encoding="utf-8") as settings:
            settings.write("primary_conninfo = ''\n")
        _asked(self._server, "SELECT pg_reload_conf()")

    def take_over(self) -> None:
        """Stop the primary, start the standby under its address (it only answers questions then) and promote it."""
        self._primary.stop()
        self._server.stop()
        _swap(self._primary, self._copy)
        self._primary.start()
        if _asked(self._primary, "SELECT pg_promote(true, 60)") != "True":
            raise DatabaseUnavailable(f"the replica of server {self._primary.name} was not promoted")


def _swap(server: PostgresServer, copy: Path) -> None:
    lost = server.cluster.with_name(f"{server.cluster.name}-lost")
    server.cluster.rename(lost)
    copy.rename(server.cluster)
    shutil.rmtree(lost, ignore_errors=True)


def _password(server: PostgresServer) -> str:
    return urlsplit(server.url("postgres")).password or ""


def _asked(server: PostgresServer, query: str) -> str:
    database = Database(server.url("postgres"), name=server.name, pool_size=1)
    try:
        with database.transaction() as transaction:
            row = transaction.fetch_one(query)
    finally:
        database.dispose()
    return "" if row is None else str(row[0])
