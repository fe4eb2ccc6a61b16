"""An hour closed again after the ground moved: rows dropped by a gatherer or by production, a database restored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close import hour_work
from kalshi_platform.deduplicator.close.verify_hour import HourVerification, verify_hour
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.errors import HourDropped
from kalshi_platform.market.times import US_PER_S
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.hand_filled_gatherer import GathererDatabase, snapshot_row
from kalshi_platform_tests.fixtures.merge_world import MergeWorld
from kalshi_platform_tests.integration.deduplicator.test_close_coverage import HOUR, MINUTE, START, close, every, record

World = Callable[..., MergeWorld]
END = HOUR + timedelta(hours=1)


def record_two_snapshots(gatherer: GathererDatabase, stream_id: int, minutes: int = 2) -> None:
    """Deltas every 2 s in commits of ten, a second snapshot of A that they lead to, and more of them after the hour."""
    count = minutes * 30
    record(gatherer, stream_id, every(2, count), cuts=tuple(range(10, count, 10)))
    at = START + (2 * count + 1) * US_PER_S
    seq = count + 3
    book: Any = {5000: 1_000 + 100 * count}
    again = snapshot_row("A", received_us=at, seq=seq, stream_id=stream_id, yes=book)
    gatherer.commit(orderbook_snapshots=[again], segments=[(stream_id, seq, seq)],
                    book_subscriptions=[(stream_id, "A", 1, seq), (stream_id, "A", seq, None)])  # fmt: skip
    later = [*every(2, 10, at), *every(1, 5, START + 50 * MINUTE)]
    rows = [{**row, "stream_id": stream_id, "seq": seq + 1 + n} for n, row in enumerate(later)]
    gatherer.commit(orderbook_deltas=rows[:10], segments=[(stream_id, seq + 1, seq + 10)])
    gatherer.commit(orderbook_deltas=rows[10:], segments=[(stream_id, seq + 11, seq + 15)])


def drop(database: Database, table: str = "orderbook_deltas", days: int = 0) -> None:
    with database.transaction() as transaction:
        transaction.execute("SELECT drop_partitions_before(%s, %s)", (table, END + timedelta(days=days)))


def run(database: Database, *statements: str) -> None:
    with database.transaction() as transaction:
        for statement in statements:
            transaction.execute(statement)


def said(world: MergeWorld) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that production says of the hour."""
    hour = f"hour = '{HOUR.isoformat()}'"
    return {
        "coverage": world.rows(f"SELECT * FROM coverage WHERE {hour} ORDER BY 1, 2"),
        "claims": world.rows(f"SELECT * FROM stream_claims WHERE {hour} ORDER BY ticker, from_ts, gatherer, stream_id"),
        "proofs": world.rows(f"SELECT * FROM book_proofs WHERE {hour} ORDER BY 2"),
        "checkpoints": world.rows(
            f"SELECT * FROM book_checkpoints WHERE checkpoint_ts < '{END.isoformat()}' ORDER BY 1, 2, 3, 4"),
        "statistics": world.rows(f"SELECT * FROM merge_statistics WHERE {hour} ORDER BY 2, 3"),
            "alarms": world.rows(f"SELECT kind, subject, detail FROM close_alarms WHERE {hour} ORDER BY 1, 2"),
        "closed": world.rows(f"SELECT rows, checkpoints, markets, open_us, covered_us FROM hour_closes WHERE {hour}"),
    }  # fmt: skip


LOSSES: dict[str, Callable[[Database], None]] = {
    "dropped": drop,
    "its snapshots dropped": lambda database: drop(database, "orderbook_snapshots", days=1),
    "partition detached": lambda database: run(
        database, f"ALTER TABLE orderbook_deltas DETACH PARTITION orderbook_deltas_p{HOUR:%Y%m%d%H}"
    ),
    "a commit's rows deleted": lambda database: run(database, "DELETE FROM orderbook_deltas WHERE batch_no = 4"),
    "restored to an older state": lambda database: run(
        database,
        "DELETE FROM orderbook_deltas WHERE batch_no > 4",
        "DELETE FROM orderbook_snapshots WHERE batch_no > 4",
        "DELETE FROM book_subscriptions WHERE batch_no > 4",
        "INSERT INTO book_subscriptions SELECT stream_id, 'A', 1, NULL, NULL, 0, 1 FROM streams",
        "DELETE FROM stream_segments WHERE batch_no > 4",
        "DELETE FROM batches WHERE batch_no > 4",
    ),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_what_a_source_claimed_outlives_its_rows(merge_world: World, loss: Callable[[Database], None]) -> None:
    world = merge_world(2)
    for number, gatherer in enumerate(world.gatherers.values(), start=1):
        record_two_snapshots(gatherer, number)
    assert close(world).failed == ()
    before = said(world)
    assert sum(covered for *_, covered in before["closed"]) > 200 * US_PER_S
    assert [row[4] for row in before["proofs"]] == [2, 0], "each stream's second snapshot of A"
    loss(world.gatherers["g1"].database)
    again = close(world)
    assert (again.failed, again.alarms, said(world)) == ((), (), before)
    loss(world.gatherers["g2"].database)
    close(world)
    assert said(world) == before
    assert close(world).coverage.share == again.coverage.share


def test_an_hour_closed_first_after_its_source_dropped_rows_is_not_covered_and_fails_nothing(
    merge_world: World,
) -> None:
    world = merge_world(1)
    record_two_snapshots(world.gatherers["g1"], 1)
    merge_new(world.settings(), SYSTEM_CLOCK)
    drop(world.gatherers["g1"].database)
    closed = close(world)
    assert (closed.failed, closed.coverage.share, closed.rows["orderbook_deltas"]) == ((), 0.0, 70)
    assert closed.gatherers_incomplete == {"g1": ("orderbook_deltas",)}
    assert world.rows("SELECT count(*) FROM book_checkpoints") == [(0,)]
    # The next hour rests on a stream whose beginning is gone: its own rows claim, no check reaches back.
    assert close(world, hours_later=1).failed == ()


def test_what_was_measured_stays_where_a_source_is_away(merge_world: World) -> None:
    world = merge_world(2)
    steady = every(2, 60)
    record(world.gatherers["g1"], 1, [*steady, *every(2, 20, START + 60 * US_PER_S)], cuts=(60,))  # a minute back
    record(world.gatherers["g2"], 2, steady)
    close(world)
    before = said(world)
    assert [alarm[0] for alarm in before["alarms"]] == ["time_step_back"]
    here, other = world.settings().sources
    nowhere = here.timeseries_url.rsplit("/", 1)[0] + "/no_such_database"
    closed = close(world, sources=(replace(here, timeseries_url=nowhere), other))
    assert closed.gatherers_missed == ("g1",)
    assert said(world) == before


def test_production_that_dropped_an_hour_keeps_what_was_said_of_it_and_gets_it_back(merge_world: World) -> None:
    world = merge_world(2)
    for number, gatherer in enumerate(world.gatherers.values(), start=1):
        record_two_snapshots(gatherer, number)
    whole = close(world)
    before = said(world)
    state = f"SELECT state, uncovered_from IS NULL FROM book_basis('A', '{HOUR.isoformat()}'::timestamptz + '11 min')"
    gone = f"SELECT rows, is_gone FROM closed_rows('orderbook_deltas', '{HOUR.isoformat()}', '{END.isoformat()}')"
    assert (world.rows(state), world.rows(gone)) == ([("proven", True)], [(70, False)])
    here, other = world.settings().sources
    url = here.timeseries_url.rsplit("/", 1)[0]
    nobody = [replace(each, timeseries_url=f"{url}/no_such_database") for each in (here, other)]
    for statement in (
        f"SELECT drop_partitions_before('orderbook_deltas', '{END}')",
        "DELETE FROM orderbook_deltas WHERE seq = 9",
    ):
        run(world.production, statement)
        # A gatherer that has a part of it brings that part back, and nothing is said anew.
        run(world.gatherers["g2"].database, "DELETE FROM orderbook_deltas WHERE seq = 9")
        part = close(world, sources=(nobody[0], other))
        assert (part.dropped, part.failed, part.alarms) == (("orderbook_deltas",), (), ())
        assert part.coverage == whole.coverage
        assert said(world) == before
        assert (world.rows(state), world.rows(gone)) == ([("approximate", False)], [(70, True)])
        assert close(world).dropped == ()
        assert (said(world), world.rows(gone)) == (before, [(70, False)])
        assert world.rows(state) == [("proven", True)]


def test_rows_that_are_dropped_while_their_hour_is_closed_are_noticed(
    merge_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = merge_world(1)
    record_two_snapshots(world.gatherers["g1"], 1)

    def dropped_meanwhile(database: Database, *rest: Any) -> HourVerification:
        found = verify_hour(database, *rest)
        drop(world.production)
        return found

    monkeypatch.setattr(hour_work, "verify_hour", dropped_meanwhile)
    with pytest.raises(HourDropped, match="orderbook_deltas: 70 → 0"):
        close(world)
    assert world.rows("SELECT count(*) FROM coverage") == [(0,)]
    assert world.rows("SELECT count(*) FROM hour_closes") == [(0,)]
    monkeypatch.undo()
    closed = close(world)
    assert (closed.dropped, closed.rows["orderbook_deltas"]) == ((), 70), "every gatherer brought all that it recorded"
    assert closed.coverage.covered_us > 0


def test_closing_an_hour_again_that_is_gone_everywhere_makes_no_export_of_it_out_of_date(merge_world: World) -> None:
    world = merge_world(1)
    record_two_snapshots(world.gatherers["g1"], 1)
    close(world)
    name = "SELECT close_id, close_no FROM hour_closes"
    ((before, number),) = world.rows(name)
    for database in (world.production, world.gatherers["g1"].database):
        drop(database)
    close(world)
    ((after, later),) = world.rows(name)
    assert (after, later > number) == (before, True)
