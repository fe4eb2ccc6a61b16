"""Keeps alerts in production's table `alerts`, so that each is sent once, whichever process raises or delivers it.

What the merge and the close raise is recorded in the transaction that finds it. While production is away alerts wait,
and are remembered, on this host.
"""

from __future__ import annotations

from collections.abc import Sequence

from kalshi_platform.clock import Clock
from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.monitoring.alerts.alert import Alert, DueAlert
from kalshi_platform.monitoring.alerts.alert_store import LocalAlertStore
from kalshi_platform.monitoring.alerts.sender import AlertSender
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.settings import AlertSettings
from kalshi_platform.storage.nul import strip_nul
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.queries import load

_DETAIL_LIMIT = 2_000
_DELIVERY_S = 10.0
_log = event_logger(__name__)


def record_alert(transaction: Transaction, kind: str, subject: str, detail: str) -> None:
    """Record an alarm that is raised in a transaction: people hear of it when that commits, once an hour."""
    parameters = {"kind": strip_nul(kind), "subject": strip_nul(subject), "detail": strip_nul(detail)[:_DETAIL_LIMIT]}
    transaction.execute(load("alerts")["record_alert"], parameters)
    transaction.execute(load("alerts")["forget_alerts"])


class ProductionAlertStore:
    """Alerts of all processes that use production. Its methods raise DatabaseUnavailable and StatementRejected."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, alerts: Sequence[Alert]) -> None:
        """Record alerts that were raised."""
        with self._database.transaction() as transaction:
            for alert in alerts:
                record_alert(transaction, alert.kind, alert.subject, alert.text)

    def claim(self, limit: int) -> list[DueAlert]:
        """Claim alerts that are to be sent now; no other process sends them for two minutes."""
        with self._database.transaction() as transaction:
            rows = transaction.fetch_all(load("alerts")["claim_alerts"], {"limit": limit})
        return [DueAlert(Alert(kind, subject, detail, at), times) for kind, subject, detail, at, times in rows]

    def mark_sent(self, due: DueAlert) -> None:
        """Record that an alert was delivered."""
        kind, subject = due.alert.key
        with self._database.transaction() as transaction:
            parameters = {"kind": kind, "subject": subject, "times": due.times}
            transaction.execute(load("alerts")["mark_alert_sent"], parameters)

    def release(self, due: Sequence[DueAlert], error: str) -> None:
        """Give claimed alerts back."""
        with self._database.transaction() as transaction:
            for each in due:
                kind, subject = each.alert.key
                parameters = {"kind": kind, "subject": subject, "error": error[:_DETAIL_LIMIT]}
                transaction.execute(load("alerts")["release_alert"], parameters)

    def count_waiting(self) -> int:
        """Return how many alerts wait."""
        with self._database.transaction() as transaction:
            row = transaction.fetch_one(load("alerts")["count_waiting_alerts"])
        return 0 if row is None else int(row[0])


class FallbackAlertStore:
    """Production's alerts, and those of this host while production is away. No method raises for that."""

    def __init__(self, production: ProductionAlertStore, local: LocalAlertStore) -> None:
        self._production = production
        self._local = local

    def record(self, alerts: Sequence[Alert]) -> None:
        """Record alerts; here those that production does not take, or that were sent from here within the hour."""
        here = [alert for alert in alerts if self._local.holds(alert.key)]
        there = [alert for alert in alerts if not self._local.holds(alert.key)]
        if there:
            try:
                self._production.record(there)
            except KalshiPlatformError as error:
                _log.info("alerts_kept_on_this_host", count=len(there), error=error)
                here += there
        if here:
            self._local.record(here)

    def claim(self, limit: int) -> list[DueAlert]:
        """Claim alerts of this host, then production's."""
        claimed = self._local.claim(limit)
        if len(claimed) < limit:
            try:
                claimed += self._claim_from_production(limit - len(claimed))
            except KalshiPlatformError as error:
                _log.debug("alerts_not_claimed", error=error)
        return claimed

    def _claim_from_production(self, limit: int) -> list[DueAlert]:
        claimed = self._production.claim(limit)
        known = [due for due in claimed if self._local.was_sent(due.alert.key)]
        for due in known:  # delivered, and production did not hear of it
            self._production.mark_sent(due)
        return [due for due in claimed if due not in known]

    def mark_sent(self, due: DueAlert) -> None:
        """Record that an alert was delivered."""
        is_local = self._local.holds(due.alert.key)
        if not is_local:
            try:
                self._production.mark_sent(due)
            except KalshiPlatformError:
                is_local = True
        if is_local:
            self._local.mark_sent(due)

    def release(self, due: Sequence[DueAlert], error: str) -> None:
        """Give production's alerts back."""
        theirs = [each for each in due if not self._local.holds(each.alert.key)]
        if theirs:
            try:
                self._production.release(theirs, error)
            except KalshiPlatformError as failure:
                _log.debug("alerts_not_released", error=failure)

    def count_waiting(self) -> int:
        """Return how many alerts wait, production's only while that answers."""
        try:
            return self._local.count_waiting() + self._production.count_waiting()
        except KalshiPlatformError:
            return self._local.count_waiting()


def open_alert_sender(
    settings: AlertSettings, database: Database, clock: Clock, owner: str, poll_s: float | None = None
) -> AlertSender:
    """Make the sender of a process that uses production; it is not started."""
    path = None if settings.folder is None else settings.folder / f"alerts-{owner}.json"
    store = FallbackAlertStore(ProductionAlertStore(database), LocalAlertStore(path, clock))
    return AlertSender(settings, store, clock, owner, poll_s)


def deliver_waiting(settings: AlertSettings, database: Database, clock: Clock) -> None:
    """Deliver what waits in production, for some seconds at most; what remains is another process's, or the next one's.

    For a process that ends soon. It never raises.
    """
    if settings.webhook_url:
        sender = AlertSender(settings, ProductionAlertStore(database), clock, "close")
        sender.start()
        sender.close(_DELIVERY_S)
