"""Finds the user that runs the database server, and runs programs as it: PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kalshi_platform.errors import ConfigurationError

UNPRIVILEGED_USER = "nobody"
# The arguments reach the program as they are. It is then no child of ours, and its output goes where errors go.
_DETACH = '"$@" </dev/null >&2 & echo $!'
_BARE: Mapping[str, str] = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "HOME": "/nonexistent"}
"""The environment of the database server's programs: the caller's variables for libpq or PostgreSQL are not for it."""


@dataclass(frozen=True, slots=True)
class ServerUser:
    """A user to start programs as; `drop` is False when it is the user we are already."""

    name: str
    uid: int
    gid: int
    drop: bool

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        output: IO[bytes] | None = None,
        timeout_s: float | None = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this user with a bare environment; its output is captured, or goes to the file `output`.

        The working directory is `/`, since ours may be closed to that user. Never raises for the exit code.
        """
        return subprocess.run(
            list(argv),
            env={**_BARE, **(env or {})},
            cwd="/",
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE if output is None else output,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
            user=self.uid if self.drop else None,
            group=self.gid if self.drop else None,
            extra_groups=[] if self.drop else None,
        )

    def start(self, argv: Sequence[str], output: IO[bytes]) -> int:
        """Start a program as this user that outlives us, in a session of its own, and return its pid."""
        started = subprocess.run(
            ["/bin/sh", "-c", _DETACH, "sh", *argv],
            env=_BARE,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            check=True,
            start_new_session=True,
            user=self.uid if self.drop else None,
            group=self.gid if self.drop else None,
            extra_groups=[] if self.drop else None,
        )
        return int(started.stdout)

    def has_name(self) -> bool:
        """Return whether this system knows a name for the user."""
        try:
            pwd.getpwuid(self.uid)
        except KeyError:
            return False
        return True

    def chown(self, path: Path) -> None:
        """Make this user the owner of one file or folder."""
        if self.drop:
            os.chown(path, self.uid, self.gid)

    def can_enter(self, folder: Path) -> bool:
        """Return whether this user can reach what lies in `folder`; tried, so that ACLs and mounts count."""
        return not self.drop or self.run(["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)]).returncode == 0

    def can_run(self, program: Path) -> bool:
        """Return whether this user can execute `program --version` (its libraries included)."""
        try:
            return self.run([str(program), "--version"]).returncode == 0
        except OSError:
            return False


def find_server_user(cluster: Path) -> ServerUser:
    """Return who runs the server of `cluster`: ourselves, or, for root, the cluster's owner or `nobody`.

    Raises ConfigurationError where the files belong to another user, or no unprivileged user is known.
    """
    owner = cluster.stat().st_uid if cluster.exists() else None
    mine = os.geteuid()
    if mine != 0:
        if owner is not None and owner != mine:
            raise ConfigurationError(
                [f"{cluster} belongs to user {_name_of(owner)}: run as that user or root, or set another data folder"]
            )
        return ServerUser(_name_of(mine), mine, os.getegid(), drop=False)
    try:
        entry = pwd.getpwuid(owner) if owner else pwd.getpwnam(UNPRIVILEGED_USER)
    except KeyError:
        raise ConfigurationError(
            [
                "PostgreSQL refuses to run as root and this system has no user "
                f"{owner or repr(UNPRIVILEGED_USER)} to run it as: run as an ordinary user, or set the database URLs"
            ]
        ) from None
    return ServerUser(entry.pw_name, entry.pw_uid, entry.pw_gid, drop=True)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
