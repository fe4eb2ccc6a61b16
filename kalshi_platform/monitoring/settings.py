"""Defines the settings of logs, metrics and health."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from kalshi_platform.setting import setting

LogFormat: TypeAlias = Literal["console", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]


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
