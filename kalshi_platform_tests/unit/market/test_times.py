"""Kalshi's times in all shapes that were seen, as exact microseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.market import times

MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(MOMENTS, st.integers(-14 * 60, 14 * 60))
def test_rfc3339_in_any_zone_is_the_same_moment(moment: datetime, offset_minutes: int) -> None:
    zone = timezone(timedelta(minutes=offset_minutes))
    expected = times.us_from_datetime(moment)
    assert times.us_from_rfc3339(moment.astimezone(zone).isoformat()) == expected
    assert times.us_from_rfc3339(moment.isoformat().replace("+00:00", "Z")) == expected
    assert times.datetime_from_us(expected) == moment


@given(MOMENTS, st.integers(0, 9))
def test_every_number_of_fraction_digits_reads_alike_the_first_and_the_next_time(moment: datetime, digits: int) -> None:
    whole = moment.replace(microsecond=0)
    fraction = f"{moment.microsecond:06d}987"[:digits]
    text = whole.isoformat().replace("+00:00", f".{fraction}Z" if digits else "Z")
    expected = times.us_from_datetime(whole) + int(fraction.ljust(6, "0")[:6])
    assert times.us_from_rfc3339(text) == expected
    assert times.us_from_rfc3339(text) == expected  # now from memory


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-22",
        "2026-11-22T20:44:01",
        "2026-02-30T00:00:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T20:44:01.Z",
        "2026-11-22T20:44:01.1234567890Z",
        "2026-11-22T20:44:01.٥Z",
        "2026-11-22T20:44:01.5ZZ",
        "2026-11-22T20:44:01,5Z",
        "0001-01-01T00:00:00+05:00",
        "2026-01-01T00:00:00+99:99",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00-05:60",
    ],
)
def test_other_texts_are_refused_also_within_a_cached_second(text: str) -> None:
    times.us_from_rfc3339("2026-11-22T20:44:01Z")
    with pytest.raises(UnparsableMessage) as caught:
        times.us_from_rfc3339(text)
    assert caught.value.reason == "time"


def test_seconds_and_milliseconds_are_distinguished_by_size() -> None:
    assert times.us_from_number(1_704_067_200) == times.us_from_number(1_704_067_200_000) == 1_704_067_200_000_000
    for value in (0, -1, 10**15):
        with pytest.raises(UnparsableMessage):
            times.us_from_number(value)


@given(st.integers(0, 2**52))
def test_flooring_to_the_millisecond_is_idempotent_and_never_later(value: int) -> None:
    floored = times.floor_ms(value)
    assert floored <= value < floored + 1_000
    assert times.floor_ms(floored) == floored


def test_hour_of_is_the_utc_hour() -> None:
    moment = datetime(2026, 11, 22, 1, 30, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    assert times.hour_of(moment) == datetime(2026, 11, 21, 19, tzinfo=UTC)


@given(st.lists(st.tuples(MOMENTS, st.sampled_from(["microseconds", "milliseconds", "seconds"]))))
def test_many_texts_give_what_each_gives(moments: list[tuple[datetime, str]]) -> None:
    texts = [moment.isoformat(timespec=digits).replace("+00:00", "Z") for moment, digits in moments]
    expected = [times._us_from_rfc3339(text) for text in texts]
    assert times.all_us_from_rfc3339(texts) == expected
    times._SECONDS.clear()
    assert times.all_us_from_rfc3339(texts) == expected


@given(st.text("0٥1+ _-.Zz", max_size=9))
def test_what_is_read_from_memory_is_what_the_pattern_reads(rest: str) -> None:
    times.us_from_rfc3339("2026-11-22T20:44:01.0Z")
    text = f"2026-11-22T20:44:01.{rest}"
    try:
        expected = times._us_from_rfc3339(text)
    except UnparsableMessage:
        with pytest.raises(UnparsableMessage):
            times.us_from_rfc3339(text)
    else:
        assert times.us_from_rfc3339(text) == expected
