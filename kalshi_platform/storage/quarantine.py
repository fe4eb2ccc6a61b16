"""Writes rows of which a database may refuse some: in ever smaller halves, until a refused row is alone.

So one bad row never holds up the rows beside it. A refusal that no row is to blame for (a table is missing, a right was
revoked, the server is away) is raised, and nothing is quarantined for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self, TypeVar

from kalshi_platform.errors import DatabaseUnavailable, StatementRejected
from kalshi_platform.storage.sqlstate import OUT_OF_MEMORY, is_about_a_row


class Sliceable(Protocol):
    """Rows in their order, such as a sequence or a polars frame."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: slice, /) -> Self: ...


Rows = TypeVar("Rows", bound=Sliceable)


class TooManyPartitions(Exception):
    """The rows lie in more partitions than one transaction should touch; nothing was written.

    Every partition holds places of the server's lock table until the commit.
    """


def may_pass_in_parts(error: Exception) -> bool:
    """Return whether the database may accept a part of the rows that it refused with this error.

    True where a row is at fault, where the rows need too many locks at once, and for errors of the conversion to what
    the driver sends (which are no errors of the database).
    """
    if isinstance(error, DatabaseUnavailable):
        return error.kind == OUT_OF_MEMORY  # of its lock table: fewer partitions need less of it
    if isinstance(error, StatementRejected):
        return is_about_a_row(error.sqlstate)
    return True


def write_in_parts(
    rows: Rows,
    write: Callable[[Rows], None],
    quarantine: Callable[[Rows, Exception], None],
    may_split: Callable[[Exception], bool] = may_pass_in_parts,
) -> None:
    """Call `write(rows)`; where it is refused, call it for both halves, and so on, in the order of the rows.

    `write` commits what it is given, or raises and has written nothing. A row that is refused alone
    goes to `quarantine(rows, error)`.
    Raises the error of `write` when `may_split(error)` is false, and DatabaseUnavailable for a single row: no row is to
    blame for it. What was written before stays written.
    """
    try:
        write(rows)
    except Exception as error:
        if not may_split(error):
            raise
        if len(rows) <= 1:
            if isinstance(error, DatabaseUnavailable):
                raise
            quarantine(rows, error)
            return
    else:
        return
    middle = len(rows) // 2
    write_in_parts(rows[:middle], write, quarantine, may_split)
    write_in_parts(rows[middle:], write, quarantine, may_split)
