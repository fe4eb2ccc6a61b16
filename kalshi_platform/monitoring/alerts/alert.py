"""Defines an alert, and the kinds of all alarms that there are. Pure.

A kind has one severity and one place in docs/operations.md, where it is explained; a test compares this list with the
kinds that the code can raise, and with that page.
"""

from __future__ import annotations

from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple, get_args

import msgspec

from kalshi_platform.monitoring.settings import AlertSeverity

SEVERITIES: tuple[AlertSeverity, ...] = get_args(AlertSeverity)
"""From the least to the worst."""

RUN_FAILED = "run_failed"
CHECK_FAILED = "check_failed"
SERVICE_NOT_ALIVE = "service_not_alive"
SERVICE_UNHEALTHY = "service_unhealthy"
SERVICE_DEGRADED = "service_degraded"
ALERT_TEST = "alert_test"


class AlertKind(NamedTuple):
    """How bad an alarm of this kind is, and where docs/operations.md explains it."""

    severity: AlertSeverity
    section: str


_GATHERER = "3.3"
_MERGE = "7.2"
_CLOSE = "7.3"
_ALERTS = "7.6"

KINDS = MappingProxyType(
    {
        "gap": AlertKind("info", _GATHERER),
        "stream_ended": AlertKind("info", _GATHERER),
        "market_limit": AlertKind("info", _GATHERER),
        "error": AlertKind("warning", _GATHERER),
        "not_authorised": AlertKind("error", _GATHERER),
        "command_unanswered": AlertKind("warning", _GATHERER),
        "snapshot_unanswered": AlertKind("warning", _GATHERER),
        "asked_rarely": AlertKind("warning", _GATHERER),
        "price_scale": AlertKind("error", _GATHERER),
        "dead_letter": AlertKind("warning", _GATHERER),
        "dead_letters_counted": AlertKind("error", _GATHERER),
        "new_field": AlertKind("warning", _GATHERER),
        "missing_field": AlertKind("error", _GATHERER),
        "journal_damaged": AlertKind("error", _GATHERER),
        "clock_offset": AlertKind("warning", _GATHERER),
        "open_transaction": AlertKind("warning", _GATHERER),
        "wrong_database": AlertKind("error", _GATHERER),
        "database_went_back": AlertKind("error", _GATHERER),
        "journal_lost": AlertKind("error", _GATHERER),
        "frames_not_archived": AlertKind("warning", _GATHERER),
        "gatherer_restarted": AlertKind("warning", _MERGE),
        "rows_refused": AlertKind("error", _MERGE),
        "book_proof": AlertKind("error", _CLOSE),
        "claims_disagree": AlertKind("error", _CLOSE),
        "identity_agreement": AlertKind("warning", _CLOSE),
        "time_step_back": AlertKind("warning", _CLOSE),
        RUN_FAILED: AlertKind("error", _ALERTS),
        CHECK_FAILED: AlertKind("error", _ALERTS),
        SERVICE_NOT_ALIVE: AlertKind("error", _ALERTS),
        SERVICE_UNHEALTHY: AlertKind("error", _ALERTS),
        SERVICE_DEGRADED: AlertKind("warning", _ALERTS),
        ALERT_TEST: AlertKind("info", _ALERTS),
    }
)
_UNKNOWN = AlertKind("warning", _ALERTS)


class Alert(msgspec.Struct, frozen=True):
    """One alarm for people. `subject`: what it is about, such as gatherer/g1; `at`: when it was raised last.

    One kind and subject is sent once an hour.
    """

    kind: str
    subject: str
    text: str
    at: datetime

    @property
    def key(self) -> tuple[str, str]:
        """What is sent once an hour."""
        return self.kind, self.subject

    @property
    def severity(self) -> AlertSeverity:
        """How bad it is; a kind of another version counts as a warning."""
        return KINDS.get(self.kind, _UNKNOWN).severity

    @property
    def section(self) -> str:
        """The section of docs/operations.md that explains the kind."""
        return KINDS.get(self.kind, _UNKNOWN).section


class DueAlert(NamedTuple):
    """An alert that is to be sent now. `times`: how often it was raised since it was sent last."""

    alert: Alert
    times: int = 1


def is_wanted(kind: str, least: AlertSeverity) -> bool:
    """Whether alarms of a kind are as bad as the least severity that is sent."""
    return SEVERITIES.index(KINDS.get(kind, _UNKNOWN).severity) >= SEVERITIES.index(least)
