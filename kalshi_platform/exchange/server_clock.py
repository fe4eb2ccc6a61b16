"""The `Date` of HTTP answers: the exchange's clock, seen beside ours; and what a refused signature may be due to."""

from __future__ import annotations

import email.utils
import threading
from collections import deque
from collections.abc import Mapping

from kalshi_platform.market.clock_offset import Offset, combined, offset_of

_KEPT = 8
_WHOSE = "the exchange's"
_RESOLUTION_NS = 1_000_000_000


def offset_by(headers: Mapping[str, str], asked_at_ns: int, answered_at_ns: int) -> Offset | None:
    """Our clock against the one that wrote `Date`; None without a usable one. An answer out of a cache has an `Age`."""
    values = {name.lower(): value for name, value in headers.items()}
    try:
        moment = email.utils.parsedate_to_datetime(values["date"])
        age_s = int(values.get("age", "0"))
        other_ns = (int(moment.timestamp()) + age_s) * 1_000_000_000
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return offset_of(asked_at_ns, answered_at_ns, other_ns, _RESOLUTION_NS)


class ServerClock:
    """What the last answers say together. Thread-safe."""

    def __init__(self) -> None:
        self._offsets: deque[Offset] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def note(self, headers: Mapping[str, str], asked_at_ns: int, answered_at_ns: int) -> None:
        """Take one answer's headers."""
        offset = offset_by(headers, asked_at_ns, answered_at_ns)
        if offset is not None:
            with self._lock:
                self._offsets.append(offset)

    def offset(self) -> Offset | None:
        """Our clock against the exchange's; None before the first answer."""
        with self._lock:
            return combined(list(self._offsets))


def auth_failure_hints(offset: Offset | None) -> str:
    """Why a signed request may have been refused, the likeliest first."""
    key = "the key belongs to another environment, was revoked, lacks scope, or is not the private half of this key id"
    if offset is None:
        return f"Suspects: this machine's clock is off, or {key}"
    if offset.is_large:
        return f"Suspect: {offset.told(_WHOSE)}. If that does not help, {key}"
    return f"Suspects: {key} ({offset.told(_WHOSE)})"
