"""Logs events: a name and fields, `sessions_restarted reason=journal_damaged gatherer=g1`. Pure.

Everybody logs with this, through the standard library's loggers, so levels, handlers and pytest's `caplog` work as
ever. The record's message is an `Event`: as text it is the name and the fields as key=value, which is what any handler
writes, Dagster's too; the JSON form (`logs`) has the fields as keys of their own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import datetime
from typing import TypeAlias

from kalshi_platform.monitoring.plain_text import plain

TEXT_LIMIT = 1_000
"""Characters of one field in the text form, so that a long one leaves room for those behind it."""
SECRET_NAME = re.compile(r"password|secret|token|private|credential|api_key|signature", re.IGNORECASE)
"""Fields with such a name are masked."""
_NEEDS_QUOTES = re.compile(r'[\s"=]|^$')
_ErrorInfo: TypeAlias = bool | BaseException | None


class Event:
    """What happened, as the message of a log record. A field that is None has no text, and is null in JSON."""

    __slots__ = ("fields", "name")

    def __init__(self, name: str, fields: Mapping[str, object]) -> None:
        self.name = name
        self.fields = {key: "***" if SECRET_NAME.search(key) else value for key, value in fields.items()}

    def __str__(self) -> str:
        shown = (f"{key}={_field_text(value)}" for key, value in self.fields.items() if value is not None)
        return " ".join((self.name, *shown))


class EventLogger:
    """One module's log. `event` is in snake_case and never holds a value; fields carry their unit in the name."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, /, *, exc_info: _ErrorInfo = None, **fields: object) -> None:
        """Log what helps to find a mistake."""
        self._log(logging.DEBUG, event, exc_info, fields)

    def info(self, event: str, /, *, exc_info: _ErrorInfo = None, **fields: object) -> None:
        """Log what a service does as it should."""
        self._log(logging.INFO, event, exc_info, fields)

    def warning(self, event: str, /, *, exc_info: _ErrorInfo = None, **fields: object) -> None:
        """Log what should not be, and heals or waits."""
        self._log(logging.WARNING, event, exc_info, fields)

    def error(self, event: str, /, *, exc_info: _ErrorInfo = None, **fields: object) -> None:
        """Log what an operator has to look at."""
        self._log(logging.ERROR, event, exc_info, fields)

    def exception(self, event: str, /, **fields: object) -> None:
        """Log an error with the traceback of the exception that is being handled."""
        self._log(logging.ERROR, event, True, fields)

    def critical(self, event: str, /, *, exc_info: _ErrorInfo = None, **fields: object) -> None:
        """Log what ends a service or a thread of it."""
        self._log(logging.CRITICAL, event, exc_info, fields)

    def _log(self, level: int, event: str, exc_info: _ErrorInfo, fields: Mapping[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, Event(event, fields), exc_info=exc_info, stacklevel=3)


def event_logger(name: str) -> EventLogger:
    """Return the log of a module, whose name is its `__name__`."""
    return EventLogger(logging.getLogger(name))


def _field_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list | tuple | set | frozenset):
        return _quoted(",".join(map(str, sorted(value, key=str) if isinstance(value, set | frozenset) else value)))
    return _quoted(str(value))


def _quoted(text: str) -> str:
    if _NEEDS_QUOTES.search(text):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{plain(escaped, TEXT_LIMIT)}"'
    return plain(text, TEXT_LIMIT)
