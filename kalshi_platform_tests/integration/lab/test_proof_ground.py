"""How the proof takes things back: a server's files restored, a lagging replica promoted, a lake's store that fails."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from kalshi_platform.errors import LakeUnavailable
from kalshi_platform.lab.proof.faults.copies import Replica, base_backup, put_back
from kalshi_platform.lab.proof.faults.failing_store import FailingStore, rows_of_glob
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform.local.postgres.server import PostgresServer
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.exchange import eventually
from kalshi_platform_tests.fixtures.stack import rows


@pytest.mark.timeout(180)
def test_a_server_forgets_what_came_after_the_copy_and_what_its_replica_did_not_hear(
    stoppable_server: PostgresServer,
) -> None:
    server, url = stoppable_server, stoppable_server.url("postgres")

    def put(number: int) -> None:
        run(f"INSERT INTO told VALUES ({number})")

    def run(statement: str) -> None:
        database = Database(url, name="proof", pool_size=1)
        with database.transaction() as transaction:
            transaction.execute(statement)
        database.dispose()

    run("CREATE TABLE told (n int)")
    put(1)
    copy = base_backup(server, "g1-copy")
    put(2)
    put_back(server, copy)
    assert rows(url, "SELECT n FROM told") == [(1,)]
    replica = Replica(server)
    try:
        put(3)
        eventually(lambda: replica.lag_bytes() == 0)
        replica.cut_off()
        eventually(lambda: rows(url, "SELECT count(*) FROM pg_stat_replication") == [(0,)])
        put(4)
        replica.take_over()
    finally:
        replica.close()
    assert rows(url, "SELECT n FROM told ORDER BY n") == [(1,), (3,)]
    put(5)  # it takes writes again


def test_a_store_fails_at_the_given_change_and_passes_on_the_others(tmp_path: Path) -> None:
    looked: list[int] = []
    store = FailingStore(FolderStore(FolderRoot(tmp_path)), 2, lambda: looked.append(rows_of_glob(tmp_path / "x")))
    pl.DataFrame({"n": [1, 2, 3]}).write_parquet(tmp_path / "file")
    lake = store.as_store()
    lake.write("x/part-0000.parquet", (tmp_path / "file").read_bytes())
    with pytest.raises(LakeUnavailable, match="fails"):
        lake.write("x/part-0001.parquet", b"")
    lake.delete("x/part-0000.parquet")
    assert (looked, lake.read("x/part-0001.parquet")) == ([3, 0], None)
    (tmp_path / "x" / "part-0002.parquet").write_bytes(b"half a file")
    assert rows_of_glob(tmp_path / "x") == -1
