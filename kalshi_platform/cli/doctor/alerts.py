"""Looks at where alarms go: to a webhook, or to nobody."""

from __future__ import annotations

from collections.abc import Iterator

from kalshi_platform import config
from kalshi_platform.cli.doctor.findings import Finding
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import ConfigurationError, KalshiPlatformError

_SET = "set KALSHI_ALERT_WEBHOOK_URL to an incoming webhook (Slack's form)"
_REMEDY = "see the address in KALSHI_ALERT_WEBHOOK_URL, and whether its receiver still takes messages"


def check_alerts(*, send: bool) -> Iterator[Finding]:
    """Say whether a webhook is set; with `send` post a test message to it."""
    try:
        settings = config.load_alerts()
    except ConfigurationError:
        return  # a finding of the settings
    if settings.webhook_url is None:
        yield Finding("alerts", "warn", "no webhook is set: alarms stand in logs and tables, and reach nobody", _SET)
        return
    if not send:
        yield Finding("alerts", "ok", "a webhook is set; --send-test-alert posts a message to it")
        return
    from kalshi_platform.monitoring.alerts.sender import send_test

    try:
        send_test(settings, SYSTEM_CLOCK)
    except KalshiPlatformError as error:
        yield Finding("alerts", "fail", str(error), _REMEDY)
    else:
        yield Finding("alerts", "ok", "the webhook took a test message")
