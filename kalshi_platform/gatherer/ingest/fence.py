"""The right to change the ledger: for its owner only, and only on top of what the owner committed last.

The process that holds the lock of its name is the owner (see lock.py); with each of its changes it leaves a token in
the database and remembers it. A change whose row is not found under owner and token is rolled back: somebody else has
the name, or the database was restored or failed over to an older state. So nothing is ever written on top of a ledger
that this process does not know, and what it claims stays true.

After any failure the outcome of the last change is unknown, and it is not certain which server answers: `find_out`
comes before anything is changed again, and now and then.
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
    """Of one writer's thread, but for `owner`."""

    def __init__(
        self,
        owner: int | None = None,
        on_disowned: Callable[[], None] = lambda: None,
        on_begin_anew: Callable[[], None] = lambda: None,
        former_batch_no: int = 0,
    ) -> None:
        """`owner` as the lock has written it, None without one. `on_disowned()` hears that another stands there.

        `on_begin_anew()` is called when everything was ended in the ledger: every session must end, and another begin.
        `former_batch_no`: a batch that a former process is known to have committed.
        """
        self.owner = owner
        self.open = OpenLedger()
        self.is_certain = False
        """False: `find_out` must come first."""
        self.batch_no = 0
        """The number of the last batch that is known to be committed."""
        self._on_disowned = on_disowned
        self._on_begin_anew = on_begin_anew
        self._former_batch_no = former_batch_no
        self._number = 0
        self._token: int | None = None
        self._has_begun = False
        self._pending: tuple[int, Callable[[], None]] | None = None

    def next_batch(self, transaction: Transaction, ledger: Ledger) -> int:
        """Take the next batch number for a commit of `ledger`; `landed` must follow when it is committed.

        Raises DatabaseUnavailable when the ledger is another's, or not what the last commit left.
        """
        self._number = self._step(transaction, "next_own_batch", lambda: self.open.apply(ledger))
        return self._number

    def change(self, transaction: Transaction, then: Callable[[], None] = lambda: None) -> None:
        """Begin another change of the ledger. `then` is what it means for `open`. Raises like `next_batch`."""
        self._step(transaction, "own_ledger", then)

    def landed(self) -> None:
        """The change that was begun last is committed."""
        assert self._pending is not None  # noqa: S101 - it was begun
        self._token, then = self._pending
        self._pending = None
        self.batch_no = max(self.batch_no, self._number)
        then()

    def find_out(self, transaction: Transaction, *, all_is_ours: bool) -> tuple[str, str] | None:
        """Compare what the database holds with what was committed; the counter stays locked to the transaction's end.

        Returns an alarm's kind and detail where they differ; then `end_all` must follow, in this transaction, and
        `landed`. `all_is_ours`: no former process's sessions are open. Raises DatabaseUnavailable when the ledger is
        another's.
        """
        sql = queries.load("gatherer")
        row = transaction.fetch_one(sql["lock_ledger"])
        assert row is not None  # noqa: S101 - the migration inserts the counter's only row
        number, owner, token = row
        if owner != self.owner:
            raise self._not_owned(owner)
        if self._pending is not None and token == self._pending[0]:
            self.landed()
            self.batch_no = int(number)
        elif not self._has_begun:
            self._token, self.batch_no = token, max(int(number), self._former_batch_no)
            if number < self._former_batch_no:
                return WENT_BACK, self._lost(number)
            self._has_begun = True
        elif token != self._token:
            return WENT_BACK, self._lost(number)
        self._pending = None
        differs = difference(self.open.state(), _found(transaction), all_is_ours=all_is_ours)
        return None if differs is None else (DIFFERS, differs)

    def end_all(self, transaction: Transaction, kind: str) -> None:
        """End everything that the ledger holds open, with no more than its rows support; `landed` must follow.

        A database that went back holds a beginning of what was committed: there each book subscription reached the last
        number of its stream. Where a book subscription is open that should not be, nothing says where it ended: it
        claims nothing.
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
        self._on_begin_anew()

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

    def _lost(self, number: int) -> str:
        return (
            f"batch {self.batch_no} was committed, and the database, which stands at {number}, knows nothing of it: it"
            " was restored, failed over to an older state, or written by another process"
        )

    def _not_owned(self, owner: int | None) -> DatabaseUnavailable:
        self._on_disowned()
        whose = "another process's" if owner is not None else "nobody's"
        return DatabaseUnavailable(
            f"its ledger is {whose}: nothing is written before the lock of the name is held", kind=NOT_OWNED
        )


def _found(transaction: Transaction) -> OpenState:
    sql = queries.load("gatherer")
    return OpenState(
        frozenset(int(row[0]) for row in transaction.fetch_all(sql["open_sessions"])),
        {int(stream): last for stream, last in transaction.fetch_all(sql["open_streams"])},
        {
            int(stream): (int(count), int(seqs))
            for stream, count, seqs in transaction.fetch_all(sql["open_book_streams"])
        },
    )
