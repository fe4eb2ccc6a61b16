"""Logging of a process: lines for people, or JSON lines for machines. The only module that uses structlog.

Everybody logs with the standard library; here its records get their form. A record carries which service it is of and,
where its thread belongs to a connection, which one; whatever else a caller gives as `extra` is kept.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from kalshi_platform.monitoring.repeats import RepeatHandler, RepeatLimiter
from kalshi_platform.monitoring.settings import LogSettings

_NOISY = ("urllib3", "botocore", "boto3", "s3transfer", "matplotlib", "asyncio", "aiohttp.access")
_URL_PASSWORD = re.compile(r"(\w[\w+.-]*://[^\s:/@]*):[^\s/@]+@")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_SECRET_NAME = re.compile(r"password|secret|token|private|credential|api_key|signature", re.IGNORECASE)

_service_fields: dict[str, str] = {}
_thread_fields: Callable[[str], Mapping[str, str]] = lambda _name: {}  # noqa: E731 - a default, replaced below


def describe_process(fields: Mapping[str, str], threads: Callable[[str], Mapping[str, str]] | None = None) -> None:
    """Say which service this process is (`fields` of every record) and what the names of its threads mean."""
    global _thread_fields  # noqa: PLW0603 - one process, one service
    _service_fields.clear()
    _service_fields.update(fields)
    _thread_fields = threads or (lambda _name: {})


def set_up_logging(settings: LogSettings, *, verbose: bool = False, stream: TextIO | None = None) -> None:
    """Log to standard error (or `stream`), UTC. `verbose` writes everything, whatever the settings say."""
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        with contextlib.suppress(Exception):
            old.close()
    target = logging.StreamHandler(stream)
    target.setFormatter(formatter(settings))
    handler: logging.Handler = target
    if not verbose:
        handler = RepeatHandler(target, RepeatLimiter(settings.repeats_per_minute, time.monotonic))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose else settings.level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def formatter(settings: LogSettings) -> logging.Formatter:
    """The formatter of these settings."""
    chain: list[Processor] = [structlog.stdlib.ExtraAdder(), _facts]
    if settings.format == "json":
        last: list[Processor] = [
            structlog.processors.format_exc_info,
            _without_secrets,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ]
    else:
        last = [structlog.processors.format_exc_info, _without_secrets, _console_line]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=chain, processors=last)


def _facts(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Time, level, logger, service and thread of a record."""
    record: logging.LogRecord = event["_record"]
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    facts = {
        "at": f"{moment}.{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "logger": record.name,
        **_service_fields,
        **_thread_fields(record.threadName or ""),
    }
    return {**facts, **event}  # what a caller says of itself wins


def _console_line(_logger: Any, _method: str, event: EventDict) -> str:
    record: logging.LogRecord = event["_record"]
    line = f"{event['at'][:19]}Z {record.levelname:<7} {record.name}: {event['event']}"
    return f"{line}\n{event['exception']}" if event.get("exception") else line


def _without_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """The last line of defence: no message should hold one in the first place."""
    return {key: value if key.startswith("_") else _clean(key, value) for key, value in event.items()}


def _clean(key: str, value: Any) -> Any:
    if _SECRET_NAME.search(key):
        return "***"
    if not isinstance(value, str):
        return value
    value = _URL_PASSWORD.sub(r"\1:***@", value) if "://" in value else value
    return _PRIVATE_KEY.sub("***", value) if "PRIVATE KEY" in value else value
