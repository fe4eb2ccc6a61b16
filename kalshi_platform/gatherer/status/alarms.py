"""Counts a gatherer's alarms by kind, and sends an alert for each: once an hour of a kind, whatever its connection."""

from __future__ import annotations

from kalshi_platform.monitoring.alerts.sender import AlertSender
from kalshi_platform.monitoring.metrics import LabeledCounter


class Alarms:
    """The alarms of one gatherer since its process started. Thread-safe; nothing here waits or fails."""

    def __init__(self, service: str, sender: AlertSender) -> None:
        """`service` is the subject of the alerts."""
        self._service = service
        self._sender = sender
        self._counter = LabeledCounter()

    def raise_alarm(self, kind: str, detail: str) -> None:
        """Count an alarm, and send an alert of it."""
        self._counter.count(kind)
        self._sender.send(kind, self._service, detail)

    def counts(self) -> dict[str, int]:
        """Return the alarms so far, by kind."""
        return self._counter.values()
