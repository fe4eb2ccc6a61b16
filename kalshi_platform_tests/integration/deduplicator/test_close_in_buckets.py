"""An hour closed in many buckets of markets says what one closed at once says, in every table."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close import hour_work
from kalshi_platform.deduplicator.close.close_hour import PartClose, close_hour, close_part
from kalshi_platform.deduplicator.close.close_record import HourClose
from kalshi_platform.deduplicator.close.hour_gatherers import HourGatherers
from kalshi_platform.deduplicator.close.hours import find_hours_to_close
from kalshi_platform.deduplicator.close.verify_hour import HourVerification, verify_hour
from kalshi_platform.deduplicator.settings import DeduplicatorSettings
from kalshi_platform.errors import CloseSuperseded
from kalshi_platform.market.names import LONGEST_NAME
from kalshi_platform.market.parts import MarketPart
from kalshi_platform.market.times import US_PER_S
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.hand_filled_gatherer import (
    GathererDatabase,
    Row,
    delta_row,
    lifecycle_row,
    snapshot_row,
    ticker_row,
    trade_row,
)
from kalshi_platform_tests.fixtures.merge_world import MergeWorld
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.integration.deduplicator.test_close_coverage import (
    HOUR,
    HOUR_US,
    MINUTE,
    START,
    every,
)
from kalshi_platform_tests.integration.deduplicator.test_close_coverage import record as record_a_and_q

MARKETS = [f"KXBUCKET-{number}" for number in range(12)]
TOO_LONG = "X" * (LONGEST_NAME + 1)
FEED = 250
"""Deltas that the exchange published, a second apart."""
SAID = {
    "stream_claims": "", "coverage": "", "book_proofs": "", "book_checkpoints": "", "merge_statistics": "",
    "close_alarms": "", "time_regressions": "", "closed_streams": "", "dead_letters": "gatherer, table_name, payload",
    "hour_closes": "hour, rows, checkpoints, gatherers_read, may_grow, markets, open_us, covered_us",
    "orderbook_deltas": "", "trades": "", "tickers": "", "orderbook_snapshots": "", "market_lifecycle": "",
}  # fmt: skip
BUCKETS, PARTS = 7, 3
_COLUMNS = (
    "SELECT column_name FROM information_schema.columns WHERE table_name = %s"
    " AND column_name NOT IN ('raised_at', 'inserted_at') ORDER BY ordinal_position"
)


def published(pick: random.Random) -> list[Row]:
    """Deltas of all markets; now and then several in a microsecond, and times that go back a little."""
    rows: list[Row] = []
    at = START
    for number in range(FEED):
        at += pick.choice((0, US_PER_S, US_PER_S, 3 * US_PER_S // 2))
        back = pick.choice((0, 0, 0, 200_000))
        rows.append(delta_row(pick.choice(MARKETS), ts_us=at - back, seq=0, price_e4=100 * (1 + number % 90)))
    return rows


def record(gatherer: GathererDatabase, number: int, feed: list[Row], lost: range, silent: int | None) -> None:
    """What a gatherer has of the feed: two streams beside each other, one with a gap; rows of all tables besides.

    `lost`: places of frames that it knows to have lost; `silent`: one that vanished without a trace.
    """
    for shard in (0, 1):
        stream = number * 10 + shard
        mine = [ticker for place, ticker in enumerate(MARKETS) if place % 2 == shard]
        _subscribe(gatherer, stream, mine, shard, START, {ticker: {4000: 5_000} for ticker in mine})
        seq = len(mine)
        part: list[Row] = []
        is_gap = False
        for place, row in enumerate(feed):
            if row["ticker"] not in mine:
                continue
            seq += 1
            is_gap |= place in lost
            if place in lost or place == silent:
                continue
            if is_gap:
                seq = _resubscribe(gatherer, stream, part, mine, feed[:place], seq)
                part, is_gap = [], False
            part.append({**row, "stream_id": stream, "seq": seq, "received_at": row["received_at"] + 7 * number})
        _commit(gatherer, stream, part)
    hello = HOUR_US + 20 * MINUTE
    gatherer.commit(
        trades=[trade_row(ticker, f"t{ticker}", ts_us=hello + 1_000 * number) for ticker in MARKETS[: 4 + number]],
        tickers=[ticker_row(ticker, ts_us=hello, seq=number) for ticker in MARKETS],
        market_lifecycle=[lifecycle_row(ticker, received_us=hello + number, seq=3) for ticker in MARKETS[3:]],
        orderbook_deltas=[delta_row(TOO_LONG, ts_us=hello + number, seq=1, stream_id=number * 10 + 5)],
    )
    polled = [
        snapshot_row(ticker, received_us=minute, seq=0, stream_id=0, source="rest", yes={4000: 5_000})
        for ticker in MARKETS[:5] for minute in (START + 2 * MINUTE, START + 3 * MINUTE)
    ]  # fmt: skip
    gatherer.commit(orderbook_snapshots=polled)


def _subscribe(
    gatherer: GathererDatabase,
    stream: int,
    tickers: list[str],
    index: int,
    at: int,
    books: dict[str, Any],
    seq: int = 0,
) -> None:
    snapshots = [
        snapshot_row(ticker, received_us=at, seq=seq + place, stream_id=stream, yes=books[ticker])
        for place, ticker in enumerate(tickers, start=1)
    ]
    members = [(stream, ticker, seq + place, None) for place, ticker in enumerate(tickers, start=1)]
    gatherer.commit(
        orderbook_snapshots=snapshots, segments=[(stream, seq + 1, seq + len(tickers))], book_subscriptions=members,
        exchange_index=index,
    )  # fmt: skip


def _resubscribe(
    gatherer: GathererDatabase, stream: int, part: list[Row], tickers: list[str], before: list[Row], seq: int
) -> int:
    """End all books after `part`, and begin them anew with the books that the exchange has then."""
    _commit(gatherer, stream, part)
    last = part[-1]["seq"]
    gatherer.commit(
        book_subscriptions=[(stream, ticker, place, last) for place, ticker in enumerate(tickers, start=1)],
        exchange_index=stream % 10,
    )  # fmt: skip
    books: dict[str, dict[int, int]] = {ticker: {4000: 5_000} for ticker in tickers}
    for row in before:
        if row["ticker"] in books:
            book = books[row["ticker"]]
            book[row["price_e4"]] = book.get(row["price_e4"], 0) + row["delta_e2"]
    _subscribe(gatherer, stream, tickers, stream % 10, before[-1]["received_at"], books, seq)
    return seq + len(tickers) + 1


def _commit(gatherer: GathererDatabase, stream: int, rows: list[Row]) -> None:
    for low in range(0, len(rows), 40):
        some = rows[low : low + 40]
        gatherer.commit(orderbook_deltas=some, segments=[(stream, some[0]["seq"], some[-1]["seq"])])


def said(url: str) -> dict[str, list[tuple[Any, ...]]]:
    database = Database(url, name="production")
    found = {}
    try:
        with database.transaction() as transaction:
            for table, names in SAID.items():
                columns = names or ", ".join(name for (name,) in transaction.fetch_all(_COLUMNS, (table,)))
                found[table] = sorted(transaction.fetch_all(f"SELECT {columns} FROM {table}"), key=repr)
    finally:
        database.dispose()
    return found


def close(settings: DeduplicatorSettings) -> HourClose:
    return close_hour(settings, HOUR, SYSTEM_CLOCK, PartitionBounds())


def test_an_hour_closed_in_seven_buckets_is_the_hour_closed_at_once(
    merge_world: Callable[..., MergeWorld], database_factory: DatabaseFactory
) -> None:
    world = merge_world(3)
    feed = published(random.Random(5))
    for number, (gatherer, lost, silent) in enumerate(
        zip(world.gatherers.values(), (range(60, 80), range(150, 170), range(0)), (None, None, 200), strict=True),
        start=1,
    ):
        record(gatherer, number, feed, lost, silent)
    weight = HourGatherers(world.settings(), HOUR, SYSTEM_CLOCK).weigh_hour()
    once = world.settings(close_bucket_rows=weight)
    production = database_factory("template_production")
    parted = world.settings(close_bucket_rows=-(-weight // BUCKETS), production_url=production, rows_per_pass=50)
    first, second = close(once), close(parted)
    assert first.inserted.keys() == second.inserted.keys()
    expected = said(once.production_url)
    assert said(parted.production_url) == expected
    again = close(parted)
    assert sum(again.inserted.values()) == 0
    now = said(parted.production_url)
    for table in SAID:
        assert now[table] == expected[table], table
    elsewhere = replace(once, production_url=database_factory("template_production"))
    last = [
        close_part(elsewhere, HOUR, MarketPart(number, PARTS), SYSTEM_CLOCK, PartitionBounds()) for number in (2, 3, 1)
    ][-1]
    assert last.closed is not None
    assert said(elsewhere.production_url) == expected
    assert {kind for kind, *_ in first.alarms} == {"claims_disagree", "rows_refused", "book_proof"}
    assert all(expected[table] for table in SAID), "no table is empty"


def test_an_hour_is_closed_when_all_parts_of_one_division_have_read_the_same_gatherers(
    merge_world: Callable[..., MergeWorld],
) -> None:
    world = merge_world(2)
    for number, gatherer in enumerate(world.gatherers.values(), start=1):
        record_a_and_q(gatherer, number, every(2, 40))
    settings = world.settings()
    here, other = settings.sources
    away = replace(settings, sources=(here, replace(other, timeseries_url=f"{other.timeseries_url}_gone")))

    def work(number: int, total: int = 2, of: DeduplicatorSettings = settings) -> PartClose:
        return close_part(of, HOUR, MarketPart(number, total), SYSTEM_CLOCK, PartitionBounds())

    assert work(1, of=away).remaining == (2,)
    assert work(1, total=3).remaining == (2, 3), "another division"
    done = work(2)
    assert (done.closed, done.remaining, done.again) == (None, (1,), (1,))
    assert world.rows("SELECT count(*) FROM hour_closes") == world.rows("SELECT count(*) FROM coverage") == [(0,)]
    with world.production.transaction() as transaction:
        transaction.execute("UPDATE hour_parts SET content = 'of another version' WHERE part = 2 AND parts = 2")
    assert work(1).again == (2,), "no error: it is done anew"
    closed = work(2).closed
    assert closed is not None
    assert (closed.gatherers_read, closed.failed, closed.rows["orderbook_deltas"]) == (("g1", "g2"), (), 40)
    assert world.rows("SELECT count(*) FROM hour_parts") == [(0,)]
    assert find_hours_to_close(world.production, SYSTEM_CLOCK.now()) == []
    before = said(world.production_url)
    close(settings)
    assert said(world.production_url) == before


def test_a_part_whose_hour_is_closed_meanwhile_is_not_kept(
    merge_world: Callable[..., MergeWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = merge_world(1)
    record_a_and_q(world.gatherers["g1"], 1, every(2, 20))

    def closed_meanwhile(*arguments: Any) -> HourVerification:
        monkeypatch.undo()
        close(world.settings())
        return verify_hour(*arguments)

    monkeypatch.setattr(hour_work, "verify_hour", closed_meanwhile)
    with pytest.raises(CloseSuperseded, match="closed by another close while part 1/2"):
        close_part(world.settings(), HOUR, MarketPart(1, 2), SYSTEM_CLOCK, PartitionBounds())
