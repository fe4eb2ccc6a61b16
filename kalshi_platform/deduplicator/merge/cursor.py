"""Keeps how far each gatherer has been read: a cursor over its batch numbers.

A gatherer takes a batch number under a row lock that it holds to its commit, so numbers become visible in order and a
cursor over them misses nothing; cursors over times or ids lose rows that are committed late. The cursor is stored in
production, in the transaction that brings the rows.

A number alone does not name a batch: a database that was restored, or failed over to an older state, gives numbers
again. So every batch has a random token, the cursor stands at a batch that left a line and keeps its token, and a
gatherer that does not show this token under this number is read from its beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from kalshi_platform.deduplicator.merge.source import (
    HOURS_AT_ONCE,
    Window,
    group_windows,
    partitioned_windows,
    read_batches,
    weigh_rows,
)
from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.market.tables import MERGED_TABLES
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.pool import Transaction
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import ArrowSnapshot, arrow_snapshot

_SQL = load(Path(__file__).with_name("queries.sql"))

# A pass never reads more lines of `batches` than this, however few rows they bring.
BATCHES_PER_PASS = 20_000
_log = event_logger(__name__)


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

    `token` is None where the batch is older than tokens. Then `last_commit`, the number and the commit time of a batch
    that left a line, tells whether the database still is the one that was read.
    """

    batch_no: int = 0
    token: str | None = None
    last_commit: tuple[int, datetime] | None = None


@dataclass(frozen=True)
class ReadPlan:
    """What one pass reads of a gatherer: after < batch_no ≤ until, per table within `windows`. `behind`: there is more.

    `last`: a line of batch `until`; None when there is nothing new.
    """

    after: int
    until: int
    windows: Mapping[str, tuple[Window, ...]]
    behind: bool
    newest_commit: datetime | None = None
    last: Batch | None = None


@dataclass(frozen=True)
class ReadResult:
    """New rows of one gatherer, read in one snapshot. `cursor`: the stored position; `plan.after` may differ from it.

    `restarted`: the cursor's batch is not in this database, so that it is read from its beginning.
    """

    source: str
    cursor: Position
    plan: ReadPlan
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    restarted: bool = False
    newest_age_s: float | None = None
    """Age of the newest commit among the rows when they had been read, by the clock of the gatherer's database."""

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.num_rows for table in self.tables.values())


def plan_read(batches: Sequence[Batch], after: int, rows_per_pass: int, *, is_cut: bool = False) -> ReadPlan:
    """Plan to read as many batches (ascending by number) as give at most `rows_per_pass` weighted rows, at least one.

    `is_cut`: there are more lines than `batches`, so that the last number may lack some of its lines.
    """
    if is_cut:
        end = batches[-1].batch_no
        batches = [line for line in batches if line.batch_no < end]
    chosen: list[Batch] = []
    rows = 0
    behind = is_cut
    for lines in _group_by_number(batches):
        count = sum(weigh_rows(line.table, line.rows, line.size) for line in lines)
        if chosen and rows + count > rows_per_pass:
            behind = True
            break
        chosen.extend(lines)
        rows += count
    windows = {table: merge_windows(line for line in chosen if line.table == table) for table in MERGED_TABLES}
    newest = max((line.committed_at for line in chosen), default=None)
    last = chosen[-1] if chosen else None
    return ReadPlan(
        after, after if last is None else last.batch_no, {table: found for table, found in windows.items() if found},
        behind, newest, last,
    )  # fmt: skip


def merge_windows(lines: Iterable[Batch]) -> tuple[Window, ...]:
    """Return the least disjoint windows that cover all lines: late rows do not widen the reading of punctual ones."""
    windows: list[Window] = []
    for low, high in sorted((line.time_min, line.time_max) for line in lines):
        if windows and low <= windows[-1][1]:
            windows[-1] = (windows[-1][0], max(windows[-1][1], high))
        else:
            windows.append((low, high))
    return tuple(windows)


def read_new_rows(source: GathererSource, position: Position, rows_per_pass: int) -> ReadResult:
    """Read what came after `position`, ledger and rows in one snapshot. Raises DatabaseUnavailable."""
    with arrow_snapshot(source.timeseries_url) as snapshot:
        restarted = not _is_same_history(snapshot, position)
        after = 0 if restarted else position.batch_no
        batches = _read_batches(snapshot, after)
        planned = plan_read(batches, after, rows_per_pass, is_cut=len(batches) >= BATCHES_PER_PASS)
        if restarted:
            _log.error(
                "cursor_batch_gone", gatherer=source.name, batch_no=position.batch_no, rows_per_pass=rows_per_pass,
                consequence="its database was restored, failed over to an older state, or made anew; it is read from"
                " its beginning",
            )  # fmt: skip
        pieces = {
            table: group_windows(partitioned_windows(snapshot, table, windows), HOURS_AT_ONCE)
            for table, windows in planned.windows.items()
        }
        age_s = None if planned.newest_commit is None else _age_s(snapshot, planned.newest_commit)
        found = {
            table: [read_batches(snapshot, table, after, planned.until, groups[0])] for table, groups in pieces.items()
        }
    for table, groups in pieces.items():
        for group in groups[1:]:
            # These batches are committed and stay as they are, so that a later snapshot has them as well.
            with arrow_snapshot(source.timeseries_url) as snapshot:
                found[table].append(read_batches(snapshot, table, after, planned.until, group))
    tables = {table: pa.concat_tables(parts) for table, parts in found.items()}
    return ReadResult(source.name, position, planned, tables, restarted, age_s)


def load_positions(transaction: Transaction) -> dict[str, Position]:
    """Read the stored positions by gatherer."""
    rows = transaction.fetch_all(_SQL["read_cursors"])
    return {
        name: Position(number, token, None if last_no is None or at is None else (last_no, at))
        for name, number, token, last_no, at in rows
    }


def advance(transaction: Transaction, result: ReadResult) -> None:
    """Move the cursor of a gatherer, unless another merge moved it since it was read (then that progress stays)."""
    last = result.plan.last
    moved = transaction.execute(
        _SQL["advance_cursor"],
        {
            "name": result.source,
            "until": result.plan.until,
            "rows": result.rows,
            "cursor": result.cursor.batch_no,
            "cursor_token": result.cursor.token,
            "token": last.token if last else None,
            "last_no": last.batch_no if last else None,
            "last_at": last.committed_at if last else None,
            # Nothing new: it stands where it stood.
            "keep": last is None and not result.restarted,
        },
    )
    if not moved:
        _log.info("cursor_moved_by_another_merge", gatherer=result.source)


def record_error(transaction: Transaction, gatherer: str, error: str) -> None:
    """Record why a gatherer could not be read; its cursor stays."""
    transaction.execute(_SQL["record_read_error"], {"name": gatherer, "error": error})


def _is_same_history(snapshot: ArrowSnapshot, position: Position) -> bool:
    """Return whether the gatherer's database still is the one that was read up to `position`."""
    if position.batch_no == 0:
        return True
    counter = snapshot.table(_SQL["read_batch_counter"]).to_pylist()
    if not counter or counter[0]["last_batch_no"] < position.batch_no:
        return False
    if position.token is None:
        return _has_last_commit(snapshot, position)
    # Retention may have dropped all lines of a gatherer that stands still; the counter knows its last batch.
    if (counter[0]["last_batch_no"], counter[0]["token"]) == (position.batch_no, position.token):
        return True
    # Where the line was dropped although there are newer ones, the beginning is where these begin.
    lines = snapshot.table(_SQL["read_batch_tokens"], (position.batch_no,))
    return position.token in lines.column(0).to_pylist()


def _has_last_commit(snapshot: ArrowSnapshot, position: Position) -> bool:
    if position.last_commit is None:
        return True
    number, committed_at = position.last_commit
    lines = snapshot.table(_SQL["read_commit_times"], (number,)).column(0).to_pylist()
    if lines:
        # Each line of a batch (one per table) has a moment of its own.
        return committed_at in lines
    # Retention drops old lines first: where older ones stand, this one cannot have been dropped.
    oldest = snapshot.table(_SQL["find_oldest_batch"]).column(0)[0].as_py()
    return oldest is None or oldest >= number


def _read_batches(snapshot: ArrowSnapshot, after: int) -> list[Batch]:
    found = snapshot.table(_SQL["read_batches"], (after, BATCHES_PER_PASS))
    return [Batch(*row.values()) for row in found.to_pylist()]


def _age_s(snapshot: ArrowSnapshot, committed_at: datetime) -> float:
    """Return how long ago a commit was, by the clock that dated it."""
    found = snapshot.table(_SQL["read_age"], (committed_at,))
    return max(0.0, float(found.column(0)[0].as_py()))


def _group_by_number(batches: Sequence[Batch]) -> Iterable[list[Batch]]:
    lines: list[Batch] = []
    for line in batches:
        if lines and line.batch_no != lines[0].batch_no:
            yield lines
            lines = []
        lines.append(line)
    if lines:
        yield lines
