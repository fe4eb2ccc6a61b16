"""Catalogs of several gatherers → production."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator import live as live_module
from kalshi_platform.deduplicator.catalog_merge import merge_catalog
from kalshi_platform.deduplicator.live import LiveMerger
from kalshi_platform.market.identity import fingerprint
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.merge_world import MergeWorld, until

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


def test_who_found_a_market_deleted_knows_less_than_who_heard_its_result(merge_world: World) -> None:
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
        until(lambda: merger.status()[1]["catalog"] is not None)
        assert markets(world) == []
        learn(world, "g2", "A", 0, "active")
        until(lambda: len(markets(world)) == 1)
        learn(world, "g1", "B", 1, "active")
        until(lambda: len(markets(world)) == 2)
    finally:
        stop.set()
        thread.join(20)
