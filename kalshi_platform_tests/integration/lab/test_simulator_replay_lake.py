"""Hours of the lake as an exchange: order, books, any slice of time, and what a gatherer records of it."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.errors import ConfigurationError, LakeUnavailable
from kalshi_platform.lab.simulator.engine import listing
from kalshi_platform.lab.simulator.engine.activity import Activity
from kalshi_platform.lab.simulator.engine.book import SIDES
from kalshi_platform.lab.simulator.engine.universe import Market, Trade
from kalshi_platform.lab.simulator.engine.venue import Venue
from kalshi_platform.lab.simulator.replay.capture import recorded_levels
from kalshi_platform.lab.simulator.replay.lake import LakeSource
from kalshi_platform.lab.simulator.replay.recorded import Recorded
from kalshi_platform.lab.simulator.settings import ReplaySettings
from kalshi_platform.lake.layout import find_dataset, partition_starting
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform.market.times import datetime_from_us
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.gatherer_service import running_gatherer
from kalshi_platform_tests.fixtures.lake import batch, put_partition, row

START = datetime(2026, 11, 20, 4, tzinfo=UTC)
START_US = round(START.timestamp()) * 1_000_000
HOUR_US = 3_600_000_000
END_US = 2 * HOUR_US - 1
CHECKPOINTS_US = (600_000_000, HOUR_US - 1, HOUR_US + 900_000_000)
MARKETS = 6


@dataclass
class Happenings:
    """A sink that keeps what a venue publishes."""

    deltas: list[tuple[int, str, str, int, int]] = field(default_factory=list)
    trades: list[Trade] = field(default_factory=list)
    tickers: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)

    def delta(self, market: Market, us: int, side: int, price_e4: int, delta_e2: int) -> None:
        self.deltas.append((us, market.ticker, SIDES[side], price_e4, delta_e2))

    def trade(self, market: Market, trade: Trade) -> None:
        self.trades.append(trade)

    def ticker(self, market: Market, us: int, body: bytes, *, initial: bool) -> None:
        self.tickers.append((us, market.ticker, json.loads(body)))

    def lifecycle(self, kind: str, ticker: str, us: int, msg: dict[str, Any]) -> None:
        raise AssertionError(kind)


@dataclass(frozen=True)
class Recording:
    """Two hours of a venue as a lake, and what happened in them; `middle`: the books half an hour after the start."""

    root: Path
    happened: Happenings
    first: dict[str, dict[tuple[str, int], int]]
    middle: dict[str, dict[tuple[str, int], int]]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    happened = Happenings()
    venue = Venue(happened, random.Random(1))
    activity = Activity(venue, random.Random(2))
    listing.populate(venue, activity, random.Random(3), markets=MARKETS, combos=0, now_us=START_US)
    first, middle = books(venue), {}
    checkpoints, now_us = [], START_US
    for until_us in sorted((*CHECKPOINTS_US, HOUR_US // 2, END_US)):
        activity.run(now_us, START_US + until_us, 700)
        now_us = START_US + until_us
        if until_us == HOUR_US // 2:
            middle = books(venue)
        elif until_us != END_US:
            checkpoints += [(now_us, market) for market in books(venue).items()]
    root = tmp_path_factory.mktemp("lake")
    store = FolderStore(FolderRoot(root))
    for number in range(2):
        hour = START + timedelta(hours=number)
        for name, rows in tables(happened, checkpoints, hour).items():
            data = find_dataset(f"raw/{name}")
            made = [row(data, datetime_from_us(us), seq=seq, **values) for seq, (us, values) in enumerate(rows, 1)]
            put_partition(store, partition_starting(data, hour), [batch(data, made)] if made else [])
    return Recording(root, happened, first, middle)


def books(venue: Venue) -> dict[str, dict[tuple[str, int], int]]:
    return {
        market.ticker: {
            (SIDES[side], price): size for side in (0, 1) for price, size in market.book.sorted_levels(side)
        }
        for market in venue.quoting
    }


def tables(happened: Happenings, checkpoints: list[Any], hour: datetime) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    low = round(hour.timestamp()) * 1_000_000

    def inside(us: int) -> bool:
        return low <= us < low + HOUR_US

    def e(text: str) -> int:
        return int(text.replace(".", ""))

    return {
        "orderbook_deltas": [
            (us, {"exchange_ts": datetime_from_us(us), "ticker": t, "side": s, "price_e4": p, "delta_e2": d})
            for us, t, s, p, d in happened.deltas
            if inside(us)
        ],
        "trades": [
            (
                each.us,
                {
                    "exchange_ts": datetime_from_us(each.us // 1_000 * 1_000),
                    "created_time": datetime_from_us(each.us),
                    "ticker": each.ticker, "trade_id": each.trade_id, "yes_price_e4": each.yes_price_e4,
                    "no_price_e4": 10_000 - each.yes_price_e4, "count_e2": each.count_e2,
                    "taker_side": SIDES[each.taker_side], "is_block_trade": each.is_block_trade,
                },
            )
            for each in happened.trades
            if inside(each.us)
        ],
        "tickers": [
            (
                us,
                {
                    "exchange_ts": datetime_from_us(us // 1_000 * 1_000), "ticker": ticker, "fingerprint": us,
                    "price_e4": e(msg["price_dollars"]), "yes_bid_e4": e(msg["yes_bid_dollars"]),
                    "yes_ask_e4": e(msg["yes_ask_dollars"]), "volume_e2": e(msg["volume_fp"]),
                    "open_interest_e2": e(msg["open_interest_fp"]), "dollar_volume": msg["dollar_volume"],
                    "dollar_open_interest": msg["dollar_open_interest"], "yes_bid_size_e2": e(msg["yes_bid_size_fp"]),
                    "yes_ask_size_e2": e(msg["yes_ask_size_fp"]), "last_trade_size_e2": e(msg["last_trade_size_fp"]),
                },
            )
            for us, ticker, msg in happened.tickers
            if inside(us)
        ],
        "book_checkpoints": [
            (
                us,
                {
                    "checkpoint_ts": datetime_from_us(us), "ticker": ticker,
                    **{f"{side}_price_e4": [p for s, p in sorted(levels) if s == side] for side in SIDES},
                    **{f"{side}_count_e2": [levels[s, p] for s, p in sorted(levels) if s == side] for side in SIDES},
                },
            )
            for us, (ticker, levels) in checkpoints
            if inside(us)
        ],
        "market_lifecycle": [],
    }  # fmt: skip


def delta_rows(messages: Iterator[Recorded]) -> list[tuple[int, str, str, int, int]]:
    return [(m.us, m.ticker, SIDES[m.change[0]], *m.change[1:]) for m in messages if m.change is not None]


def levels_of(msg: dict[str, Any]) -> dict[tuple[str, int], int]:
    return {(SIDES[side], price): size for side in (0, 1) for price, size in recorded_levels(msg, side).items()}


@pytest.mark.parametrize("rows_per_slice", [100_000, 300])
def test_hours_come_in_the_order_of_time_whatever_the_slices(recording: Recording, rows_per_slice: int) -> None:
    source = LakeSource(str(recording.root), START_US, START_US + 2 * HOUR_US, rows_per_slice)
    state = source.start()
    assert {ticker: levels_of(msg) for ticker, msg in state.books.items()} == recording.first
    messages = list(source.messages())
    assert [m.us for m in messages] == sorted(m.us for m in messages)
    found = delta_rows(iter(messages))
    assert Counter(found) == Counter(recording.happened.deltas)
    # Of one market and moment in the order in which they happened.
    for ticker in recording.first:
        assert [d for d in found if d[1] == ticker] == [d for d in recording.happened.deltas if d[1] == ticker]
    kinds = Counter(m.kind for m in messages)
    assert kinds["trade"] == len(recording.happened.trades)
    assert kinds["ticker"] == len(recording.happened.tickers)
    trades = [m.msg["trade_id"] for m in messages if m.kind == "trade"]
    assert trades == [each.trade_id for each in recording.happened.trades]


def test_range_within_an_hour_begins_with_the_books_of_its_first_moment(recording: Recording) -> None:
    low, high = START_US + HOUR_US // 2 + 1, START_US + HOUR_US + HOUR_US // 2
    source = LakeSource(recording.root.as_uri(), low, high)
    state = source.start()
    assert {ticker: levels_of(msg) for ticker, msg in state.books.items()} == recording.middle
    assert delta_rows(source.messages()) == [d for d in recording.happened.deltas if low <= d[0] < high]


def test_lake_without_an_hour_of_the_range_is_refused(recording: Recording) -> None:
    with pytest.raises(ConfigurationError, match="no closed hour"):
        LakeSource(str(recording.root), START_US - 5 * HOUR_US, START_US)
    with pytest.raises(ConfigurationError, match="after its --from"):
        LakeSource(str(recording.root), START_US, START_US)


def test_lake_that_cannot_be_read_is_unavailable_and_its_login_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "raw/orderbook_deltas/date=2026-11-20/hour=04/_manifest.json").mkdir(parents=True)
    with pytest.raises(LakeUnavailable, match="hour=04"):
        LakeSource(str(tmp_path), START_US, START_US + HOUR_US)
    with pytest.raises(ConfigurationError) as refused:
        LakeSource("s3://key:hidden@bucket/lake?no_such_parameter=1", START_US, START_US + HOUR_US)
    assert "hidden" not in str(refused.value)


def test_gatherer_that_records_the_replay_has_the_same_deltas(
    recording: Recording, gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    settings = ReplaySettings(
        lake=str(recording.root), from_us=START_US, to_us=START_US + 2 * HOUR_US, speed=0, wait_subscribers=1
    )
    with (
        running_exchange(tmp_path, replay=settings) as exchange,
        running_gatherer(gatherer_settings(), exchange) as gatherer,
    ):
        wanted = Counter(recording.happened.deltas)
        eventually(lambda: exchange.state()["replay"]["finished"], what="the end of the replay")
        eventually(lambda: gatherer.value("SELECT count(*) FROM orderbook_deltas") >= wanted.total())
        found = gatherer.rows(
            "SELECT (extract(epoch FROM exchange_ts) * 1000000)::bigint, ticker, side, price_e4, delta_e2"
            " FROM orderbook_deltas"
        )
        assert Counter(found) == wanted
        eventually(lambda: gatherer.value("SELECT count(*) FROM trades") == len(recording.happened.trades))
        held = {ticker: exchange.book(ticker) for ticker in recording.first}
        assert len(held) == MARKETS
