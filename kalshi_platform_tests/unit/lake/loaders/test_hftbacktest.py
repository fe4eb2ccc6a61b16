"""The array for hftbacktest: folded by hand it gives the reader's books, and the library itself shows them too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from kalshi_platform.errors import MissingPartition
from kalshi_platform.lake.loaders import to_hftbacktest
from kalshi_platform.lake.loaders.hftbacktest import (
    BUY_EVENT,
    DEPTH_CLEAR_EVENT,
    DEPTH_EVENT,
    DEPTH_SNAPSHOT_EVENT,
    EVENT_DTYPE,
    EXCH_EVENT,
    LOCAL_EVENT,
    SELL_EVENT,
    TRADE_EVENT,
    Events,
    _Rows,
    make_events,
    order_events,
)
from kalshi_platform.lake.loaders.market_steps import BookLost, LevelsChanged
from kalshi_platform_tests.unit.lake.loaders.world import (
    END,
    HOLE_FROM,
    HOLE_TO,
    START,
    TICKER,
    World,
    best_prices,
    times_ns,
    yes_levels,
)

MS = 1_000_000


@pytest.fixture(scope="module")
def events(world: World, tmp_path_factory: pytest.TempPathFactory) -> Events:
    path = tmp_path_factory.mktemp("written") / "market.npz"
    count = to_hftbacktest(world.store, TICKER, START, END, path)
    with np.load(path) as file:
        loaded = file["data"]
    assert len(loaded) == count
    assert [each.name for each in path.parent.iterdir()] == ["market.npz"]
    return cast(Events, loaded)


def kind(events: Events) -> Any:
    return events["ev"] & np.uint64(0xFF)


def flagged(events: Events, flag: int) -> Events:
    return cast(Events, events[events["ev"] & np.uint64(flag) != 0])


def fold(events: Events) -> dict[tuple[str, int], int]:
    """The book after depth events, as the format's documents say."""
    book: dict[tuple[str, int], int] = {}
    for row in events:
        side = "bid" if int(row["ev"]) & BUY_EVENT else "ask"
        price, size = round(float(row["px"]) * 10_000), round(float(row["qty"]) * 100)
        match int(row["ev"]) & 0xFF:
            case 3:
                cleared = range(price, 10_001) if side == "bid" else range(price + 1)
                book = {level: size for level, size in book.items() if level[0] != side or level[1] not in cleared}
            case 1 | 4:
                book[side, price] = size
    return {level: size for level, size in book.items() if size}


def test_every_event_is_once_in_the_order_of_each_clock(events: Events) -> None:
    assert events.dtype == EVENT_DTYPE
    at_exchange, here = flagged(events, EXCH_EVENT), flagged(events, LOCAL_EVENT)
    assert len(at_exchange) == len(here) < len(events)
    assert (np.diff(at_exchange["exch_ts"]) >= 0).all()
    assert (np.diff(here["local_ts"]) >= 0).all()
    assert (events["local_ts"] >= events["exch_ts"]).all()
    # The book takes its changes in one order on both clocks.
    for rows in zip(at_exchange[kind(at_exchange) != TRADE_EVENT], here[kind(here) != TRADE_EVENT], strict=True):
        assert rows[0]["px"] == rows[1]["px"]
        assert rows[0]["qty"] == rows[1]["qty"]


def test_folded_events_are_the_books_of_the_reader(world: World, events: Events) -> None:
    rows = flagged(events, EXCH_EVENT)
    wanted = [each for each in world.moments if START <= each < END][::9]
    assert len(wanted) > 20
    for moment in wanted:
        until = np.searchsorted(rows["exch_ts"], times_ns([moment])[0], "right")
        assert fold(rows[:until]) == yes_levels(world.store, moment)


def test_a_hole_clears_both_sides_and_a_snapshot_ends_it(events: Events) -> None:
    rows = flagged(events, EXCH_EVENT)
    begins, ends = times_ns([HOLE_FROM, HOLE_TO])
    clears = rows[kind(rows) == DEPTH_CLEAR_EVENT]
    assert clears["exch_ts"].tolist() == [*times_ns([START, START]), begins, begins, ends, ends]
    inside = rows[(rows["exch_ts"] >= begins) & (rows["exch_ts"] < ends)]
    assert set(kind(inside).tolist()) == {DEPTH_CLEAR_EVENT, TRADE_EVENT}
    given = rows[kind(rows) == DEPTH_SNAPSHOT_EVENT]
    assert set(given["exch_ts"].tolist()) == set(times_ns([START, HOLE_TO]))


def test_local_times_are_those_of_receipt_and_the_usual_delay_where_there_is_none(events: Events) -> None:
    depth = flagged(events, LOCAL_EVENT)
    depth = depth[kind(depth) == DEPTH_EVENT]
    delays = depth["local_ts"] - depth["exch_ts"]
    # Only what follows another at once waits for it.
    assert 20 * MS <= delays.min() < np.median(delays) < 60 * MS
    trades = flagged(events, LOCAL_EVENT)
    trades = trades[kind(trades) == TRADE_EVENT]
    of_time = trades[np.argsort(trades["exch_ts"], kind="stable")]
    buyer = [int(each) & (BUY_EVENT | SELL_EVENT) for each in of_time["ev"]]
    assert buyer == [BUY_EVENT, SELL_EVENT, SELL_EVENT, 0]
    assert of_time["px"].tolist() == [0.5, 0.5, 0.5, 0.5127]
    assert of_time["qty"].tolist() == [1.5] * 4
    first, second, listed, late = (of_time["local_ts"] - of_time["exch_ts"]).tolist()
    assert (first, second, late) == (30 * MS, 30 * MS, 90_000 * MS)
    assert listed == pytest.approx(np.median(delays), abs=5 * MS)


def test_events_that_overtake_stand_once_on_each_clock() -> None:
    rows = np.zeros(5, EVENT_DTYPE)
    rows["exch_ts"] = [1, 2, 3, 4, 5]
    rows["local_ts"] = [10, 30, 20, 25, 40]
    rows["order_id"] = range(5)
    ordered = order_events(rows)
    assert [(int(each["order_id"]), int(each["ev"]) >> 30) for each in ordered] == [
        (0, 3), (1, 2), (2, 3), (3, 3), (1, 1), (4, 3),
    ]  # fmt: skip


def test_a_book_is_cleared_after_the_changes_before_it_on_both_clocks() -> None:
    rows = _Rows()
    for ts_us in (10, 20, 30):
        rows.add(LevelsChanged(ts_us, ((("bid", 5_000), ts_us - 10, ts_us),)))
    rows.add(BookLost(40))
    events = make_events(rows, np.array([10, 20, 30]), np.array([15, 25, 535]))
    assert events["local_ts"].tolist() == [15_000, 25_000, 535_000, 535_000, 535_000]
    assert (events["ev"] >> np.uint64(30)).tolist() == [3] * 5


def test_a_market_of_which_nothing_is_known_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(MissingPartition, match="KXNONE"):
        to_hftbacktest(world.store, "KXNONE", START, END, tmp_path / "none.npz")
    assert not list(tmp_path.iterdir())


def library() -> Any:
    return pytest.importorskip("hftbacktest", reason="hftbacktest is not installed: make loaders")


def test_the_library_takes_the_order_as_valid(events: Events) -> None:
    hftbacktest = library()
    assert hftbacktest.event_dtype == events.dtype
    pytest.importorskip("hftbacktest.data").validate_event_order(events)


@pytest.mark.parametrize("depth", ["HashMapMarketDepthBacktest", "ROIVectorMarketDepthBacktest"])
def test_the_library_shows_the_best_prices_and_trades_of_the_lake(
    world: World, tmp_path: Path, depth: str, events: Events
) -> None:
    hftbacktest = library()
    path = tmp_path / "market.npz"
    to_hftbacktest(world.store, TICKER, START, END, path)
    asset = (
        hftbacktest.BacktestAsset()
        .data([str(path)])
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .risk_adverse_queue_model()
        .no_partial_fill_exchange()
        .trading_value_fee_model(0, 0)
        .tick_size(0.0001)
        .lot_size(0.01)
        .last_trades_capacity(100)
    )
    if depth.startswith("ROI"):
        asset = asset.roi_lb(0.0).roi_ub(1.0)
    backtest = getattr(hftbacktest, depth)([asset])
    best_at = _lookup(world)
    here = flagged(events, LOCAL_EVENT)
    compared, lost, trades = 0, 0, []
    while backtest.wait_next_feed(False, 10**12) in (2, 3):
        now = int(backtest.current_timestamp)
        trades += [round(float(each["px"]) * 10_000) for each in backtest.last_trades(0)]
        backtest.clear_last_trades(0)
        book = backtest.depth(0)
        if kind(here[np.searchsorted(here["local_ts"], now, "right") - 1 :])[0] == DEPTH_CLEAR_EVENT:
            assert np.isnan([book.best_bid, book.best_ask]).all()
            lost += 1
        elif (found := best_at(here, now)) is not None:
            assert (book.best_bid_tick, book.best_ask_tick) == found
            compared += 1
    backtest.close()
    assert trades == [5_000, 5_000, 5_000, 5_127]
    assert (compared > 20, lost) == (True, 1)


def _lookup(world: World) -> Callable[[Events, int], tuple[int | None, int | None] | None]:
    """Best prices of the lake at a local time at which no other event comes, for some of them."""
    exact: dict[int, datetime] = dict(zip(times_ns(world.moments), world.moments, strict=True))

    def find(here: Events, now: int) -> tuple[int | None, int | None] | None:
        until = np.searchsorted(here["local_ts"], now, "right")
        last = here[until - 1]
        moment = exact.get(int(last["exch_ts"]))
        if moment is None or until % 3 or kind(here[until - 1 : until])[0] != DEPTH_EVENT:
            return None
        return best_prices(world.store, moment)

    return find
