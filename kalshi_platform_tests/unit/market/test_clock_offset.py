"""How far two clocks are apart, by questions whose answers take time."""

from __future__ import annotations

import pytest

from kalshi_platform.exchange.server_clock import ServerClock, auth_failure_hints, offset_by
from kalshi_platform.market.clock_offset import Correction, Offset, combined, offset_of

S = 1_000_000_000
AT = 1_795_392_000 * S  # 2026-11-23 00:00:00 UTC
DATE = "Mon, 23 Nov 2026 00:00:00 GMT"


def test_an_offset_lies_between_the_bounds_of_request_and_answer() -> None:
    assert offset_of(10 * S, 11 * S, 8 * S) == Offset(2.0, 3.0)
    assert offset_of(10 * S, 11 * S, 8 * S, S) == Offset(1.0, 3.0)


@pytest.mark.parametrize(
    ("offset", "certain", "large"),
    [(Offset(-0.5, 0.5), 0.0, False), (Offset(1.5, 2.5), 1.5, False), (Offset(2.5, 3.5), 2.5, True),
     (Offset(-301, -299), -299.0, True)],
)  # fmt: skip
def test_only_the_certain_part_of_an_offset_counts(offset: Offset, certain: float, *, large: bool) -> None:
    assert offset.certain_s == certain
    assert offset.is_large is large


def test_a_large_offset_is_described_with_size_direction_and_remedy() -> None:
    assert Offset(-301, -299).describe("the exchange's") == (
        "this machine's clock is 300 s behind the exchange's: set it right (NTP)"
    )
    assert "300 s ahead of" in Offset(299, 301).describe("the exchange's")
    assert "agrees" in Offset(-0.5, 0.9).describe("the exchange's")


def test_several_offsets_narrow_the_bounds_until_a_clock_was_set() -> None:
    assert combined([Offset(-0.8, 0.2), Offset(-0.1, 0.9)]) == Offset(-0.1, 0.2)
    assert combined([Offset(299, 300), Offset(-0.8, 0.2), Offset(-0.1, 0.9)]) == Offset(-0.1, 0.2)
    # What was seen before the clock was set says nothing about the time after.
    assert combined([Offset(0.1, 0.15), Offset(299, 300), Offset(-0.8, 0.2)]) == Offset(-0.8, 0.2)
    assert combined([]) is None


def test_a_date_header_is_cut_off_to_the_second_and_a_cached_answer_has_an_age() -> None:
    assert offset_by({"Date": DATE}, AT + S // 2, AT + S) == Offset(-0.5, 1.0)
    assert offset_by({"date": DATE, "age": "60"}, AT + 60 * S, AT + 60 * S) == Offset(-1.0, 0.0)


@pytest.mark.parametrize("headers", [{}, {"Date": "yesterday"}, {"Date": DATE, "Age": "old"}])
def test_an_answer_without_a_usable_date_gives_no_offset(headers: dict[str, str]) -> None:
    assert offset_by(headers, AT, AT) is None
    seen = ServerClock()
    seen.observe(headers, AT, AT)
    assert seen.offset() is None


def test_the_clock_is_named_first_only_where_it_is_off() -> None:
    assert auth_failure_hints(None).startswith("Suspects: this machine's clock is off, or the key")
    assert auth_failure_hints(Offset(-301, -299)).startswith(
        "Suspect: this machine's clock is 300 s behind the exchange's"
    )
    agreed = auth_failure_hints(Offset(-0.5, 0.5))
    assert agreed.startswith("Suspects: the key")
    assert "clock agrees" in agreed


def test_a_correction_starts_at_the_tolerance_and_stays_until_a_clock_is_set() -> None:
    correction = Correction()
    assert correction.update(None) == 0
    assert correction.update(Offset(1.5, 2.5)) == 0
    assert correction.update(Offset(89.5, 90.5)) == 90
    assert [correction.update(each) for each in (None, Offset(90.2, 90.4), Offset(80.0, 99.0))] == [90, 90, 90]
    assert correction.update(Offset(-40.5, -39.5)) == -40
    assert correction.update(Offset(-0.5, 0.5)) == 0
