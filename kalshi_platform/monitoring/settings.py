"""Defines the settings of logs, metrics, health and alerts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from kalshi_platform.setting import setting

LogFormat: TypeAlias = Literal["console", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
AlertSeverity: TypeAlias = Literal["info", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """How a process logs. The same message is written `repeats_per_minute` times a minute, then counted."""

    format: LogFormat = field(
        default="console", metadata=setting("KALSHI_LOG_FORMAT", "lines for people, or one JSON object a line")
    )
    level: LogLevel = field(default="info", metadata=setting("KALSHI_LOG_LEVEL", "the least level that is written"))
    repeats_per_minute: int = 20


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """Where a service answers /metrics and /healthz; port 0: nowhere.

    `names`: host names that requests may use besides addresses, `localhost` and `host`.
    """

    host: str = field(default="127.0.0.1", metadata=setting("KALSHI_METRICS_HOST", "the address to listen on"))
    port: int = field(
        default=0,
        metadata=setting(
            "KALSHI_METRICS_PORT",
            "the merge serves `/metrics` and `/healthz` on this port, the gatherers on the next ones in their order; 0"
            " serves none, but `up` takes free ports then",
            low=0,
            high=65_535,
        ),
    )
    names: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            "KALSHI_METRICS_NAMES",
            "host names that requests may use besides addresses and `localhost`; other names get HTTP 421",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class AlertSettings:
    """Where alerts go; without `webhook_url` nowhere. `folder`: what waits is kept there while production is away.

    `spacing_s`: Slack admits about one message a second for each webhook.
    """

    webhook_url: str | None = field(
        default=None,
        repr=False,
        metadata=setting(
            "KALSHI_ALERT_WEBHOOK_URL",
            "where alarms are posted, each kind and subject once an hour: an incoming webhook of Slack, or of anything"
            " that takes its form (Mattermost, Rocket.Chat, Discord with `/slack` at the end)",
            kind="http_url",
            remedy="the address of an incoming webhook, such as https://hooks.slack.com/services/…",
            secret=True,
        ),
    )
    least_severity: AlertSeverity = field(
        default="info",
        metadata=setting("KALSHI_ALERT_LEAST_SEVERITY", "the least severity of an alarm that is posted"),
    )
    ca_file: Path | None = None
    folder: Path | None = None
    spacing_s: float = 1.0
    first_pause_s: float = 1.0
    """After the first failure; each further one doubles it."""
