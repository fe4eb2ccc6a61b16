"""Where a server's files lie, and what is remembered between its starts.

    DATA_DIR/server.json        port, password and options of the last start; mode 0600, ours
    DATA_DIR/server.log         what the server says (the previous one beside it, once it is large)
    DATA_DIR/.lock              held by the process that manages this server
    DATA_DIR/cluster/           the database files, of the server's user
    DATA_DIR/cluster.location   instead of cluster/: names the folder that holds them

The last form is for root in a closed place: a checkout below /root cannot be entered by the unprivileged user that the
server must run as, and opening somebody's home is not ours to do. The files then go to /var/lib/kalshi-platform (or
/var/tmp/kalshi-platform), in a folder of their own. To begin anew there, remove DATA_DIR and the folder it names.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.local.postgres.programs import shared_root
from kalshi_platform.local.postgres.server_user import ServerUser, find_server_user

LOG_LIMIT_BYTES = 16 * 1024 * 1024

log = logging.getLogger(__name__)


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
    identity = find_server_user(cluster)
    if identity.can_enter(data_dir):
        return cluster, identity
    if cluster.exists():
        raise ConfigurationError(
            [
                f"user {identity.user}, who runs the server and owns {cluster}, can no longer enter {data_dir}: "
                "give that user execute permission on each folder above it"
            ]
        )
    readable = re.sub(r"[^A-Za-z0-9]+", "-", data_dir.name)[:32]
    key = sha256(os.fsencode(data_dir)).hexdigest()[:12]
    root = shared_root(identity, shared_roots)
    home = Path(tempfile.mkdtemp(prefix=f"{readable}-{key}-", dir=root))
    home.chmod(0o711)
    cluster = home / "cluster"
    log.warning(
        "user %s, who runs the database server, cannot enter %s: its files go to %s", identity.user, data_dir, cluster
    )
    return cluster, identity


def remember_cluster(data_dir: Path, cluster: Path) -> None:
    """Write the pointer for a cluster that lies elsewhere; called once its files are complete."""
    if cluster.parent != data_dir:
        (data_dir / "cluster.location").write_bytes(os.fsencode(cluster) + b"\n")


def rotate_log(path: Path) -> None:
    """Put a large log aside, keeping one previous."""
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
