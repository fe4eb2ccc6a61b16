"""Locks a gatherer's name for one process: its folder, and an advisory lock in its database while that is reachable.

The first works within a machine and needs no database. The second also excludes a process on another machine: losing it
with the database stops nothing, but another live session with the lock does. In the session with the lock the process
makes itself the owner of the ledger, which no other process can change then (see fence.py).
"""

from __future__ import annotations

import contextlib
import random

from filelock import FileLock, Timeout

from kalshi_platform.clock import Clock
from kalshi_platform.errors import AnotherWriter, DatabaseUnavailable, StatementRejected
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage import queries
from kalshi_platform.storage.pool import AdvisoryLock, Database
from kalshi_platform.storage.sqlstate import READ_ONLY

_log = event_logger(__name__)
_PROBE_S = 0.5
"""`is_folder_locked` has the lock for an instant."""


def is_folder_locked(settings: GathererSettings) -> bool:
    """Return whether a process holds the lock of a gatherer's folder, that is, whether it records on this host."""
    try:
        with _folder_lock(settings):
            return False
    except Timeout:
        return True


def _folder_lock(settings: GathererSettings) -> FileLock:
    return FileLock(settings.folder / ".lock", 0, mode=0o600, thread_local=False, fallback_to_soft=False)


class GathererLock:
    """Keeps both locks of one gatherer; `check` is for one thread, `mark_ledger_lost` for any."""

    def __init__(self, settings: GathererSettings, database: Database, clock: Clock) -> None:
        self._name = settings.name
        self._folder = settings.folder
        self._patience_s = settings.lease_patience_s
        self._database = database
        self._clock = clock
        self._file = _folder_lock(settings)
        self._stack = contextlib.ExitStack()
        self._database_lock: AdvisoryLock | None = None
        self._refused_since: float | None = None
        self.owner = random.SystemRandom().getrandbits(62)
        """The number that this process writes into the database as the ledger's owner."""
        self._is_owner = False
        self._ledger_error: str | None = None

    @property
    def has_database_lock(self) -> bool:
        """Return whether this process had the database's lock at the last check."""
        return self._database_lock is not None

    def acquire_folder(self) -> None:
        """Acquire the lock of the folder, which the kernel frees when the process dies. Raises AnotherWriter."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._file.acquire(timeout=_PROBE_S)
        except Timeout:
            raise AnotherWriter(f"gatherer {self._name}: another process uses {self._folder}") from None

    def check(self) -> bool:
        """Keep or acquire the database's lock; return whether this process has it.

        False means that the database is unavailable, or that another session has the lock. Raises AnotherWriter when
        another session has had it for `lease_patience_s`.
        """
        if self._database_lock is not None:
            if self._database_lock.is_held():
                self._claim_ledger(self._database_lock)
                return self.has_database_lock
            self._drop_database_lock()
        try:
            lock = self._stack.enter_context(self._database.advisory_lock("gatherer", self._name))
        except DatabaseUnavailable:
            self._refused_since = None
            return False
        if lock is not None:
            self._database_lock = lock
            self._refused_since = None
            self._claim_ledger(lock)
            return self.has_database_lock
        self._drop_database_lock()
        now = self._clock.monotonic()
        if self._refused_since is None:
            self._refused_since = now
            _log.warning("name_held_by_another_session", gatherer=self._name, database=repr(self._database))
        if now - self._refused_since >= self._patience_s:
            raise AnotherWriter(f"gatherer {self._name}: another process writes into {self._database!r}")
        return False

    def mark_ledger_lost(self) -> None:
        """Make `check` claim the ledger again, because the database names another owner or none."""
        self._is_owner = False

    def _claim_ledger(self, lock: AdvisoryLock) -> None:
        """Become the owner of the ledger, in the session with the lock; each database has one owner."""
        if self._is_owner:
            return
        sql = queries.load("gatherer")
        try:
            row = lock.fetch_one(sql["owner_name"])
            other = None if row is None else row[0]
            if other not in (None, self._name) and not lock.is_free("gatherer", str(other)):
                raise AnotherWriter(
                    f"gatherer {self._name}: gatherer {other} writes into {self._database!r}; each needs a database of"
                    " its own: two that share one are one observer, not two"
                )
            lock.fetch_one(sql["take_ledger"], {"owner": self.owner, "name": self._name})
        except (DatabaseUnavailable, StatementRejected) as error:
            # A statement that timed out, or a database that is not migrated: the next check tries again.
            if str(error) != self._ledger_error:
                _log.warning("ledger_not_claimed", gatherer=self._name, error=error)
                self._ledger_error = str(error)
            if isinstance(error, DatabaseUnavailable) and error.kind == READ_ONLY:
                # The session stays read-only, also when the database accepts writes again.
                self._drop_database_lock()
            return
        self._is_owner, self._ledger_error = True, None

    @property
    def is_refused(self) -> bool:
        """Return whether another session had the database's lock at the last check."""
        return self._refused_since is not None

    def release(self) -> None:
        """Release both locks; the folder's first, because an unresponsive database may delay the other one."""
        self._file.release(force=True)
        self._drop_database_lock()

    def _drop_database_lock(self) -> None:
        self._database_lock = None
        self._is_owner = False
        with contextlib.suppress(DatabaseUnavailable):
            self._stack.close()
