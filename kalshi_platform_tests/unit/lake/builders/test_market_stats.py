from __future__ import annotations

from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.lake.builders.market_stats import QuoteTimes, latencies, latency_part
from kalshi_platform_tests.unit.lake.builders.frames import BASE, DAY_US, TICKERS, TIME, Quote, quote_frame


def summed(quotes: list[Quote], *cuts: int) -> dict[str, dict[str, Any]]:
    times = QuoteTimes()
    for low, high in zip([0, *cuts], [*cuts, len(quotes)], strict=True):
        times.add(quote_frame(quotes[low:high]).sort("ticker", "exchange_ts"), BASE)
    return {row["ticker"]: row for row in times.finish(BASE).to_dicts()}


def test_quotes_are_weighted_by_the_time_in_which_they_were_in_force() -> None:
    found = summed(
        [
            Quote("A", BASE - 5, 4_000, 6_000, bid_size=100),
            Quote("A", BASE + 10, 5_000, 6_000, bid_size=300),
            Quote("A", BASE + 30, None, 6_000),
            Quote("A", BASE + 60, None, None, is_known=False),
        ]
    )["A"]
    assert (found["known_us"], found["two_sided_us"], found["quote_changes"]) == (60, 30, 2)
    assert found["spread"] == 10 * 2_000 + 20 * 1_000
    assert found["bid_size"] == 10 * 100 + 20 * 300
    assert found["ask_size"] == 60 * 100
    assert (found["first_us"], found["last_us"]) == (BASE + 10, BASE + 30)


def test_the_last_quote_is_in_force_until_the_day_ends() -> None:
    found = summed(
        [Quote("A", BASE + DAY_US - 10, 4_000, 6_000), Quote("B", BASE - 1, 1, 2), Quote("B", BASE + DAY_US, 2, 3)]
    )
    assert (found["A"]["known_us"], found["B"]["known_us"]) == (10, DAY_US)
    assert (found["B"]["quote_changes"], found["B"]["spread"]) == (0, DAY_US)


@settings(max_examples=30, deadline=None)
@given(
    quotes=st.lists(
        st.builds(
            Quote,
            st.sampled_from(["A", "B"]),
            st.integers(BASE - 3, BASE + 50) | st.integers(BASE + DAY_US - 5, BASE + DAY_US + 5),
            st.none() | st.integers(1, 5_000),
            st.none() | st.integers(5_001, 9_999),
            st.booleans(),
            st.integers(1, 10**12),
            st.integers(1, 10**12),
        ),
        max_size=10,
        unique_by=lambda quote: (quote.ticker, quote.us),
    ),
    data=st.data(),
)
def test_sums_do_not_depend_on_how_the_day_is_cut(quotes: list[Quote], data: st.DataObject) -> None:
    ordered = sorted(quotes, key=lambda quote: quote.us)
    cut = data.draw(st.integers(0, len(ordered)))
    assert summed(ordered, cut) == summed(ordered)
    for ticker, row in summed(ordered).items():
        known = 0
        mine = [quote for quote in ordered if quote.ticker == ticker]
        for quote, until in zip(mine, [*(each.us for each in mine[1:]), BASE + DAY_US], strict=True):
            inside = max(0, min(until, BASE + DAY_US) - max(quote.us, BASE))
            known += inside * quote.bid_size if quote.is_known and quote.bid is not None else 0
        assert row["bid_size"] == known


def delays(*found: tuple[str, int]) -> pl.DataFrame:
    rows = [(ticker, BASE, BASE + delay) for ticker, delay in found]
    return pl.DataFrame(rows, {"ticker": TICKERS, "exchange_ts": TIME, "received_at": TIME}, orient="row")


def test_delays_are_the_smallest_that_half_and_99_of_100_changes_did_not_exceed() -> None:
    parts = [latency_part(delays(*(("A", 1_000 * n) for n in range(1, 51)))), latency_part(delays(("B", -250)))]
    parts.append(latency_part(delays(*(("A", 1_000 * n) for n in range(51, 101)))))
    found = {row["ticker"]: row for row in latencies(parts).to_dicts()}
    assert (found["A"]["latency_median_us"], found["A"]["latency_p99_us"], found["A"]["book_changes"]) == (
        50_000,
        99_000,
        100,
    )
    assert found["B"]["latency_median_us"] == -300
