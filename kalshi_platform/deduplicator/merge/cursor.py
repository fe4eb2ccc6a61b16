"""How far each gatherer has been read: a cursor over its batch numbers.

A gatherer takes a batch number under a row lock that it holds to its commit, so numbers become visible in order and a
cursor over them misses nothing; cursors over times or ids lose rows that are committed late. The cursor is stored in
production, in the transaction that brings the rows.

A number alone does not name a batch: a database that was restored, or failed over to an older state, gives numbers
again. So every batch has a random token, the cursor stands at a batch that left a line and keeps its token, and a
gatherer that does not show this token under this number is read from its beginning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa

from kalshi_platform.deduplicator.merge.source import (
    HOURS_AT_ONCE,
    Window,
    cut,
    occupied,
    rows_of_batches,
    weighted_rows,
)
from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.market.tables import MERGED_TABLES
from kalshi_platform.storage.pool import Transaction
from kalshi_platform.storage.read import ArrowSnapshot, arrow_snapshot

# A pass never looks at more ledger lines than this, however few rows they bring.
BATCHES_PER_PASS = 20_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """One line of a gatherer's `batches`: rows of one table that one commit brought, and where they lie in time."""

    batch_no: int
    table: str
    rows: int
    time_min: datetime
    time_max: datetime
    committed_at: datetime
    token: str | None = None
    size: int | None = None
    """Bytes of its rows as Arrow; None on an old line."""


@dataclass(frozen=True)
class Position:
    """The batch up to which a gatherer was read.

    `token` is None where the batch is older than tokens: then `mark`, number and commit of a batch that left a line,
    says whether the gatherer still is the one that was read.
    """

    batch_no: int = 0
    token: str | None = None
    mark: tuple[int, datetime] | None = None


@dataclass(frozen=True)
class Pass:
    """What one pass reads: after < batch_no ≤ until, per table within `windows`; `behind`: there is more.

    `last`: a line of batch `until`; None when there is nothing new.
    """

    after: int
    until: int
    windows: Mapping[str, tuple[Window, ...]]
    behind: bool
    newest_commit: datetime | None = None
    last: Batch | None = None


@dataclass(frozen=True)
class NewRows:
    """New rows of one gatherer, read in one snapshot. `cursor` is the stored one, from which `read` may differ.

    `restarted`: the cursor's batch is not in this database, so that it is read from its beginning.
    """

    source: str
    cursor: Position
    read: Pass
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    restarted: bool = False
    newest_age_s: float | None = None
    """When its rows had been read: the age of the newest commit among them, by the gatherer's database's own clock."""

    @property
    def rows(self) -> int:
        return sum(table.num_rows for table in self.tables.values())


def plan(batches: Sequence[Batch], after: int, rows_per_pass: int, *, cut: bool = False) -> Pass:
    """Take as many batches (ascending by number) as give at most `rows_per_pass` weighted rows, but at least one.

    `cut`: there are more lines than `batches`, so that the last number may lack some of its lines.
    """
    if cut:
        end = batches[-1].batch_no
        batches = [line for line in batches if line.batch_no < end]
    taken: list[Batch] = []
    rows = 0
    behind = cut
    for lines in _by_number(batches):
        count = sum(weighted_rows(line.table, line.rows, line.size) for line in lines)
        if taken and rows + count > rows_per_pass:
            behind = True
            break
        taken.extend(lines)
        rows += count
    windows = {table: merged_windows(line for line in taken if line.table == table) for table in MERGED_TABLES}
    newest = max((line.committed_at for line in taken), default=None)
    last = taken[-1] if taken else None
    return Pass(
        after, after if last is None else last.batch_no, {table: found for table, found in windows.items() if found},
        behind, newest, last,
    )  # fmt: skip


def merged_windows(lines: Iterable[Batch]) -> tuple[Window, ...]:
    """The smallest disjoint windows that cover all lines: late rows do not widen the reading of punctual ones."""
    windows: list[Window] = []
    for low, high in sorted((line.time_min, line.time_max) for line in lines):
        if windows and low <= windows[-1][1]:
            windows[-1] = (windows[-1][0], max(windows[-1][1], high))
        else:
            windows.append((low, high))
    return tuple(windows)


def read_new(source: GathererSource, position: Position, rows_per_pass: int) -> NewRows:
    """Read what came after `position`, ledger and rows in one snapshot. Raises DatabaseUnavailable."""
    with arrow_snapshot(source.timeseries_url) as snapshot:
        restarted = not _holds(snapshot, position)
        after = 0 if restarted else position.batch_no
        batches = _batches(snapshot, after)
        planned = plan(batches, after, rows_per_pass, cut=len(batches) >= BATCHES_PER_PASS)
        if restarted:
            _log.error(
                "%s: batch %d, at which the cursor stands, is not in its database, which was restored, failed over to"
                " an older state, or made anew; reading it from its beginning, %d rows at a time",
                source.name, position.batch_no, rows_per_pass,
            )  # fmt: skip
        pieces = {
            table: cut(occupied(snapshot, table, windows), HOURS_AT_ONCE) for table, windows in planned.windows.items()
        }
        age_s = None if planned.newest_commit is None else _age_s(snapshot, planned.newest_commit)
        found = {
            table: [rows_of_batches(snapshot, table, after, planned.until, groups[0])]
            for table, groups in pieces.items()
        }
    for table, groups in pieces.items():
        for group in groups[1:]:
            # These batches are committed and stay as they are, so that a later snapshot has them as well.
            with arrow_snapshot(source.timeseries_url) as snapshot:
                found[table].append(rows_of_batches(snapshot, table, after, planned.until, group))
    tables = {table: pa.concat_tables(parts) for table, parts in found.items()}
    return NewRows(source.name, position, planned, tables, restarted, age_s)


def load(transaction: Transaction) -> dict[str, Position]:
    """The stored cursors by gatherer."""
    rows = transaction.fetch_all(
        "SELECT gatherer, batch_no, token::text, last_commit_batch_no, last_commit_at FROM merge_cursors"
    )
    return {
        name: Position(number, token, None if mark is None or at is None else (mark, at))
        for name, number, token, mark, at in rows
    }


def advance(transaction: Transaction, read: NewRows) -> None:
    """Move the cursor of a gatherer, unless somebody else moved it since it was read (then their progress stays)."""
    last = read.read.last
    moved = transaction.execute(
        "INSERT INTO merge_cursors AS t (gatherer, batch_no, rows_read, token, last_commit_batch_no, last_commit_at)"
        " VALUES (%(name)s, %(until)s, %(rows)s, %(token)s, %(mark)s, %(marked_at)s)"
        " ON CONFLICT (gatherer) DO UPDATE SET batch_no = excluded.batch_no, merged_at = clock_timestamp(),"
        " rows_read = t.rows_read + excluded.rows_read, last_error = NULL,"
        " token = CASE WHEN %(keep)s THEN t.token ELSE excluded.token END,"
        " last_commit_batch_no = CASE WHEN %(keep)s THEN t.last_commit_batch_no ELSE excluded.last_commit_batch_no END,"
        " last_commit_at = CASE WHEN %(keep)s THEN t.last_commit_at ELSE excluded.last_commit_at END"
        " WHERE t.batch_no = %(cursor)s AND t.token IS NOT DISTINCT FROM %(cursor_token)s::uuid",
        {
            "name": read.source,
            "until": read.read.until,
            "rows": read.rows,
            "cursor": read.cursor.batch_no,
            "cursor_token": read.cursor.token,
            "token": last.token if last else None,
            "mark": last.batch_no if last else None,
            "marked_at": last.committed_at if last else None,
            # Nothing new: it stands where it stood.
            "keep": last is None and not read.restarted,
        },
    )
    if not moved:
        _log.info("%s: another merge moved the cursor meanwhile; it stays", read.source)


def record_error(transaction: Transaction, gatherer: str, error: str) -> None:
    """Remember why a gatherer could not be read; its cursor stays."""
    transaction.execute(
        "INSERT INTO merge_cursors AS t (gatherer, batch_no, last_error, last_error_at)"
        " VALUES (%(name)s, 0, %(error)s, clock_timestamp())"
        " ON CONFLICT (gatherer) DO UPDATE SET last_error = excluded.last_error,"
        " last_error_at = excluded.last_error_at",
        {"name": gatherer, "error": error},
    )


def _holds(snapshot: ArrowSnapshot, position: Position) -> bool:
    """Whether the gatherer's database still is the one that was read up to `position`."""
    if position.batch_no == 0:
        return True
    counter = snapshot.table(
        "SELECT last_batch_no, last_token::text AS token FROM batch_counter ORDER BY last_batch_no DESC LIMIT 1"
    ).to_pylist()
    if not counter or counter[0]["last_batch_no"] < position.batch_no:
        return False
    if position.token is None:
        return _holds_mark(snapshot, position)
    # Retention may have dropped all lines of a gatherer that stands still; the counter knows its last batch.
    if (counter[0]["last_batch_no"], counter[0]["token"]) == (position.batch_no, position.token):
        return True
    # Where the line was dropped although there are newer ones, the beginning is where these begin.
    lines = snapshot.table("SELECT token::text AS token FROM batches WHERE batch_no = $1", (position.batch_no,))
    return position.token in lines.column(0).to_pylist()


def _holds_mark(snapshot: ArrowSnapshot, position: Position) -> bool:
    if position.mark is None:
        return True
    number, committed_at = position.mark
    lines = snapshot.table("SELECT committed_at FROM batches WHERE batch_no = $1", (number,)).column(0).to_pylist()
    if lines:
        # Each line of a batch (one per table) has a moment of its own.
        return committed_at in lines
    # Retention drops old lines first: where older ones stand, this one cannot have been dropped.
    oldest = snapshot.table("SELECT min(batch_no) FROM batches").column(0)[0].as_py()
    return oldest is None or oldest >= number


def _batches(snapshot: ArrowSnapshot, after: int) -> list[Batch]:
    found = snapshot.table(
        "SELECT batch_no, table_name, rows, time_min, time_max, committed_at, token::text, bytes FROM batches"
        " WHERE batch_no > $1 ORDER BY batch_no, table_name LIMIT $2",
        (after, BATCHES_PER_PASS),
    )
    return [Batch(*row.values()) for row in found.to_pylist()]


def _age_s(snapshot: ArrowSnapshot, committed_at: datetime) -> float:
    """How long ago that was, by the clock that dated it."""
    found = snapshot.table("SELECT extract(epoch FROM clock_timestamp() - $1::timestamptz)::float8", (committed_at,))
    return max(0.0, float(found.column(0)[0].as_py()))


def _by_number(batches: Sequence[Batch]) -> Iterable[list[Batch]]:
    lines: list[Batch] = []
    for line in batches:
        if lines and line.batch_no != lines[0].batch_no:
            yield lines
            lines = []
        lines.append(line)
    if lines:
        yield lines
