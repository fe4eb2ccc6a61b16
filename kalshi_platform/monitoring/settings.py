"""Settings of logging and of the metrics endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

LogFormat: TypeAlias = Literal["console", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """How a process logs. The same message is written `repeats_per_minute` times a minute, then counted."""

    format: LogFormat = "console"
    level: LogLevel = "info"
    repeats_per_minute: int = 20


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """Where a service answers /metrics and /healthz; port 0: nowhere.

    `names`: host names that requests may use besides addresses, `localhost` and `host`.
    """

    host: str = "127.0.0.1"
    port: int = 0
    names: tuple[str, ...] = ()
