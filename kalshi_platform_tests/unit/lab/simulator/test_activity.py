from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.lab.simulator.engine.grids import positions
from kalshi_platform_tests.unit.lab.simulator.helpers import START_US, levels_of, small_venue

SECOND_US = 1_000_000


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), markets=st.integers(1, 30))
def test_first_books_and_deltas_give_the_last_books_and_no_level_is_ever_negative(seed: int, markets: int) -> None:
    venue, activity, sink = small_venue(markets, seed)
    levels = levels_of(venue)
    activity.run(START_US, START_US + SECOND_US, 600)
    for _, ticker, _us, side, price, delta in sink.of("delta"):
        levels[ticker, side, price] = levels.get((ticker, side, price), 0) + delta
        assert levels[ticker, side, price] >= 0
    assert {key: size for key, size in levels.items() if size} == levels_of(venue)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_books_stay_uncrossed_and_prices_stay_on_the_grid(seed: int) -> None:
    venue, activity, _ = small_venue(12, seed)
    for step in range(20):
        activity.run(START_US + step * 1_000, START_US + (step + 1) * 1_000, 50)
        for market in venue.quoting:
            assert market.book.best[0] + market.book.best[1] < 10_000
            grid = positions(market.structure)
            assert all(price in grid for side in (0, 1) for price in market.book.levels[side])


def test_the_same_seed_publishes_the_same_messages() -> None:
    published = []
    for _ in range(2):
        _, activity, sink = small_venue(15, seed=7)
        activity.run(START_US, START_US + SECOND_US, 500)
        published.append([each[:3] + each[3:6] if each[0] == "delta" else each[:3] for each in sink.published])
    assert published[0] == published[1]


def test_exchange_times_never_go_back_and_some_deltas_agree_in_every_field() -> None:
    _, activity, sink = small_venue(20)
    activity.run(START_US, START_US + 3 * SECOND_US, 6_000)
    times = [each[2] for each in sink.published]
    assert times == sorted(times)
    deltas = Counter(sink.of("delta"))
    assert sum(count > 1 for count in deltas.values()) > 20


def test_the_mix_is_about_85_percent_deltas_with_tickers_and_trades() -> None:
    _, activity, sink = small_venue(50)
    activity.run(START_US, START_US + 10 * SECOND_US, 20_000)
    counts = Counter(each[0] for each in sink.published)
    total = len(sink.published)
    assert 0.80 < counts["delta"] / total < 0.90
    assert counts["trade"] / total > 0.02
    assert counts["ticker"] / total > 0.05


def test_every_open_market_moves_now_and_then() -> None:
    venue, activity, sink = small_venue(100)
    activity.run(START_US, START_US + 10 * SECOND_US, 6_000)
    moved = {each[1] for each in sink.of("delta")}
    assert {market.ticker for market in venue.quoting} <= moved


def test_trades_that_hit_the_book_take_exactly_their_size_in_the_same_microsecond() -> None:
    _, activity, sink = small_venue(20)
    activity.run(START_US, START_US + SECOND_US, 6_000)
    before = None
    seen = 0
    for each in sink.published:
        if each[0] == "trade" and not each[3].is_block_trade:
            assert before is not None
            trade = each[3]
            assert before[:3] == ("delta", trade.ticker, trade.us)
            assert before[5] == -trade.count_e2
            assert before[3] == 1 - trade.taker_side
            seen += 1
        before = each
    assert seen > 50


def test_tickers_of_one_market_are_at_least_a_millisecond_apart() -> None:
    _, activity, sink = small_venue(3)
    activity.run(START_US, START_US + SECOND_US // 10, 5_000)
    stamps = Counter((each[1], each[2] // 1_000) for each in sink.of("ticker"))
    assert stamps
    assert max(stamps.values()) == 1


def test_one_sided_empty_and_fractional_books_occur() -> None:
    venue, activity, sink = small_venue(60)
    sides = Counter(bool(market.book.levels[0]) + bool(market.book.levels[1]) for market in venue.quoting)
    assert sides[0] > 0
    assert sides[1] > 0
    assert sides[2] > 30
    activity.run(START_US, START_US + SECOND_US, 1_000)
    assert any(delta % 100 for *_, delta in sink.of("delta"))
