"""Keeps which alerts wait, and which were sent within the hour, on this host: in memory, and in a file for restarts.

For one process: a gatherer, whose folder is locked, or what writes to production and finds that away.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import msgspec

from kalshi_platform.clock import Clock
from kalshi_platform.monitoring.alerts.alert import Alert, DueAlert
from kalshi_platform.monitoring.event_log import event_logger

SENT_FOR = timedelta(hours=1)
"""How long a kind and subject is not sent again."""
KEPT_FOR = timedelta(days=1)
"""How long an alert that cannot be delivered waits; older news is of no use."""
_MOST = 500
_log = event_logger(__name__)


class AlertStore(Protocol):
    """Keeps alerts until they are delivered; called from one thread."""

    def record(self, alerts: Sequence[Alert]) -> None:
        """Record alerts that were raised; one that was sent within the hour is only counted."""

    def claim(self, limit: int) -> list[DueAlert]:
        """Return alerts that are to be sent now, the oldest first; each is this caller's until it says how it went."""

    def mark_sent(self, due: DueAlert) -> None:
        """Record that an alert was delivered, or that its receiver will never have it."""

    def release(self, due: Sequence[DueAlert], error: str) -> None:
        """Give claimed alerts back: they could not be delivered."""

    def count_waiting(self) -> int:
        """Return how many alerts wait."""


class _Entry(msgspec.Struct):
    alert: Alert
    times: int = 1
    is_waiting: bool = True
    sent_at: datetime | None = None


class LocalAlertStore:
    """Alerts of this process. Without a path, or while its disk takes nothing, a restart forgets them."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._entries: dict[tuple[str, str], _Entry] = {}
        for entry in _load(path):
            self._entries[entry.alert.key] = entry

    def record(self, alerts: Sequence[Alert]) -> None:
        """Record alerts that were raised."""
        changed = False
        for alert in alerts:
            entry = self._entries.get(alert.key)
            if entry is None:
                self._entries[alert.key] = _Entry(alert)
                changed = True
                continue
            was_waiting = entry.is_waiting
            entry.alert, entry.times = alert, entry.times + 1
            entry.is_waiting = was_waiting or not self._is_recent(entry)
            changed = changed or entry.is_waiting != was_waiting
        if changed:
            self._save()

    def claim(self, limit: int) -> list[DueAlert]:
        """Return alerts that are to be sent now, the oldest first."""
        waiting = sorted((each for each in self._entries.values() if each.is_waiting), key=lambda each: each.alert.at)
        return [DueAlert(each.alert, each.times) for each in waiting[:limit]]

    def mark_sent(self, due: DueAlert) -> None:
        """Record that an alert was delivered."""
        entry = self._entries.setdefault(due.alert.key, _Entry(due.alert))
        entry.is_waiting, entry.times, entry.sent_at = False, 0, self._clock.now()
        self._save()

    def release(self, due: Sequence[DueAlert], error: str) -> None:
        """Do nothing: what waits, waits."""

    def count_waiting(self) -> int:
        """Return how many alerts wait."""
        return sum(each.is_waiting for each in self._entries.values())

    def holds(self, key: tuple[str, str]) -> bool:
        """Whether an alert waits here, or was sent within the hour."""
        entry = self._entries.get(key)
        return entry is not None and (entry.is_waiting or self._is_recent(entry))

    def was_sent(self, key: tuple[str, str]) -> bool:
        """Whether an alert was sent within the hour by what is recorded here."""
        entry = self._entries.get(key)
        return entry is not None and self._is_recent(entry)

    def _is_recent(self, entry: _Entry) -> bool:
        # A clock that was set back by more than an hour must not silence anything.
        return entry.sent_at is not None and abs(self._clock.now() - entry.sent_at) < SENT_FOR

    def _save(self) -> None:
        self._forget()
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_suffix(".tmp")
            part.write_bytes(msgspec.json.encode(list(self._entries.values())))
            part.replace(self._path)
        except (OSError, ValueError) as error:  # a half of a surrogate pair is no JSON
            _log.warning(
                "alerts_not_kept", path=self._path, error=error, consequence="a restart may send what was sent already"
            )

    def _forget(self) -> None:
        """Forget what was sent long ago, what waits for too long, and the oldest beyond a bound."""
        now = self._clock.now()
        given_up = [
            key for key, each in self._entries.items() if each.is_waiting and abs(now - each.alert.at) > KEPT_FOR
        ]
        known = [each for key, each in self._entries.items() if key not in given_up]
        kept = [each for each in known if each.is_waiting or self._is_recent(each)]
        kept.sort(key=lambda each: each.alert.at)
        lost = len(given_up) + sum(each.is_waiting for each in kept[:-_MOST])
        if lost:
            _log.error("alerts_given_up", count=lost, reason=f"older than {KEPT_FOR.days} day, or more than {_MOST}")
        self._entries = {each.alert.key: each for each in kept[-_MOST:]}


def _load(path: Path | None) -> list[_Entry]:
    if path is None:
        return []
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[_Entry])
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        _log.warning("alerts_not_kept", path=path, error=error, consequence="what was sent before may be sent again")
        return []
