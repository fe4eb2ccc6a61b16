"""Restricts changes of the ledger to its owner, and to the state that the owner committed last (a fencing token).

The process with the lock of its name is the owner (see lock.py); each of its changes writes a token to the database and
keeps it in memory. A change that does not find owner and token in the database is rolled back: another process has the
name, or the database was restored or failed over to an older state. So nothing is ever written on top of a ledger that
this process has not written, and its claims stay true.

After any failure the outcome of the last change is unknown, and a different server may answer: `compare` comes before
the next change, and now and then.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable

from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.gatherer.ingest.ledger import Ledger
from kalshi_platform.gatherer.ingest.open_ledger import OpenLedger, OpenState, difference
from kalshi_platform.storage import queries
from kalshi_platform.storage.pool import Transaction

NOT_OWNED = "name not held"
MOVED = "ledger moved"
WENT_BACK = "database_went_back"
DIFFERS = "ledger_differs"
_TOKEN_BITS = 62


class Fence:
    """Keeps owner, token and open entries of a ledger. For the writer's thread, except `owner`."""

    def __init__(
        self,
        owner: int | None = None,
        on_disowned: Callable[[], None] = lambda: None,
        on_restart: Callable[[], None] = lambda: None,
        former_batch_no: int = 0,
    ) -> None:
        """Set up the fence; `owner` is the number that the lock wrote, None without one.

        `on_disowned()` is called when the database names another owner, `on_restart()` when everything was ended in the
        ledger: every session must end, and another one start. `former_batch_no`: a batch that a former process is known
        to have committed.
        """
        self.owner = owner
        self.open = OpenLedger()
        self.is_certain = False
        """Whether changes are allowed; while False, `compare` must come first."""
        self.batch_no = 0
        """Number of the last batch that is known to be committed."""
        self._on_disowned = on_disowned
        self._on_restart = on_restart
        self._former_batch_no = former_batch_no
        self._number = 0
        self._token: int | None = None
        self._has_begun = False
        self._pending: tuple[int, Callable[[], None]] | None = None

    def next_batch(self, transaction: Transaction, ledger: Ledger) -> int:
        """Reserve the next batch number for a commit of `ledger`; `confirm` must follow the commit.

        Raises DatabaseUnavailable when another process owns the ledger, or it is not as the last commit left it.
        """
        self._number = self._step(transaction, "next_own_batch", lambda: self.open.apply(ledger))
        return self._number

    def change(self, transaction: Transaction, then: Callable[[], None] = lambda: None) -> None:
        """Begin another change of the ledger; `then` applies it to `open`. Raises like `next_batch`."""
        self._step(transaction, "own_ledger", then)

    def confirm(self) -> None:
        """Apply the change that was begun last, which is committed."""
        assert self._pending is not None  # noqa: S101 - it was begun
        self._token, then = self._pending
        self._pending = None
        self.batch_no = max(self.batch_no, self._number)
        then()

    def compare(self, transaction: Transaction, *, former_is_closed: bool) -> tuple[str, str] | None:
        """Compare the database's ledger with what was committed; return an alarm's kind and detail where they differ.

        After a difference `end_all` must follow, in this transaction, and `confirm`. The counter stays locked to the
        transaction's end. `former_is_closed`: no former process's sessions are open. Raises DatabaseUnavailable when
        another process owns the ledger.
        """
        sql = queries.load("gatherer")
        row = transaction.fetch_one(sql["lock_ledger"])
        assert row is not None  # noqa: S101 - the migration inserts the counter's only row
        number, owner, token = row
        if owner != self.owner:
            raise self._not_owned(owner)
        if self._pending is not None and token == self._pending[0]:
            self.confirm()
            self.batch_no = int(number)
        elif not self._has_begun:
            self._token, self.batch_no = token, max(int(number), self._former_batch_no)
            if number < self._former_batch_no:
                return WENT_BACK, self._describe_loss(number)
            self._has_begun = True
        elif token != self._token:
            return WENT_BACK, self._describe_loss(number)
        self._pending = None
        detail = difference(self.open.state(), _read_open_state(transaction), former_is_closed=former_is_closed)
        return None if detail is None else (DIFFERS, detail)

    def end_all(self, transaction: Transaction, kind: str) -> None:
        """End everything that is open in the ledger, at what its rows support; `confirm` must follow.

        A database that went back contains a prefix of what was committed: there each book subscription reached the last
        number of its stream. A book subscription that is open but should not be has no known end: it claims nothing.
        """
        sql = queries.load("gatherer")
        token = secrets.randbits(_TOKEN_BITS)
        row = transaction.fetch_one(sql["set_owner_token"], {"token": token})
        if kind == DIFFERS:
            known = self.open.starts()
            transaction.execute(
                sql["end_unknown_book_subscriptions"],
                {
                    "streams": [each[0] for each in known],
                    "tickers": [each[1] for each in known],
                    "seqs": [each[2] for each in known],
                },
            )
        for name in ("end_all_book_subscriptions", "end_all_streams", "close_all_sessions"):
            transaction.execute(sql[name])
        self._pending = (token, functools.partial(self._all_ended, int(row[0]) if row else 0))

    def _all_ended(self, batch_no: int) -> None:
        self._has_begun, self.batch_no = True, batch_no
        self.open.end_all()
        self._on_restart()

    def _step(self, transaction: Transaction, statement: str, then: Callable[[], None]) -> int:
        token = secrets.randbits(_TOKEN_BITS)
        row = transaction.fetch_one(
            queries.load("gatherer")[statement], {"owner": self.owner, "last": self._token, "token": token}
        )
        if row is None:
            self.is_certain = False
            raise DatabaseUnavailable("its ledger is not what the last commit left there", kind=MOVED)
        self._pending = (token, then)
        return int(row[0])

    def _describe_loss(self, number: int) -> str:
        return (
            f"batch {self.batch_no} was committed, and the database, which stands at {number}, knows nothing of it: it"
            " was restored, failed over to an older state, or written by another process"
        )

    def _not_owned(self, owner: int | None) -> DatabaseUnavailable:
        self._on_disowned()
        owned_by = "another process's" if owner is not None else "nobody's"
        return DatabaseUnavailable(
            f"its ledger is {owned_by}: nothing is written before the lock of the name is held", kind=NOT_OWNED
        )


def _read_open_state(transaction: Transaction) -> OpenState:
    sql = queries.load("gatherer")
    return OpenState(
        frozenset(int(row[0]) for row in transaction.fetch_all(sql["open_sessions"])),
        {int(stream): last for stream, last in transaction.fetch_all(sql["open_streams"])},
        {
            int(stream): (int(count), int(seqs))
            for stream, count, seqs in transaction.fetch_all(sql["open_book_streams"])
        },
    )
