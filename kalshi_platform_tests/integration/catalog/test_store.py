"""The catalog on a real database: newest knowledge, and history only where something changed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from kalshi_platform.catalog.store import CatalogStore, Changed, SyncReport
from kalshi_platform.errors import StatementRejected
from kalshi_platform.exchange.parse.rest import parse_event, parse_market, parse_series
from kalshi_platform.market.catalog import MarketInfo
from kalshi_platform.market.clock_offset import Offset
from kalshi_platform.market.times import datetime_from_us
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.storage import MigratedTemplate

T0 = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def market(ticker: str = "KXA-1-T1", **fields: Any) -> MarketInfo:
    basis = {"ticker": ticker, "event_ticker": ticker.rpartition("-")[0], "status": "active", "title": "t"}
    return parse_market(basis | fields)


@pytest.fixture
def database(database_factory: DatabaseFactory, migrated_template: MigratedTemplate) -> Iterator[Database]:
    made = Database(database_factory(migrated_template("catalog")), name="catalog")
    yield made
    made.dispose()


@pytest.fixture
def store(database: Database) -> CatalogStore:
    return CatalogStore(database)


def history(database: Database, table: str = "markets") -> list[tuple[Any, ...]]:
    with database.transaction() as transaction:
        return transaction.fetch_all(
            f"SELECT ticker, valid_from, valid_to, payload ->> 'title' FROM {table}_history ORDER BY 1, 2"
        )


def test_history_is_written_only_on_a_change(database: Database, store: CatalogStore) -> None:
    assert store.upsert_markets([market(volume_fp="1.00")], at(0)) == Changed(1, 1)
    assert store.upsert_markets([market(volume_fp="2.00")], at(1)) == Changed(1, 0)
    assert store.upsert_markets([market(volume_fp="2.00", title="u")], at(2)) == Changed(1, 1)
    assert history(database) == [("KXA-1-T1", at(0), at(2), "t"), ("KXA-1-T1", at(2), None, "u")]
    stored = store.market("KXA-1-T1")
    assert stored is not None
    assert stored.title == "u"
    assert '"2.00"' in stored.payload
    with database.transaction() as transaction:
        assert transaction.fetch_one("SELECT first_seen_at, known_at FROM markets") == (at(0), at(2))


def test_older_knowledge_changes_nothing(database: Database, store: CatalogStore) -> None:
    store.upsert_markets([market(title="new")], at(5))
    assert store.upsert_markets([market(title="old")], at(4)) == Changed(1, 0)
    stored = store.market("KXA-1-T1")
    assert stored is not None
    assert stored.title == "new"
    assert len(history(database)) == 1


def test_a_host_whose_clock_is_ahead_does_not_know_more_than_the_others(database: Database) -> None:
    offset: Offset | None = Offset(119.4, 120.4)
    ahead, right = CatalogStore(database, lambda: offset), CatalogStore(database, lambda: Offset(-0.3, 0.7))
    ahead.upsert_markets([market(title="first")], at(2))
    right.upsert_markets([market(title="second")], at(0.1))
    assert [row[3] for row in history(database)] == ["first", "second"]
    # What is measured varies; what it wrote last stays its newest, also when nothing is measured.
    offset = None
    ahead.upsert_markets([market(title="third")], at(2.2))
    offset = Offset(118.9, 121.9)
    assert ahead.mark_vanished(["KXA-1-T1"], at(2.21)) == 1
    # Its clock is set right.
    offset = Offset(-0.2, 0.8)
    assert right.upsert_markets([market(title="fourth")], at(0.3)) == Changed(1, 1)
    assert ahead.upsert_markets([market(title="fifth")], at(0.4)) == Changed(1, 1)


def test_two_versions_of_one_moment_leave_one_row(database: Database, store: CatalogStore) -> None:
    store.upsert_markets([market(title="a")], at(0))
    store.upsert_markets([market(title="b")], at(0))
    assert history(database) == [("KXA-1-T1", at(0), None, "b")]


def test_of_repeated_objects_the_last_answer_counts(database: Database, store: CatalogStore) -> None:
    assert store.upsert_markets([market(title="a"), market(title="b")], at(0)) == Changed(1, 1)
    assert [row[3] for row in history(database)] == ["b"]
    assert store.upsert_markets([], at(0)) == Changed(0, 0)


def test_every_field_comes_back(database: Database, store: CatalogStore) -> None:
    info = market(
        status="determined",
        market_type="binary",
        open_time="2026-11-22T16:00:00.000001Z",
        close_time="2026-11-24T04:59:00Z",
        created_time="2026-11-22T15:00:00Z",
        settlement_value_dollars="0.333333",
        result="scalar",
        can_close_early=True,
        mve_collection_ticker="KXMVE",
        exchange_index=3,
        price_level_structure="linear_cent",
        price_ranges=[{"start": "0", "end": "1", "step": "0.01"}],
    )
    store.upsert_markets([info], at(0))
    stored = store.market(info.ticker)
    assert stored is not None
    assert {field: getattr(stored, field) for field in info.__struct_fields__ if field != "payload"} == {
        field: getattr(info, field) for field in info.__struct_fields__ if field != "payload"
    }
    event = parse_event({"event_ticker": "KXA-1", "series_ticker": "KXA", "strike_date": "2026-11-24T05:00:00Z"})
    series = parse_series({"ticker": "KXA", "title": "A", "category": "C", "fee_type": "flat", "fee_multiplier": 0.5})
    assert store.upsert_events([event], at(0)) == Changed(1, 1)
    assert store.upsert_series([series], at(0)) == Changed(1, 1)
    with database.transaction() as transaction:
        known_event = transaction.fetch_one("SELECT ticker, series_ticker, strike_date FROM events")
        known_series = transaction.fetch_one("SELECT category, fee_multiplier, payload->>'title' FROM series")
    assert event.strike_date_us is not None
    assert known_event == ("KXA-1", "KXA", datetime_from_us(event.strike_date_us))
    assert known_series == ("C", 0.5, "A")
    assert store.categories() == {"KXA": "C"}
    assert store.series_of_events() == {"KXA-1": "KXA"}


def test_thousands_of_rows_take_a_few_statements(database: Database, store: CatalogStore) -> None:
    infos = [market(f"KXA-1-T{n}", rules_primary="it's 100 % \\ " * 20) for n in range(2_345)]
    assert store.upsert_markets(infos, at(0)) == Changed(2_345, 2_345)
    assert store.upsert_markets(infos, at(1)) == Changed(2_345, 0)
    assert len(history(database)) == 2_345


def test_what_is_found_as_it_was_known_keeps_its_row_for_a_while(database: Database, store: CatalogStore) -> None:
    def versions() -> list[tuple[object, ...]]:
        with database.transaction() as transaction:
            return transaction.fetch_all("SELECT ticker, ctid::text, known_at FROM markets ORDER BY ticker")

    patience = timedelta(minutes=3)
    store.upsert_markets([market("KXA-1-T1"), market("KXA-1-T2")], at(0), patience)
    first = versions()
    store.upsert_markets([market("KXA-1-T1"), market("KXA-1-T2", volume_fp="7.00")], at(2), patience)
    assert versions() == first
    store.upsert_markets([market("KXA-1-T1", updated_time="2026-11-22T20:00:00Z"), market("KXA-1-T2")], at(2), patience)
    assert [new == old for new, old in zip(versions(), first, strict=True)] == [False, True]
    store.upsert_markets([market("KXA-1-T2")], at(3), patience)
    assert versions()[1][2] == at(3)
    assert len(history(database)) == 2


def test_writers_at_once_leave_one_open_version(database: Database, store: CatalogStore) -> None:
    start = threading.Barrier(4)

    def run(writer: int) -> None:
        start.wait()
        for minute in range(5):
            infos = [market(f"KXA-1-T{n}", title=f"{writer}/{minute}") for n in range(20)]
            store.upsert_markets(infos, at(minute + writer / 10))

    threads = [threading.Thread(target=run, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = history(database)
    assert [row[3] for row in rows if row[2] is None] == ["3/4"] * 20
    for earlier, later in pairwise(rows):
        if earlier[0] == later[0]:
            assert earlier[2] == later[1]


def test_a_vanished_market_can_come_back(database: Database, store: CatalogStore) -> None:
    store.upsert_markets([market(), market("KXA-1-T2")], at(0))
    assert store.mark_vanished(["KXA-1-T1", "unknown"], at(1)) == 1
    assert store.mark_vanished(["KXA-1-T1"], at(2)) == 0
    assert store.mark_vanished([], at(2)) == 0
    assert store.mark_vanished(["KXA-1-T2"], at(-1)) == 0
    assert [info.ticker for info in store.markets_to_subscribe()] == ["KXA-1-T2"]
    assert store.upsert_markets([market()], at(3)) == Changed(1, 1)
    with database.transaction() as transaction:
        rows = transaction.fetch_all(
            "SELECT valid_from, status FROM markets_history WHERE ticker = 'KXA-1-T1' ORDER BY 1"
        )
    assert rows == [(at(0), "active"), (at(1), "vanished"), (at(3), "active")]


def test_the_catalog_poller_reads_changes_only_whatever_clock_dates_them(
    database: Database, store: CatalogStore
) -> None:
    began = store.newest_change()
    store.upsert_markets([market(), market("KXA-1-T2")], at(0))
    first = store.newest_change()
    # A host whose clock is hours ahead of the one by which the catalog is dated, say.
    store.upsert_markets([market(), market("KXA-1-T2", status="closed")], at(0.1))
    assert [info.ticker for info in store.changed_since(began)] == ["KXA-1-T1", "KXA-1-T2"]
    assert [(info.ticker, info.status) for info in store.changed_since(first)] == [("KXA-1-T2", "closed")]
    last = store.newest_change()
    assert list(store.changed_since(last)) == []
    assert [store.contains_change(change) for change in (began, first, last)] == [True, True, True]
    with database.transaction() as transaction:
        transaction.execute("UPDATE catalog_changes SET token = gen_random_uuid() WHERE change_no = %s", last[:1])
    assert not store.contains_change(last)


def test_a_transaction_has_one_number_and_another_one_after_what_was_taken_back(
    database: Database, store: CatalogStore
) -> None:
    store.upsert_markets([market(f"KXA-1-T{number}") for number in range(3)], at(0))
    before = store.newest_change().change_no
    touch = "UPDATE markets SET known_at = known_at WHERE ticker = %s"
    with database.transaction() as transaction:
        transaction.execute("SAVEPOINT taken_back")
        transaction.execute(touch, ("KXA-1-T0",))
        transaction.execute("ROLLBACK TO taken_back")
        transaction.execute("SAVEPOINT kept")
        transaction.execute(touch, ("KXA-1-T1",))
        transaction.execute("RELEASE kept")
        transaction.execute(touch, ("KXA-1-T2",))
    with database.transaction() as transaction:
        transaction.execute(touch, ("KXA-1-T0",))
        numbers = transaction.fetch_all("SELECT change_no FROM markets ORDER BY ticker")
    assert [number for (number,) in numbers] == [before + 2, before + 1, before + 1]
    assert store.newest_change().change_no == before + 2


def test_markets_to_subscribe_are_those_not_over(store: CatalogStore) -> None:
    statuses = ["initialized", "inactive", "active", "closed", "determined", "disputed", "amended", "finalized"]
    store.upsert_markets([market(f"KXA-1-{status}", status=status) for status in statuses], at(0))
    assert {info.status for info in store.markets_to_subscribe()} == {"initialized", "inactive", "active"}


def test_syncs_that_failed_or_fetched_one_object_are_not_the_last(store: CatalogStore) -> None:
    assert store.last_sync("markets") is None
    done = store.begin_sync("markets", "full", at(0))
    store.record_sync(done, Changed(10, 2), at(0), at(1))
    failed = store.begin_sync("markets", "incremental", at(5))
    store.record_sync(failed, Changed(1, 0), at(5), None, "ConnectionLost: x")
    store.record_sync(store.begin_sync("markets", "full", at(5)), Changed(9, 0), at(5), at(6), "1 left out")
    store.begin_sync("markets", "full", at(6))
    store.record_sync(store.begin_sync("markets", "KXA-1-T1", at(7)), Changed(1, 1), at(7), at(7))
    store.record_sync(store.begin_sync("events", "full", at(8)), Changed(1, 1), at(8), at(8))
    assert store.last_sync("markets") == SyncReport("markets", "full", 10, 2, at(0), at(1))


def test_a_sync_is_dated_by_the_clock_of_the_exchange(database: Database) -> None:
    # What changed within ten minutes after a sync that this clock dates ten minutes ahead must be asked for.
    ahead = CatalogStore(database, lambda: Offset(600.0, 600.2))
    ahead.record_sync(ahead.begin_sync("markets", "full", at(10)), Changed(1, 1), at(10), at(11))
    last = ahead.last_sync("markets")
    assert last is not None
    assert abs(last.started_at - at(0)) < timedelta(seconds=1)


def test_an_object_that_the_database_refuses_costs_only_itself(
    database: Database, store: CatalogStore, caplog: pytest.LogCaptureFixture
) -> None:
    too_large = msgspec.structs.replace(market("KXA-1-T5"), settlement_value_e6=2**63)
    # Longer than an entry of an index may be, also after compression; the parser lets none pass.
    name = "KXA-1-" + "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(6_000))
    too_long = msgspec.structs.replace(market("KXA-1-T4"), ticker=name)
    never = msgspec.structs.replace(market("KXA-1-T6"), close_time_us=2**62)
    good = [market(f"KXA-1-T{number}") for number in (1, 2, 8, 9)]
    report = store.upsert_markets([*good, too_large, too_long, never], at(0))
    assert report == Changed(7, 4)
    assert [row[0] for row in history(database)] == [info.ticker for info in good]
    assert store.refused == 3
    assert "catalog_row_skipped table=markets ticker=KXA-1-T5" in caplog.text


def test_a_refusal_that_is_not_about_an_object_is_reported(database: Database, store: CatalogStore) -> None:
    with database.transaction() as transaction:
        transaction.execute("DROP TABLE markets CASCADE")
    with pytest.raises(StatementRejected):
        store.upsert_markets([market(), market("KXA-1-T2")], at(0))
    assert store.refused == 0
