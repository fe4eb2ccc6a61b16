"""Measures the exchange's clock by the `Date` of HTTP answers, and explains refused signatures.

Kalshi documents no tolerance for the timestamp of a signature (docs.kalshi.com, getting_started/api_keys, read
2026-11-22), so a refused signature names the clock as a suspect.
"""

from __future__ import annotations

import email.utils
import threading
from collections import deque
from collections.abc import Mapping

from kalshi_platform.market.clock_offset import Offset, combined, offset_of

_KEPT = 8
_OTHER_CLOCK = "the exchange's"
_RESOLUTION_NS = 1_000_000_000


def offset_by(headers: Mapping[str, str], requested_at_ns: int, answered_at_ns: int) -> Offset | None:
    """Return our clock against the one that wrote `Date`; None without a usable header.

    The `Age` of an answer out of a cache is added.
    """
    values = {name.lower(): value for name, value in headers.items()}
    try:
        moment = email.utils.parsedate_to_datetime(values["date"])
        age_s = int(values.get("age", "0"))
        other_ns = (int(moment.timestamp()) + age_s) * 1_000_000_000
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return offset_of(requested_at_ns, answered_at_ns, other_ns, _RESOLUTION_NS)


class ServerClock:
    """Combines the clock offsets of the last answers. Thread-safe."""

    def __init__(self) -> None:
        self._offsets: deque[Offset] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def observe(self, headers: Mapping[str, str], requested_at_ns: int, answered_at_ns: int) -> None:
        """Add one answer's headers; times in nanoseconds by our clock."""
        offset = offset_by(headers, requested_at_ns, answered_at_ns)
        if offset is not None:
            with self._lock:
                self._offsets.append(offset)

    def offset(self) -> Offset | None:
        """Return our clock against the exchange's; None before the first answer."""
        with self._lock:
            return combined(list(self._offsets))


def auth_failure_hints(offset: Offset | None) -> str:
    """Return why a signed request may have been refused, the likeliest reason first."""
    key = "the key belongs to another environment, was revoked, lacks scope, or is not the private half of this key id"
    if offset is None:
        return f"Suspects: this machine's clock is off, or {key}"
    if offset.is_large:
        return f"Suspect: {offset.describe(_OTHER_CLOCK)}. If that does not help, {key}"
    return f"Suspects: {key} ({offset.describe(_OTHER_CLOCK)})"
