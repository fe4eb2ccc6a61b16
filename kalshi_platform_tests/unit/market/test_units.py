"""Exact scaled integers: every value goes there and back unchanged, everything else is refused."""

from __future__ import annotations

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.market import units


@given(st.integers(0, units.PRICE_E4_MAX))
def test_every_price_survives_conversion_to_text_and_back(price: int) -> None:
    assert units.price_e4(units.dollars_text(price)) == price


@given(st.integers(-units.INT64_MAX, units.INT64_MAX))
def test_every_size_survives_conversion_to_text_and_back(size: int) -> None:
    assert units.delta_e2(units.contracts_text(size)) == size


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**10), max_value=10**10))
def test_scaling_equals_decimal_arithmetic(value: Decimal) -> None:
    assert units.scaled(f"{value:f}", 6) == int(value * 10**6)


@given(st.text(max_size=12) | st.text(alphabet="0123456789.-+e_ ", max_size=8))
def test_any_text_is_a_number_or_unparsable(text: str) -> None:
    with contextlib.suppress(UnparsableMessage):
        value = units.scaled(text, 4)
        assert Decimal(text) * 10_000 == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.5600", 5600), ("0.56", 5600), ("0.960", 9600), ("1", 10_000), ("1.", 10_000), ("0.560000", 5600), ("0", 0)],
)
def test_prices_with_any_number_of_decimals_are_equal(text: str, expected: int) -> None:
    assert units.price_e4(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 0.5",
        "0.5 ",
        "1e-1",
        "1_0",
        "NaN",
        "Infinity",
        "0x1",
        "٠.٥",
        ".",
        "--1",
        "0.56001",
        "1e999999999",
        "9" * 60,
    ],
)
def test_texts_that_are_no_plain_decimal_are_refused(text: str) -> None:
    with pytest.raises(UnparsableMessage):
        units.price_e4(text)


@pytest.mark.parametrize("text", ["-0.0001", "1.0001", "2"])
def test_prices_outside_one_dollar_are_refused(text: str) -> None:
    with pytest.raises(UnparsableMessage) as caught:
        units.price_e4(text)
    assert caught.value.reason == "range"


def test_a_count_is_not_negative_and_a_delta_may_be() -> None:
    with pytest.raises(UnparsableMessage):
        units.count_e2("-1.00")
    assert units.delta_e2("-1.25") == -125


def test_sizes_beyond_64_bits_are_refused() -> None:
    assert units.count_e2("92233720368547758.07") == 2**63 - 1
    with pytest.raises(UnparsableMessage):
        units.count_e2("92233720368547758.08")
    with pytest.raises(UnparsableMessage):
        units.e2_from_whole(2**63 // 100 + 1)


def test_legacy_cents_and_whole_contracts_scale_up() -> None:
    assert units.price_e4_from_cents(56) == 5600
    assert units.e2_from_whole(-3) == -300
    with pytest.raises(UnparsableMessage):
        units.price_e4_from_cents(101)


def test_the_cache_of_conversions_is_bounded() -> None:
    for value in range(70_000):
        units.count_e2(str(value))
    assert len(units._COUNTS) <= 65_536
    assert units.count_e2("69999") == 6_999_900
