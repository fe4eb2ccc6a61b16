"""Ledgers and records are bounded, and what is said of books stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.market.times import us_from_datetime
from kalshi_platform_tests.fixtures.hand_filled_gatherer import delta_row, snapshot_row
from kalshi_platform_tests.fixtures.retention_world import HOUR, T0, RetentionWorld
from kalshi_platform_tests.fixtures.storage import MakeDatabase

SECOND = 1_000_000
LATE = HOUR + timedelta(days=9)
LATE_US = us_from_datetime(LATE) + 600 * SECOND
OF_HOUR = f"hour = '{HOUR.isoformat()}'"


@pytest.fixture
def world(make_database: MakeDatabase, tmp_path: Path) -> Iterator[RetentionWorld]:
    """Stream 1 ended in the old hour. Stream 2 follows B since then, and sends again nine days later."""
    made = RetentionWorld(make_database, tmp_path / "lake")
    for stream, ticker in ((1, "A"), (2, "B")):
        rows = [delta_row(ticker, ts_us=T0 + n * SECOND, seq=n + 2, stream_id=stream, occurrence=0) for n in range(100)]
        made.gatherer.commit(
            orderbook_deltas=rows,
            orderbook_snapshots=[snapshot_row(ticker, received_us=T0, seq=1, yes={5000: 100}, stream_id=stream)],
            segments=[(stream, 1, 101)],
            book_subscriptions=[(stream, ticker, 1, None)],
        )
    send(made, 102, LATE_US - 7_200 * SECOND)
    at = LATE_US - 3_600 * SECOND
    again = [snapshot_row("B", received_us=at, seq=202, yes={5000: 20_100}, stream_id=2)]
    ends: Any = [(2, "B", 1, 202), (2, "B", 202, None)]
    made.gatherer.commit(orderbook_snapshots=again, segments=[(2, 202, 202)], book_subscriptions=ends)
    send(made, 203, at)
    send(made, 303, LATE_US)
    with made.gatherer.database.transaction() as transaction:
        transaction.execute(
            "INSERT INTO sessions SELECT n, 'g1', 'c', 'wss://x', false, %(at)s, %(at)s FROM generate_series(1, 2) n",
            {"at": HOUR + timedelta(minutes=20)},
        )
        transaction.execute("UPDATE sessions SET closed_at = NULL WHERE session_id = 2")
        transaction.execute("UPDATE streams SET ended_at = %s WHERE stream_id = 1", (HOUR + timedelta(minutes=20),))
        # As the clock of that time dated them: the last one is of today.
        transaction.execute("UPDATE batches SET committed_at = time_max")
    merge_new(made.merging, SYSTEM_CLOCK)
    yield made
    made.gatherer.dispose()


def send(world: RetentionWorld, seq: int, at: int) -> None:
    """A hundred deltas of B in stream 2, one each second."""
    rows = [delta_row("B", ts_us=at + n * SECOND, seq=n + seq, stream_id=2) for n in range(100)]
    world.gatherer.commit(orderbook_deltas=rows, segments=[(2, seq, seq + 99)])


def said(world: RetentionWorld) -> list[list[tuple[Any, ...]]]:
    """What production says of the old hour, but for rows that are its own business."""
    return [
        world.rows(f"SELECT * FROM coverage WHERE {OF_HOUR} ORDER BY 1, 2"),
        world.rows(f"SELECT * FROM book_proofs WHERE {OF_HOUR} ORDER BY 2"),
        world.rows("SELECT * FROM book_checkpoints ORDER BY 1, 2, 3, 4"),
        world.rows(f"SELECT * FROM merge_statistics WHERE {OF_HOUR} ORDER BY 2, 3"),
    ]


def lines(world: RetentionWorld, table: str) -> int:
    return int(world.rows(f"SELECT count(*) FROM {table}", world.gatherer.database)[0][0])


def test_the_ledger_goes_with_its_rows_and_books_stay_right(world: RetentionWorld) -> None:
    world.close_for_real()
    world.export()
    before = said(world)
    assert before[0], "something is covered"
    dry = world.retain(days=11, dry_run=True)
    assert lines(world, "streams") == 2
    report = world.retain(days=11)
    assert not report.refused
    cleared = {(each.database, each.table): each.rows for each in report.cleared}
    assert {(each.database, each.table): each.rows for each in dry.cleared if each.table != "sessions"} == {
        key: rows for key, rows in cleared.items() if key[1] != "sessions"
    }
    assert [cleared["g1", table] for table in ("streams", "stream_segments", "book_subscriptions", "sessions")] == [
        1
    ] * 4
    assert cleared["g1", "batches"] == 4
    kept = world.rows("SELECT stream_id, seq_from FROM stream_segments ORDER BY 2", world.gatherer.database)
    assert kept == [(2, seq) for seq in (1, 102, 202, 203, 303)], "a stream that lives keeps all of its ledger"

    # The hours after it are closed as ever, and the old one keeps what was said of it.
    world.close_for_real(LATE - timedelta(hours=1))
    world.close_for_real(LATE)
    (share,) = world.rows(
        f"SELECT sum(to_ts - from_ts) FROM coverage WHERE ticker = 'B' AND hour = '{LATE.isoformat()}'"
    )
    assert share[0] >= timedelta(seconds=90)
    assert world.rows(f"SELECT state, count_e2 FROM book_at('B', '{(LATE + timedelta(minutes=11)).isoformat()}')") == [
        ("proven", 20_100 + 100 * (100 + 61))
    ]
    world.close_for_real()
    assert said(world)[:2] == before[:2]
    assert said(world)[3] == before[3]
    assert merge_new(world.merging, SYSTEM_CLOCK).rows_read == 0, "what was read is not read again"


def test_records_and_history_go_when_their_days_are_over_and_nothing_said_turns_false(world: RetentionWorld) -> None:
    world.close_for_real()
    world.export(also=("coverage", "book_checkpoints"))
    hole = f"SELECT reason FROM coverage_holes_explained('A', '{HOUR.isoformat()}', '{HOUR + timedelta(hours=1)}')"
    assert {reason for (reason,) in world.rows(hole)} == {"not covered"}
    world.retain(days=35)
    assert {reason for (reason,) in world.rows(hole)} == {"not covered", "dropped"}
    assert world.rows("SELECT count(*) FROM stream_claims") == [(0,)]
    assert world.rows("SELECT count(*) > 0 FROM book_proofs") == [(True,)]
    report = world.retain(days=48, history_days=40, records_days=40)
    assert not [each for each in report.refused if each.low < LATE - timedelta(days=1)]
    assert {reason for (reason,) in world.rows(hole)} == {"dropped"}
    for table in ("coverage", "book_checkpoints", "book_proofs", "closed_streams", "merge_statistics"):
        assert world.rows(f"SELECT count(*) FROM {table} WHERE {time_of(table)} < '2026-11-21'") == [(0,)], table
    assert world.rows(f"SELECT count(*) FROM hour_closes WHERE {OF_HOUR}") == [(1,)]
    world.close_for_real()
    assert {reason for (reason,) in world.rows(hole)} == {"dropped"}


def time_of(table: str) -> str:
    return {"coverage": "from_ts", "book_checkpoints": "checkpoint_ts"}.get(table, "hour")
