"""Converts Kalshi's times to microseconds since the Unix epoch (`*_us`); our own are nanoseconds (`*_ns`). All UTC.

Kalshi has sent RFC 3339 text with 0–9 fraction digits, integer milliseconds and integer seconds for the same moment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from kalshi_platform.errors import UnparsableMessage

US_PER_MS = 1_000
US_PER_S = 1_000_000
US_PER_HOUR = 3_600 * US_PER_S
US_PER_DAY = 24 * US_PER_HOUR
HOUR = timedelta(hours=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# An integer time below this is seconds, from here on milliseconds (10^11 s is the year 5138, 10^11 ms is 1973).
_SECONDS_LIMIT = 10**11
# The year 10000, where calendars of programs and databases end.
_MILLISECONDS_END = 253_402_300_800_000
# Thousands of messages share one second: its conversion is remembered (the text as far as the decimal point). The usual
# six digits and the Z after them are two texts out of a thousand each, which a look-up converts and checks at once.
_SECONDS: dict[str, int] = {}
_SECONDS_KEPT = 4_096
_MILLISECONDS = {f"{value:03}": value * US_PER_MS for value in range(1_000)}
_MICROSECONDS_Z = {f"{value:03}Z": value for value in range(1_000)}
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII
)


def us_from_rfc3339(text: str) -> int:
    """Return microseconds; digits beyond the sixth are cut. Raises UnparsableMessage("time")."""
    try:
        return _SECONDS[text[:20]] + _MILLISECONDS[text[20:23]] + _MICROSECONDS_Z[text[23:]]
    except KeyError:
        return _us_from_rfc3339(text)


def all_us_from_rfc3339(texts: Sequence[str]) -> list[int]:
    """Return what `us_from_rfc3339` returns for each. Raises UnparsableMessage("time")."""
    try:
        # The same look-ups without a call for each text, where no second is a new one.
        return [_SECONDS[text[:20]] + _MILLISECONDS[text[20:23]] + _MICROSECONDS_Z[text[23:]] for text in texts]
    except KeyError:
        return [us_from_rfc3339(text) for text in texts]


def _us_from_rfc3339(text: str) -> int:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise UnparsableMessage("time", f"{text[:80]!r} is not RFC 3339")
    year, month, day, hour, minute, second, fraction, _zulu, sign, off_hour, off_minute = match.groups()
    try:
        moment = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC)
        if sign:
            if int(off_hour) > 23 or int(off_minute) > 59:
                raise UnparsableMessage("time", f"{text[:80]!r}: no such offset from UTC")
            offset = timedelta(hours=int(off_hour), minutes=int(off_minute))
            moment = moment - offset if sign == "+" else moment + offset
    except (ValueError, OverflowError) as error:
        raise UnparsableMessage("time", f"{text!r}: {error}") from error
    micro = int((fraction or "").ljust(6, "0")[:6])
    whole_second = us_from_datetime(moment)
    if not sign and fraction:
        if len(_SECONDS) >= _SECONDS_KEPT:
            _SECONDS.clear()
        _SECONDS[text[:20]] = whole_second
    return whole_second + micro


def us_from_number(value: int) -> int:
    """Return the microseconds of a number of seconds or milliseconds, which its size distinguishes.

    Raises UnparsableMessage("time").
    """
    if not 0 < value < _MILLISECONDS_END:
        raise UnparsableMessage("time", f"{str(value)[:40]} is not a Unix time")
    return value * US_PER_S if value < _SECONDS_LIMIT else value * US_PER_MS


def us_from_datetime(moment: datetime) -> int:
    """Return the exact microseconds of an aware datetime."""
    delta = moment - EPOCH
    return (delta.days * 86_400 + delta.seconds) * US_PER_S + delta.microseconds


def datetime_from_us(value_us: int) -> datetime:
    """Return the aware datetime of `value_us`."""
    return EPOCH + timedelta(microseconds=value_us)


def floor_ms(value_us: int) -> int:
    """Cut microseconds below the millisecond (trades come with ms over WebSocket and µs over REST)."""
    return value_us - value_us % US_PER_MS


def hour_of(moment: datetime) -> datetime:
    """Return the start of the UTC hour that contains `moment`."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
