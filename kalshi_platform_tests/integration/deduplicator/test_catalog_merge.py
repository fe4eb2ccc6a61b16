"""Catalogs of several gatherers → production."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.catalog import merge_catalog as catalog_merge
from kalshi_platform.deduplicator.catalog import source as catalog_source
from kalshi_platform.deduplicator.catalog.merge_catalog import merge_catalog
from kalshi_platform.deduplicator.live import live_merger as live_module
from kalshi_platform.deduplicator.live.live_merger import LiveMerger
from kalshi_platform.market.identity import fingerprint
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.read import ArrowSnapshot
from kalshi_platform_tests.fixtures.merge_world import MergeWorld, until
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory

World = Callable[..., MergeWorld]
T0 = datetime(2026, 11, 23, 10, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def learn(world: MergeWorld, gatherer: str, ticker: str, minutes: float, status: str) -> None:
    """A gatherer learns a market's status: a version when it is another one, newer knowledge in any case."""
    database = Database(world.catalog_urls[gatherer], name=gatherer)
    values = {"ticker": ticker, "at": at(minutes), "status": status, "print": fingerprint(status)}
    with database.transaction() as transaction:
        known = transaction.fetch_one("SELECT status FROM markets WHERE ticker = %s", (ticker,))
        transaction.execute(
            "INSERT INTO markets AS m (ticker, event_ticker, status, payload, fingerprint, first_seen_at, known_at)"
            " VALUES (%(ticker)s, 'E', %(status)s, jsonb_build_object('status', %(status)s::text), %(print)s, %(at)s,"
            " %(at)s) ON CONFLICT (ticker) DO UPDATE SET status = excluded.status, payload = excluded.payload,"
            " fingerprint = excluded.fingerprint, known_at = excluded.known_at",
            values,
        )
        if known is None or known[0] != status:
            transaction.execute(
                "UPDATE markets_history SET valid_to = %(at)s WHERE ticker = %(ticker)s AND valid_to IS NULL", values
            )
            transaction.execute(
                "INSERT INTO markets_history (ticker, valid_from, fingerprint, payload, status) VALUES"
                " (%(ticker)s, %(at)s, %(print)s, jsonb_build_object('status', %(status)s::text), %(status)s)",
                values,
            )
    database.dispose()


def markets(world: MergeWorld) -> list[tuple[object, ...]]:
    return world.rows("SELECT ticker, status, payload->>'status', known_at, first_seen_at FROM markets ORDER BY 1")


def history(world: MergeWorld, ticker: str) -> list[tuple[object, ...]]:
    return world.rows(
        "SELECT valid_from, valid_to, status, payload->>'status' FROM markets_history"
        f" WHERE ticker = '{ticker}' ORDER BY valid_from"
    )


def test_the_newest_knowledge_wins_and_the_history_is_one(merge_world: World) -> None:
    world = merge_world(2, catalogs=True)
    learn(world, "g1", "A", 0, "initialized")
    learn(world, "g2", "A", 1, "initialized")
    learn(world, "g2", "A", 5, "active")
    learn(world, "g1", "A", 6, "active")
    learn(world, "g1", "A", 8, "closed")
    learn(world, "g2", "B", 2, "active")
    report = merge_catalog(world.settings(), SYSTEM_CLOCK)
    assert (report.rows_changed, report.missed) == (2, {})
    assert markets(world) == [("A", "closed", "closed", at(8), at(0)), ("B", "active", "active", at(2), at(2))]
    assert history(world, "A") == [
        (at(0), at(5), "initialized", "initialized"),
        (at(5), at(8), "active", "active"),
        (at(8), None, "closed", "closed"),
    ]
    before = (markets(world), history(world, "A"))
    again = merge_catalog(world.settings(), SYSTEM_CLOCK)
    assert again.rows_changed == 0
    assert set(again.tables["markets"].__dict__.values()) == {0}
    assert (markets(world), history(world, "A")) == before
    learn(world, "g2", "B", 20, "active")  # known more newly, and nothing else
    assert merge_catalog(world.settings(), SYSTEM_CLOCK).rows_changed == 1
    assert history(world, "B") == [(at(2), None, "active", "active")]


def test_a_result_outweighs_a_later_deletion(merge_world: World) -> None:
    def statuses() -> list[tuple[object, ...]]:
        return world.rows("SELECT status, result FROM markets")

    world = merge_world(2, catalogs=True)
    learn(world, "g2", "A", 9, "vanished")
    merge_catalog(world.settings(), SYSTEM_CLOCK)
    assert statuses() == [("vanished", None)]
    # The other one's catalog comes back later, with an end that it heard before.
    learn(world, "g1", "A", 5, "determined")
    database = Database(world.catalog_urls["g1"], name="g1")
    with database.transaction() as transaction:
        transaction.execute("UPDATE markets SET result = 'no'")
    database.dispose()
    for known_again in (9, 12):
        learn(world, "g2", "A", known_again, "vanished")
        merge_catalog(world.settings(), SYSTEM_CLOCK)
        assert statuses() == [("determined", "no")]


def test_a_gatherer_that_was_away_is_put_in_its_place_in_the_history(merge_world: World) -> None:
    world = merge_world(2, catalogs=True)
    learn(world, "g1", "A", 3, "initialized")
    learn(world, "g1", "A", 9, "closed")
    learn(world, "g2", "A", 1, "initialized")
    learn(world, "g2", "A", 6, "active")
    settings = world.settings()
    here, other = settings.sources
    away = replace(other, catalog_url=other.catalog_url.rsplit("/", 1)[0] + "/no_such_database")
    report = merge_catalog(replace(settings, sources=(here, away)), SYSTEM_CLOCK)
    assert list(report.missed) == ["g2"]
    assert [row[0] for row in history(world, "A")] == [at(3), at(9)]
    merge_catalog(settings, SYSTEM_CLOCK)
    assert [row[:3] for row in history(world, "A")] == [
        (at(1), at(6), "initialized"),
        (at(6), at(9), "active"),
        (at(9), None, "closed"),
    ]
    assert markets(world)[0][1:] == ("closed", "closed", at(9), at(1))


def learn_many(world: MergeWorld, gatherer: str, numbers: range) -> None:
    database = Database(world.catalog_urls[gatherer], name=gatherer)
    with database.transaction() as transaction:
        for table, moments in (("markets", "first_seen_at, known_at"), ("markets_history", "valid_from")):
            columns = "event_ticker, " if table == "markets" else ""
            values = "'E', " if table == "markets" else ""
            transaction.execute(
                f"INSERT INTO {table} (ticker, {columns}status, payload, fingerprint, {moments})"
                f" SELECT 'M' || n, {values}'active', '{{}}', n, {', '.join(['%(at)s'] * len(moments.split(', ')))}"
                " FROM generate_series(%(low)s, %(high)s) AS n",
                {"at": at(0), "low": numbers.start, "high": numbers.stop - 1},
            )
    database.dispose()


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each answer of any database had."""
    sizes: list[int] = []
    fetch_all, table_of = Transaction.fetch_all, ArrowSnapshot.table

    def fetched(transaction: Transaction, statement: str, params: Any = None) -> list[tuple[Any, ...]]:
        rows = fetch_all(transaction, statement, params)
        sizes.append(len(rows))
        return rows

    def table(snapshot: ArrowSnapshot, query: str, params: Sequence[Any] = ()) -> pa.Table:
        rows = table_of(snapshot, query, params)
        sizes.append(rows.num_rows)
        return rows

    monkeypatch.setattr(Transaction, "fetch_all", fetched)
    monkeypatch.setattr(ArrowSnapshot, "table", table)
    return sizes


def test_what_did_not_change_is_not_read_again_and_the_rest_in_small_chunks(
    merge_world: World, monkeypatch: pytest.MonkeyPatch, rows_read: list[int]
) -> None:
    monkeypatch.setattr(catalog_merge, "_ROWS_AT_ONCE", 40)
    for module in (catalog_merge, catalog_source):
        monkeypatch.setattr(module, "NAMES_AT_ONCE", 100)
    world = merge_world(2, catalogs=True)
    learn_many(world, "g1", range(350))
    learn_many(world, "g2", range(300, 500))
    merge_catalog(world.settings(), SYSTEM_CLOCK)
    assert max(rows_read) <= 100
    assert world.rows("SELECT (SELECT count(*) FROM markets), count(*) FROM markets_history") == [(500, 500)]
    rows_read.clear()
    again = merge_catalog(world.settings(), SYSTEM_CLOCK)
    assert set(vars(again.tables["markets"]).values()) == {0}
    assert sum(rows_read) < 150, "names of migrations and columns, and positions"
    learn(world, "g2", "M7", 5, "closed")
    after = merge_catalog(world.settings(), SYSTEM_CLOCK).tables["markets"]
    assert (after.compared, after.updated, after.versions_written) == (1, 1, 1)


def test_a_catalog_that_gives_its_numbers_again_is_read_from_its_beginning(
    merge_world: World, database_factory: DatabaseFactory
) -> None:
    world = merge_world(1, catalogs=True)
    learn(world, "g1", "A", 0, "active")
    restored = database_factory(world.catalog_urls["g1"].rsplit("/", 1)[1])
    learn(world, "g1", "B", 1, "active")
    merge_catalog(world.settings(), SYSTEM_CLOCK)
    ((change_no, token),) = world.rows("SELECT change_no, token FROM catalog_cursors")
    world.catalog_urls["g1"] = restored
    learn(world, "g1", "C", 2, "active")
    learn(world, "g1", "D", 3, "active")
    merge_catalog(world.settings(), SYSTEM_CLOCK)
    assert [row[0] for row in markets(world)] == ["A", "B", "C", "D"]
    ((later_no, later_token),) = world.rows("SELECT change_no, token FROM catalog_cursors")
    assert later_no == change_no + 1
    assert later_token != token
    assert set(vars(merge_catalog(world.settings(), SYSTEM_CLOCK).tables["markets"]).values()) == {0}


def test_a_gatherer_that_was_away_is_read_again_for_changes_of_others(merge_world: World) -> None:
    world = merge_world(2, catalogs=True)
    learn(world, "g1", "A", 0, "initialized")
    learn(world, "g2", "A", 4, "initialized")
    settings = world.settings()
    merge_catalog(settings, SYSTEM_CLOCK)
    assert [row[0] for row in history(world, "A")] == [at(0)], "the second one says the same"
    learn(world, "g1", "A", 2, "active")
    here, other = settings.sources
    away = replace(other, catalog_url=other.catalog_url.rsplit("/", 1)[0] + "/no_such_database")
    merge_catalog(replace(settings, sources=(here, away)), SYSTEM_CLOCK)
    assert [row[0] for row in history(world, "A")] == [at(0), at(2)]
    merge_catalog(settings, SYSTEM_CLOCK)
    assert [row[0] for row in history(world, "A")] == [at(0), at(2), at(4)], "g2 heard of the other state after that"
    assert world.rows("SELECT * FROM catalog_pending") == []


def test_gatherers_that_sync_after_the_live_merge_began_are_not_left_to_the_next_interval(
    merge_world: Callable[..., MergeWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "_CATALOG_SOON_S", 0.02)
    monkeypatch.setattr(live_module, "_CATALOG_REST", 0.0)
    world = merge_world(2, catalogs=True)
    merger = LiveMerger(world.settings(interval_s=0.05, catalog_interval_s=3600.0), SYSTEM_CLOCK, PartitionBounds())
    stop = threading.Event()
    thread = threading.Thread(target=merger.run, args=(stop,))
    thread.start()
    try:
        until(lambda: merger.status().catalog is not None)
        assert markets(world) == []
        learn(world, "g2", "A", 0, "active")
        until(lambda: len(markets(world)) == 1)
        learn(world, "g1", "B", 1, "active")
        until(lambda: len(markets(world)) == 2)
    finally:
        stop.set()
        thread.join(20)
