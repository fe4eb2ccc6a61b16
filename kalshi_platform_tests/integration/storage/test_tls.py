"""PostgreSQL over TLS, as production is reached across hosts: with Debian's server, the embedded one has no OpenSSL."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.local.processes.ports import free_port
from kalshi_platform.storage.migrate import migrate
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.read import arrow_snapshot
from kalshi_platform_tests.fixtures.postgres import server_folder

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
pytestmark = pytest.mark.skipif(
    not PROGRAMS, reason="no PostgreSQL server with OpenSSL here (Debian's package postgresql has one)"
)


class TlsServer(NamedTuple):
    url: str
    """Without any sslmode."""
    authority: Path
    another_authority: Path


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate of `localhost` that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, key_file = folder / f"{name}.crt", folder / f"{name}.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    key_file.chmod(0o600)
    return pem, key_file


@pytest.fixture(scope="module")
def server() -> Iterator[TlsServer]:
    programs = PROGRAMS[-1].parent
    as_root = os.geteuid() == 0
    user = pwd.getpwnam("nobody") if as_root else None
    with server_folder() as folder:
        certificates, data = folder / "tls", folder / "data"
        for made in (certificates, data):
            made.mkdir()
        authority, key = certificate(certificates, "server")
        another, _ = certificate(certificates, "another")
        if user is not None:
            for path in (certificates, data, *certificates.iterdir()):
                os.chown(path, user.pw_uid, user.pw_gid)

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [programs / program, *arguments], check=True, timeout=120, cwd=folder, stdout=subprocess.DEVNULL,
                user=None if user is None else user.pw_uid, group=None if user is None else user.pw_gid,
                extra_groups=[] if as_root else None, env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            )  # fmt: skip

        port = free_port()
        run("initdb", "-D", str(data), "-U", "owner", "-A", "trust", "-E", "UTF8", "--no-sync")
        (data / "pg_hba.conf").write_text("hostssl all all all trust\n")
        settings = (
            f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c ssl=on"
            f" -c ssl_cert_file={authority} -c ssl_key_file={key}"
        )
        run("pg_ctl", "-D", str(data), "-w", "-l", str(data / "log"), "-o", settings, "start")
        try:
            yield TlsServer(f"postgresql://owner@localhost:{port}/postgres", authority, another)
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
            shutil.rmtree(data, ignore_errors=True)


def test_every_driver_verifies_the_server_and_speaks_tls(server: TlsServer) -> None:
    url = f"{server.url}?sslmode=verify-full&sslrootcert={server.authority}"
    query = "SELECT version AS tls FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    database = Database(url, name="production", pool_size=1)
    try:
        migrate(database, "catalog")
        with database.transaction() as transaction:
            assert transaction.fetch_one(query) == ("TLSv1.3",)
    finally:
        database.dispose()
    with arrow_snapshot(url) as snapshot:
        assert snapshot.table(query).to_pylist() == [{"tls": "TLSv1.3"}]


@pytest.mark.parametrize("driver", ["psycopg2", "adbc"])
def test_a_server_of_another_authority_or_name_is_refused(server: TlsServer, driver: str) -> None:
    by_address = server.url.replace("localhost", str(ipaddress.IPv4Address(0x7F000001)))
    for url in (
        f"{server.url}?sslmode=verify-full&sslrootcert={server.another_authority}",
        f"{by_address}?sslmode=verify-full&sslrootcert={server.authority}",
        f"{server.url}?sslmode=disable",  # this server takes no plain text
    ):
        with pytest.raises(DatabaseUnavailable):
            reach(url, driver)


def reach(url: str, driver: str) -> None:
    if driver == "adbc":
        with arrow_snapshot(url) as snapshot:
            snapshot.table("SELECT 1")
        return
    database = Database(url, name="production", pool_size=1)
    try:
        with database.transaction() as transaction:
            transaction.fetch_one("SELECT 1")
    finally:
        database.dispose()
