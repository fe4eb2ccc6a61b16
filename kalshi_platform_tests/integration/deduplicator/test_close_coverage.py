"""What a close says is complete, and how it proves it, between real databases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.cli.close_hour import proof_lines
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close import hour_summary as hour_figures
from kalshi_platform.deduplicator.close.close_alarms import read_worst_markets
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.close.close_record import HourClose
from kalshi_platform.deduplicator.close.hours import find_hours_to_close
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.lake.export import export_raw
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.local.platform_status import platform_status
from kalshi_platform.market.times import US_PER_HOUR, US_PER_S, datetime_from_us, us_from_datetime
from kalshi_platform.monitoring.settings import AlertSettings
from kalshi_platform.orchestration.checks.closed_hours import BOOKS, check_closed_hours
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.hand_filled_gatherer import GathererDatabase, Row, delta_row, snapshot_row
from kalshi_platform_tests.fixtures.merge_world import MergeWorld
from kalshi_platform_tests.fixtures.webhook import running_receiver

World = Callable[..., MergeWorld]
HOUR_US = us_from_datetime(SYSTEM_CLOCK.now()) // US_PER_HOUR * US_PER_HOUR - 3 * US_PER_HOUR
HOUR = datetime_from_us(HOUR_US)
MINUTE = 60 * US_PER_S
START = HOUR_US + 10 * MINUTE


def close(world: MergeWorld, hours_later: int = 0, **changes: object) -> HourClose:
    return close_hour(world.settings(**changes), HOUR + timedelta(hours=hours_later), SYSTEM_CLOCK, PartitionBounds())


def record(
    gatherer: GathererDatabase, stream_id: int, deltas: list[Row], *, cuts: tuple[int, ...] = (), book_e2: int = 1_000
) -> None:
    """A stream that follows A and Q from the start: their snapshots, then the deltas, each with the next number.

    `cuts`: places in `deltas` where a commit ends.
    """
    snapshots = [
        snapshot_row("A", received_us=START, seq=1, stream_id=stream_id, yes={5000: book_e2}),
        snapshot_row("Q", received_us=START, seq=2, stream_id=stream_id, yes={3000: 70}),
    ]
    members = [(stream_id, "A", 1, None), (stream_id, "Q", 2, None)]
    gatherer.commit(orderbook_snapshots=snapshots, segments=[(stream_id, 1, 2)], book_subscriptions=members)
    rows = [{**row, "stream_id": stream_id, "seq": number} for number, row in enumerate(deltas, start=3)]
    edges = [0, *cuts, len(rows)]
    for low, high in pairwise(edges):
        if low < high:
            segment = (stream_id, low + 3, high + 2)
            gatherer.commit(orderbook_deltas=rows[low:high], segments=[segment])


def every(seconds: float, count: int, start_us: int = START) -> list[Row]:
    return [delta_row("A", ts_us=start_us + int(n * seconds * US_PER_S), seq=0) for n in range(1, count + 1)]


def ranges(world: MergeWorld) -> list[tuple[Any, ...]]:
    return world.rows(
        f"SELECT ticker, (extract(epoch FROM from_ts) * 1000000)::bigint - {START},"
        f" (extract(epoch FROM to_ts) * 1000000)::bigint - {START}, gatherers FROM coverage ORDER BY 1, 2"
    )


def test_coverage_is_the_union_of_what_streams_claim_and_a_second_close_gives_the_same(merge_world: World) -> None:
    world = merge_world(2)
    record(world.gatherers["g1"], 1, every(2, 20))
    record(world.gatherers["g2"], 2, every(2, 40)[10:], book_e2=2_000)
    closed = close(world)
    first, last = 2 * US_PER_S, 80 * US_PER_S
    expected = [
        # The feed's first time plus the margin, and its last less the margin; so too for Q, which never moves.
        ("A", first + US_PER_S + 1, last - US_PER_S, ["g1", "g2"]),
        ("Q", first + US_PER_S + 1, last - US_PER_S, ["g1", "g2"]),
    ]
    assert ranges(world) == expected
    assert (closed.failed, closed.alarms) == ((), ())
    claims = world.rows("SELECT ticker, gatherer, rows, withdrawn FROM stream_claims ORDER BY 1, 2")
    assert claims == [("A", "g1", 18, None), ("A", "g2", 28, None), ("Q", "g1", 0, None), ("Q", "g2", 0, None)]
    proofs = world.rows("SELECT ticker, verdict, score, stream_checks, checkpoint_checks FROM book_proofs ORDER BY 1")
    assert proofs == [("A", "proved", 1.0, 2, 1), ("Q", "proved", 1.0, 2, 1)]
    close(world)
    assert ranges(world) == expected


def test_streams_that_claim_the_same_moment_and_differ_lose_both_claims(merge_world: World) -> None:
    world = merge_world(3)
    whole = every(2, 30)
    record(world.gatherers["g1"], 1, whole)
    record(world.gatherers["g2"], 2, whole[:9] + whole[10:])  # a delta vanished, the numbers do not tell
    record(world.gatherers["g3"], 3, every(2, 30, START + 20 * MINUTE), book_e2=4_000)
    with running_receiver() as receiver:
        alerts = AlertSettings(webhook_url=receiver.url, spacing_s=0.0)
        closed, _again = close(world, alerts=alerts), close(world, alerts=alerts)
        assert receiver.kinds() == ["claims_disagree"]
    assert closed.failed == ("A",)
    assert [kind for kind, _, _ in closed.alarms] == ["claims_disagree"]
    assert [row[3] for row in ranges(world) if row[0] == "A"] == [["g3"]], "g3 claims another time"
    lost = world.rows("SELECT gatherer FROM stream_claims WHERE withdrawn LIKE 'g2, stream 2 claims 27%' ORDER BY 1")
    assert lost == [("g1",), ("g2",)]
    ((kind, subject, _detail),) = world.rows("SELECT kind, subject, detail FROM close_alarms")
    assert (kind, subject) == ("claims_disagree", "A")
    assert [row.ticker for row in read_worst_markets(world.production, [HOUR])] == ["A"]
    checks = {each.check_name: each for each in check_closed_hours(world.production, [HOUR], 0.9)}
    assert not checks[BOOKS].passed
    worst = str(checks[BOOKS].metadata["worst"].value).splitlines()
    assert [line.split(", stream")[0] for line in worst] == [f"A, {HOUR:%Y-%m-%dT%H}: g2"], "Q failed nothing"
    (outage, *_) = check_closed_hours(world.production, [HOUR + timedelta(hours=1)], 0.9)
    assert (outage.passed, outage.metadata["coverage_share"].value) == (False, 0.0), "both were followed until then"


def test_a_snapshot_that_the_deltas_do_not_lead_to_withdraws_the_claim_of_its_stream(merge_world: World) -> None:
    world = merge_world(1)
    gatherer = world.gatherers["g1"]
    record(gatherer, 1, every(2, 10))
    again = snapshot_row("A", received_us=START + 21 * US_PER_S, seq=13, yes={5000: 2_100})  # should be 2,000
    gatherer.commit(orderbook_snapshots=[again], segments=[(1, 13, 13)],
                    book_subscriptions=[(1, "A", 1, 13), (1, "A", 13, None)])  # fmt: skip
    later = [{**row, "seq": 14 + n} for n, row in enumerate(every(2, 10, START + 30 * US_PER_S))]
    gatherer.commit(orderbook_deltas=later, segments=[(1, 14, 23)])
    closed = close(world)
    assert closed.failed == ("A",)
    assert {row[0] for row in ranges(world)} == {"Q"}
    ((checks, failures, checkpoints, detail),) = world.rows(
        "SELECT run_checks, run_failures, checkpoint_failures, detail FROM book_proofs WHERE ticker = 'A'"
    )
    assert (checks, failures, checkpoints) == (1, 1, 0)  # nothing is covered that checkpoints could be compared over
    assert "snapshot 1 does not lead to 13" in detail


def test_a_snapshot_of_a_later_hour_withdraws_the_claims_before_it_once_and_for_good(merge_world: World) -> None:
    world = merge_world(2)  # g2 follows nothing
    gatherer = world.gatherers["g1"]
    record(gatherer, 1, every(60, 110), cuts=(30, 49, 50, 80))  # into the next hour
    assert close(world).failed == ()
    again = snapshot_row("A", received_us=START + 111 * MINUTE, seq=113, yes={5000: 99_900})  # should be 12,000
    gatherer.commit(orderbook_snapshots=[again], segments=[(1, 113, 113)],
                    book_subscriptions=[(1, "A", 1, 113), (1, "A", 113, None)])  # fmt: skip
    later = [{**row, "seq": 114 + n} for n, row in enumerate(every(60, 100, START + 112 * MINUTE))]
    gatherer.commit(orderbook_deltas=later, segments=[(1, 114, 213)])
    now = SYSTEM_CLOCK.now()
    assert close(world, hours_later=1).failed == ("A",)
    assert find_hours_to_close(world.production, now) == [HOUR]
    assert close(world).failed == ("A",)
    checkpointed = "SELECT ticker FROM book_checkpoints WHERE gatherer <> ''"
    assert world.rows(checkpointed) == [("Q",)], "a fold that starts from a contradicted book would give a wrong one"
    close(world, hours_later=1)
    assert find_hours_to_close(world.production, now) == [], "nothing stands any more that could be withdrawn"
    here, other = world.settings().sources
    away = replace(here, timeseries_url=here.timeseries_url.rsplit("/", 1)[0] + "/no_such_database")
    closed = close(world, sources=(away, other))
    assert (closed.failed, closed.gatherers_missed) == (("A",), ("g1",))
    assert [alarm[:2] for alarm in closed.alarms] == [("book_proof", "A")]
    assert {row[0] for row in ranges(world)} == {"Q"}


def polled(minute: int, count_e2: int) -> Row:
    at = HOUR_US + minute * MINUTE
    return snapshot_row("A", received_us=at, seq=0, stream_id=0, source="rest", yes={5000: count_e2},
                        requested_at=at + US_PER_S, received_at=at + US_PER_S + 200_000)  # fmt: skip


def test_polled_books_are_compared_with_every_book_of_their_window(merge_world: World) -> None:
    world = merge_world(1)
    gatherer = world.gatherers["g1"]
    record(gatherer, 1, every(2, 120))
    # At 12:01 after 10 minutes plus 61 deltas … the window holds the books of a few seconds before.
    gatherer.commit(orderbook_snapshots=[
        polled(12, 1_000 + 100 * 60), polled(13, 1_000 + 100 * 88), polled(9, 500), polled(30, 1_000 + 100 * 120),
    ])  # fmt: skip
    closed = close(world)
    found = world.rows(
        "SELECT rest_consistent, rest_inconsistent, rest_undecided, covered_us FROM book_proofs WHERE ticker = 'A'"
    )
    # 9: before anything was known; 30: beyond what is covered.
    assert found == [(2, 0, 2, 236 * US_PER_S - 1)]
    assert closed.failed == ()
    gatherer.commit(orderbook_snapshots=[polled(11, 999)])
    assert close(world).failed == ("A",)
    assert "A" not in {row[0] for row in ranges(world)}


def test_a_book_of_the_hours_end_is_the_checkpoint_of_the_next_one(merge_world: World) -> None:
    world = merge_world(1)
    record(world.gatherers["g1"], 1, every(60, 110), cuts=(20, 49, 50, 80))
    closed = close(world)
    end = datetime_from_us(HOUR_US + US_PER_HOUR - 1)
    derived = (
        "SELECT ticker, stream_id, seq, checkpoint_ts, yes_price_e4, yes_count_e2"
        " FROM book_checkpoints WHERE gatherer = ''"
    )
    expected = [("A", 1, 1, end, [5000], [1_000 + 100 * 49]), ("Q", 1, 2, end, [3000], [70])]
    assert world.rows(derived + " ORDER BY 1") == expected
    assert closed.checkpoints == 4
    close(world, hours_later=1)
    later = derived + f" AND checkpoint_ts > '{end.isoformat()}' ORDER BY 1"
    assert world.rows(later) == [], "not covered to the last microsecond: the last time known is the hour's end itself"
    beyond = {**every(60, 111)[-1], "seq": 113}
    world.gatherers["g1"].commit(orderbook_deltas=[beyond], segments=[(1, 113, 113)])
    close(world, hours_later=1)
    assert [row[:1] + row[5:] for row in world.rows(later)] == [("A", [1_000 + 100 * 109]), ("Q", [70])]
    now = SYSTEM_CLOCK.now()
    close(world)
    assert find_hours_to_close(world.production, now) == [], "nothing changed"
    # Where the hour turns out not to be covered to its end, the next one rests on nothing and is closed again.
    with world.gatherers["g1"].database.transaction() as transaction:
        transaction.execute("DELETE FROM stream_segments WHERE seq_from = 52")  # the commit with number 52 was lost
    close(world)
    assert world.rows(derived + f" AND checkpoint_ts < '{end.isoformat()}'::timestamptz + interval '1 s'") == []
    assert find_hours_to_close(world.production, now) == [HOUR + timedelta(hours=1)]


def test_a_quiet_hour_is_claimed_by_frames_long_before_and_after_it(merge_world: World) -> None:
    world = merge_world(1)
    deltas = [*every(2, 5), *every(2, 5, START + 2 * US_PER_HOUR)]
    record(world.gatherers["g1"], 1, deltas, cuts=(2,))  # one commit has rows of both sides, and none of the hour
    closed = close(world, hours_later=1)
    whole = (50 * MINUTE, 110 * MINUTE)
    assert [row[:3] for row in ranges(world)] == [("A", *whole), ("Q", *whole)]
    assert closed.coverage.share == 1.0
    # A replay: what the stream carries is much older than the stream.
    with world.gatherers["g1"].database.transaction() as transaction:
        transaction.execute("UPDATE streams SET opened_at = now() + interval '9 days'")
    assert close(world, hours_later=1).coverage.share == 1.0


def test_an_hour_whose_last_moments_could_not_be_claimed_yet_is_closed_once_more(merge_world: World) -> None:
    world = merge_world(1)
    gatherer = world.gatherers["g1"]
    record(gatherer, 1, every(2, 5))
    at_five_past = FakeClock(HOUR + timedelta(minutes=65))
    close_hour(world.settings(), HOUR, at_five_past, PartitionBounds())
    assert world.rows("SELECT may_grow FROM hour_closes") == [(True,)]
    assert find_hours_to_close(world.production, HOUR + timedelta(minutes=124)) == []
    assert find_hours_to_close(world.production, HOUR + timedelta(minutes=125)) == [HOUR]
    later = [{**row, "seq": 8 + n} for n, row in enumerate(every(2, 5, START + US_PER_HOUR))]
    gatherer.commit(orderbook_deltas=later, segments=[(1, 8, 12)])
    close(world)
    assert [row[2] for row in ranges(world)] == [50 * MINUTE, 50 * MINUTE]
    assert world.rows("SELECT may_grow FROM hour_closes") == [(False,)]
    assert find_hours_to_close(world.production, HOUR + timedelta(minutes=125)) == []


def test_a_row_that_production_refuses_takes_the_claims_of_its_time_and_stops_no_close(merge_world: World) -> None:
    world = merge_world(2)
    with world.production.transaction() as transaction:
        transaction.execute("ALTER TABLE orderbook_deltas ADD CHECK (delta_e2 <> 666)")
    for number, gatherer in enumerate(world.gatherers.values(), start=1):
        deltas = every(2, 60)
        deltas[30] |= {"delta_e2": 666}
        record(gatherer, number, [*deltas, delta_row("Q", ts_us=START + 120 * US_PER_S + 1, seq=0)])
    name = "X" * 1_000
    world.gatherers["g1"].commit(
        orderbook_snapshots=[snapshot_row(name, received_us=START, seq=1, stream_id=9, yes={5000: 1})],
        orderbook_deltas=[delta_row(name, ts_us=START + n * US_PER_S, seq=n + 2, stream_id=9) for n in range(60)],
        segments=[(9, 1, 61)],
        book_subscriptions=[(9, name, 1, None)],
    )
    closed = close(world)
    assert closed.inserted["orderbook_deltas"] == 60
    assert {row[0] for row in ranges(world)} == {"Q"}, "of A production lacks a change that both streams have"
    refused = [alarm for alarm in closed.alarms if alarm[0] == "rows_refused"]
    assert sorted(alarm[1] for alarm in refused) == [
        "orderbook_deltas, name_too_long", "orderbook_deltas, refused", "orderbook_snapshots, name_too_long",
    ]  # fmt: skip
    assert world.rows("SELECT count(*) FROM dead_letters WHERE reason = 'refused'") == [(1,)]
    assert find_hours_to_close(world.production, SYSTEM_CLOCK.now()) == []


def test_around_a_change_of_an_impossible_time_nothing_is_claimed_of_its_market(merge_world: World) -> None:
    world = merge_world(1)
    record(world.gatherers["g1"], 1, every(2, 60))
    close(world)
    assert {row[0] for row in ranges(world)} == {"A", "Q"}
    stray = [
        delta_row("A", ts_us=START - 900 * 24 * US_PER_HOUR, seq=1, stream_id=7, received_at=START + MINUTE),
        delta_row("A", ts_us=START + MINUTE, seq=2, stream_id=7),
    ]
    world.gatherers["g1"].commit(orderbook_deltas=stray)
    merge_new(world.settings(), SYSTEM_CLOCK)
    assert find_hours_to_close(world.production, SYSTEM_CLOCK.now()) == [HOUR]
    close(world)
    assert {row[0] for row in ranges(world)} == {"Q"}
    assert "an implausible exchange time" in world.rows("SELECT detail FROM book_proofs WHERE ticker = 'A'")[0][0]


def test_a_step_back_in_time_between_two_hours_takes_the_claims_of_both(merge_world: World) -> None:
    world = merge_world(1)
    steady = every(2, 10)
    later = every(2, 10, START + US_PER_HOUR)
    after = every(2, 10, START + 30 * US_PER_S)  # an hour back
    record(world.gatherers["g1"], 1, [*steady, *later, *after], cuts=(10, 20))
    closed = close(world)
    taken = START + 32 * US_PER_S  # the first time after the step
    assert max(row[2] for row in ranges(world)) == taken - START
    steps = world.rows("SELECT ticker, steps, largest_us FROM time_regressions ORDER BY 1")
    assert steps == [("", 10, US_PER_HOUR - 12 * US_PER_S), ("A", 10, US_PER_HOUR - 12 * US_PER_S)]
    assert [kind for kind, _, _ in closed.alarms] == ["time_step_back"]
    close(world, hours_later=1)
    low = US_PER_HOUR + 20 * US_PER_S
    assert all(row[1] > low for row in ranges(world) if row[2] > 50 * MINUTE)


def test_statistics_tell_what_each_gatherer_brought_and_alarm_when_identities_part(merge_world: World) -> None:
    world = merge_world(2)
    first = every(0.2, 150)
    record(world.gatherers["g1"], 1, first)
    record(world.gatherers["g2"], 2, [{**row, "exchange_ts": row["exchange_ts"] + 3} for row in first])
    closed = close(world)
    rows = world.rows(
        "SELECT gatherer, seen, distinct_rows, unique_rows, first_observer, agreement FROM merge_statistics"
        " WHERE table_name = 'orderbook_deltas' ORDER BY 1"
    )
    assert rows == [("g1", 150, 150, 150, 150, 0.0), ("g2", 150, 150, 150, 150, 0.0)]
    kinds = {kind for kind, _, _ in closed.alarms}
    assert kinds == {"identity_agreement", "claims_disagree"}
    same = merge_world(2)
    record(same.gatherers["g1"], 1, first)
    record(same.gatherers["g2"], 2, [{**row, "received_at": row["received_at"] - 9} for row in first[:100]])
    assert close(same).alarms == ()
    assert same.rows(
        "SELECT gatherer, seen, unique_rows, first_observer, comparable, agreed FROM merge_statistics"
        " WHERE table_name = 'orderbook_deltas' ORDER BY 1"
    ) == [("g1", 150, 50, 50, 88, 88), ("g2", 100, 0, 100, 88, 88)]


def test_what_one_gatherer_did_not_follow_yet_or_no_more_raises_no_alarm(merge_world: World) -> None:
    world = merge_world(3)
    whole = every(0.2, 1_000)
    record(world.gatherers["g1"], 1, whole)
    record(world.gatherers["g2"], 2, whole[400:])
    record(world.gatherers["g3"], 3, whole[:300])
    assert "identity_agreement" not in {kind for kind, _, _ in close(world).alarms}
    rows = world.rows(
        "SELECT gatherer, comparable, agreed FROM merge_statistics WHERE table_name = 'orderbook_deltas' ORDER BY 1"
    )
    assert [comparable == agreed for _, comparable, agreed in rows] == [True, True, True]
    assert [comparable > 250 for _, comparable, _ in rows] == [True, True, True]


def test_a_gatherer_that_lacks_what_it_claims_raises_an_alarm(merge_world: World) -> None:
    world = merge_world(2)
    whole = every(0.2, 1_000)
    record(world.gatherers["g1"], 1, whole)
    record(world.gatherers["g2"], 2, whole[::2])
    kinds = {(kind, subject) for kind, subject, _ in close(world).alarms}
    assert ("identity_agreement", "g1 orderbook_deltas") in kinds
    assert ("identity_agreement", "g2 orderbook_deltas") not in kinds


def test_claims_outlive_the_rows_of_their_gatherer(merge_world: World) -> None:
    world = merge_world(2)
    for number, gatherer in enumerate(world.gatherers.values(), start=1):
        record(gatherer, number, every(2, 20))
    close(world)
    before = ranges(world)
    with world.gatherers["g1"].database.transaction() as transaction:
        transaction.execute("TRUNCATE orderbook_deltas")  # as retention does; the ledger stays
    with world.gatherers["g2"].database.transaction() as transaction:
        transaction.execute("TRUNCATE streams, stream_segments, book_subscriptions, batches, orderbook_deltas")
    closed = close(world)
    assert ranges(world) == before
    assert closed.failed == ()


def test_the_coverage_share_of_an_hour_is_one_figure_wherever_it_is_shown(merge_world: World, tmp_path: Path) -> None:
    world = merge_world(1)
    record(world.gatherers["g1"], 1, every(2, 120))
    late = datetime_from_us(START + 2 * MINUTE)
    with world.production.transaction() as transaction:
        # A was open for eight minutes more, and R is open without anything of it.
        for ticker, closes in (("A", late + timedelta(minutes=10)), ("Q", late), ("R", late)):
            transaction.execute(
                "INSERT INTO markets (ticker, event_ticker, status, open_time, close_time, payload, fingerprint,"
                " first_seen_at, known_at) VALUES (%s, 'E', 'active', %s, %s, '{}', 0, now(), now())",
                (ticker, datetime_from_us(START), closes),
            )
    closed = close(world)
    # A: 236 s of 12 minutes; Q: 236 s, which is more than the two minutes that it was open.
    assert closed.coverage.share == pytest.approx((236 + 236) / (12 * 60 + 236), abs=1e-6)
    check = next(iter(check_closed_hours(world.production, [HOUR], 0.9)))
    manifest = export_raw(LakeSettings(f"file://{tmp_path}"), world.production_url, "orderbook_deltas", HOUR, "closed")
    status_hour = platform_status(world.settings(), tmp_path, SYSTEM_CLOCK).last_closed_hour
    assert status_hour is not None
    told = {
        "figures": hour_figures.read_coverage(world.production, [HOUR]).share,
        "check": check.metadata["coverage_share"].value,
        "status": status_hour.coverage_share,
        "manifest": manifest.coverage_share,
    }
    assert told == dict.fromkeys(told, pytest.approx(closed.coverage.share, abs=1e-6))
    ((markets, open_us, covered_us),) = world.rows("SELECT markets, open_us, covered_us FROM hour_closes")
    assert (markets, covered_us / open_us) == (2, closed.coverage.share)
    assert proof_lines(closed)[0] == "49.37 % of the open time of 2 markets is covered"


def test_coverage_is_judged_from_when_a_market_was_first_wanted(merge_world: World) -> None:
    world = merge_world(1)
    record(world.gatherers["g1"], 1, every(2, 120))
    close(world)
    ((since,),) = world.rows("SELECT min(from_ts) FROM coverage WHERE ticker = 'A'")
    with world.production.transaction() as transaction:
        transaction.execute(
            "INSERT INTO markets (ticker, event_ticker, status, open_time, payload, fingerprint, first_seen_at,"
            " known_at) VALUES ('A', 'E', 'active', %s, '{}', 0, now(), now())",
            (HOUR - timedelta(days=1),),
        )

    def open_from(first_seen: datetime) -> datetime:
        with world.production.transaction() as transaction:
            transaction.execute("UPDATE markets SET first_seen_at = %s", (first_seen,))
            row = transaction.fetch_one(
                "SELECT open_us, covered_us::float8 / open_us FROM hour_coverage(%s) WHERE ticker = 'A'", (HOUR,)
            )
        assert row is not None
        shown = hour_figures.read_least_covered_markets(world.production, HOUR, HOUR + timedelta(hours=1), 5)
        assert shown["A"] == {HOUR: pytest.approx(row[1])}, "the plot of markets judges as the share does"
        return HOUR + timedelta(hours=1) - timedelta(microseconds=row[0])

    assert open_from(since - timedelta(seconds=5)) == since, "it was followed at once"
    assert open_from(since - timedelta(minutes=5)) == since - timedelta(minutes=4), "it was followed late"
    assert open_from(HOUR - timedelta(hours=2)) == HOUR, "it was known before the hour"
    assert open_from(HOUR + timedelta(hours=3)) == HOUR, "its first sight is not known: it was recorded before"


def test_half_whose_gatherer_is_off_is_missed_for_a_day_until_its_markets_close(merge_world: World) -> None:
    world = merge_world(1)
    gatherer = world.gatherers["g1"]

    def follow(ticker: str, hour: int) -> None:
        low, stream = START + hour * US_PER_HOUR, 10 * (hour + 1) + (ticker == "B2")
        gatherer.commit(
            orderbook_snapshots=[snapshot_row(ticker, received_us=low, seq=1, stream_id=stream, yes={5000: 7})],
            segments=[(stream, 1, 1)],
            book_subscriptions=[(stream, ticker, 1, None)],
        )
        rows = [delta_row(ticker, ts_us=low + n * MINUTE, seq=n + 1, stream_id=stream) for n in range(1, 40)]
        gatherer.commit(orderbook_deltas=rows, segments=[(stream, 2, 40)])

    follow("A1", 0)
    follow("B2", 0)
    follow("A1", 2)  # the other half has been off since the first hour
    with world.production.transaction() as transaction:
        for ticker in ("A1", "B2"):
            transaction.execute(
                "INSERT INTO markets (ticker, event_ticker, status, open_time, payload, fingerprint, first_seen_at,"
                " known_at) VALUES (%s, 'E', 'active', %s, '{}', 0, %s, now())",
                (ticker, HOUR - timedelta(days=1), HOUR - timedelta(days=1)),
            )
    close(world)
    closed = close(world, hours_later=2)
    assert closed.coverage.markets == 2
    both = closed.coverage.share
    assert both is not None
    alone = world.rows(f"SELECT covered_us::float8 / open_us FROM hour_coverage('{HOUR + timedelta(hours=2)}')"
                       " WHERE ticker = 'A1'")  # fmt: skip
    assert both == pytest.approx(alone[0][0] / 2)
    check = next(iter(check_closed_hours(world.production, [HOUR + timedelta(hours=2)], 0.6)))
    assert not check.passed
    assert check.metadata["coverage_share"].value == pytest.approx(both, abs=1e-6)
    for column in ("close_time", "settlement_time"):
        with world.production.transaction() as transaction:
            ended = HOUR + timedelta(hours=2)
            transaction.execute("UPDATE markets SET close_time = NULL, settlement_time = NULL WHERE ticker = 'B2'")
            transaction.execute(f"UPDATE markets SET {column} = %s WHERE ticker = 'B2'", (ended,))
        share = hour_figures.read_coverage(world.production, [ended])
        assert share.markets == 1, column
        assert share.share == pytest.approx(2 * both), column


def test_hour_before_the_platform_knew_of_a_market_has_no_coverage_share(merge_world: World) -> None:
    world = merge_world(1)
    with world.production.transaction() as transaction:
        transaction.execute(
            "INSERT INTO markets (ticker, event_ticker, status, open_time, payload, fingerprint, first_seen_at,"
            " known_at) VALUES ('A', 'E', 'active', %s, '{}', 0, %s, now())",
            (HOUR - timedelta(days=1), HOUR + timedelta(minutes=90)),
        )
    assert hour_figures.read_coverage(world.production, [HOUR]).share is None
    assert hour_figures.read_coverage(world.production, [HOUR + timedelta(hours=1)]).share == 0
