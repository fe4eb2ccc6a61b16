"""Lines in which `close-hour` describes an hour."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kalshi_platform.cli.close_hour import loss_lines, part_lines, proof_lines
from kalshi_platform.deduplicator.close.close_hour import PartClose
from kalshi_platform.deduplicator.close.close_record import HourClose
from kalshi_platform.deduplicator.close.close_store import Alarm
from kalshi_platform.deduplicator.close.hour_summary import CoverageShare
from kalshi_platform.market.parts import MarketPart

HOUR = datetime(2026, 11, 23, 4, tzinfo=UTC)


def closed(
    share: float | None, markets: int = 1, failed: tuple[str, ...] = (), alarms: tuple[Alarm, ...] = ()
) -> HourClose:
    coverage = CoverageShare(markets, 1, 1, share)
    return HourClose(
        HOUR, {}, 0, ("g1", "g2"), (), coverage=coverage, failed=failed, proved=3, unproved=1, alarms=alarms
    )


def test_a_good_hour_is_described_in_two_lines() -> None:
    assert proof_lines(closed(0.57, markets=1_201)) == [
        "57 % of the open time of 1,201 markets is covered",
        "books: 3 proved, 0 failed, 1 with nothing to check",
    ]


def test_lost_rows_are_described_with_what_that_means() -> None:
    assert loss_lines(closed(1.0)) == []
    lossy = replace(closed(1.0), dropped=("orderbook_deltas",), gatherers_incomplete={"g2": ("tickers", "trades")})
    first, second = loss_lines(lossy)
    assert first.startswith("g2 no longer has all that it recorded of the hour (tickers, trades)")
    assert second.startswith("production no longer has all rows that the hour was closed with (orderbook_deltas)")


def test_alarms_are_grouped_by_kind_with_their_subjects() -> None:
    tickers = tuple(f"M{number}" for number in range(12))
    alarms = [("claims_disagree", ticker, "g1, stream 1 claims 27") for ticker in tickers]
    alarms += [("book_proof", "M0", "one reason"), ("book_proof", "M0", "another")]
    alarms += [("identity_agreement", "trades, g2", "0.2"), ("time_step_back", "g1 stream 7", "1 step back")]
    lines = proof_lines(closed(0.25, 16, tickers, (*alarms, ("of_a_kind_to_come", "Q", ""))))
    ten = "M0, M1, M2, M3, M4, M5, M6, M7, M8, M9 and 2 more"
    assert lines == [
        "25 % of the open time of 16 markets is covered",
        "books: 3 proved, 12 failed, 1 with nothing to check",
        f"failed, so not covered where it did: {ten}",
        "ALARM: books do not come out: M0",
        f"ALARM: streams that claim the same time differ: {ten}",
        "ALARM: gatherers do not agree on what is one and the same message: trades, g2",
        "ALARM: of_a_kind_to_come: Q",
        "ALARM: exchange times went back by more than the margin: g1 stream 7",
        "details of the alarms: table close_alarms of production",
    ]


@pytest.mark.parametrize(
    ("share", "told"),
    [(1.0, "100 %"), (1 - 1 / 3.6e9, "99.99 %"), (0.000_09, "0 %"), (0.0, "0 %"), (0.123_456, "12.34 %")],
)
def test_a_share_is_rounded_down(share: float, told: str) -> None:
    assert proof_lines(closed(share))[0] == f"{told} of the open time of 1 market is covered"


def test_an_hour_without_any_open_market_has_no_share() -> None:
    assert proof_lines(closed(None))[0].startswith("nothing to cover")


def test_a_part_names_the_parts_that_are_to_be_done() -> None:
    assert part_lines(PartClose(MarketPart(1, 4), {}, (), remaining=(2, 4))) == [
        "not closed yet: of 4 parts these are to be done: 2, 4"
    ]
    (again,) = part_lines(PartClose(MarketPart(1, 4), {}, (), remaining=(3,), again=(3,)))
    assert again.endswith("these are to be done again: 3")
