"""Parts of all markets: the same everywhere, about equal, and together every market once."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.market.parts import MarketPart, list_missing_parts

TICKERS = [
    f"KX{series}-26NOV{day:02}-{kind}{strike}"
    for series in ("RAINNYC", "FED", "BTCD", "NFLGAME", "HIGHLAX")
    for day in range(1, 29)
    for kind, strikes in (("T", range(40, 90, 2)), ("B", range(1, 16)))
    for strike in strikes
]
PARTS = st.integers(1, 12).flatmap(lambda total: st.builds(MarketPart, st.integers(1, total), st.just(total)))


@given(ticker=st.text(max_size=30), total=st.integers(1, 64))
def test_a_market_is_in_exactly_one_part_of_a_division(ticker: str, total: int) -> None:
    assert sum(MarketPart(number, total).holds(ticker) for number in range(1, total + 1)) == 1


def test_the_part_of_a_market_is_the_same_in_every_version() -> None:
    parts = [next(number for number in range(1, 5) if MarketPart(number, 4).holds(each)) for each in TICKERS[:12]]
    assert parts == [3, 3, 4, 4, 1, 4, 4, 3, 3, 2, 1, 1]
    assert [MarketPart(1, 2).holds(text) for text in ("", "é", "\ud800")] == [True, True, True]


@pytest.mark.parametrize("total", [2, 3, 4, 8, 16])
def test_parts_of_real_names_are_about_equal(total: int) -> None:
    sizes = Counter(
        number for each in TICKERS for number in range(1, total + 1) if MarketPart(number, total).holds(each)
    )
    mean = len(TICKERS) / total
    assert all(abs(sizes[number] - mean) < 0.2 * mean for number in range(1, total + 1)), sizes


@given(parts=st.lists(PARTS, max_size=5), wanted=PARTS, ticker=st.text(max_size=12))
def test_missing_parts_hold_what_no_given_part_holds(parts: list[MarketPart], wanted: MarketPart, ticker: str) -> None:
    missing = list_missing_parts(parts, wanted)
    is_missing = wanted.holds(ticker) and not any(part.holds(ticker) for part in parts)
    assert sum(part.holds(ticker) for part in missing) == is_missing


def test_two_halves_are_the_whole_and_one_half_lacks_the_other() -> None:
    first, second = MarketPart(1, 2), MarketPart(2, 2)
    assert list_missing_parts([first, second]) == []
    assert list_missing_parts([first, first]) == [second]
    assert list_missing_parts([], second) == [second]
    assert list_missing_parts([first, MarketPart(2, 4)]) == [MarketPart(4, 4)]
    assert list_missing_parts([MarketPart(3, 4), MarketPart(1, 4)], first) == []


def test_a_part_is_written_as_i_of_n() -> None:
    assert MarketPart.parse("2/8") == MarketPart(2, 8)
    assert str(MarketPart(2, 8)) == "2/8"
    for text in ("0/8", "9/8", "2", "a/b", "2/0", ""):
        with pytest.raises(ValueError, match=r"."):
            MarketPart.parse(text)
