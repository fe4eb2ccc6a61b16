"""Logging of a process: lines for people, or JSON lines for machines. The only module that uses structlog.

Whatever a record carries may come from the wire: every field is made harmless here (`plain_text`), in both forms. The
lines of a traceback are indented, so that none of them can pass for a record.

Everybody logs events (`event_log`) through the standard library; here its records get their form. A record carries
which service it is of and, where its thread belongs to a connection, which one; whatever else a caller gives as `extra`
is kept.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from kalshi_platform.monitoring.event_log import SECRET_NAME, Event, event_logger
from kalshi_platform.monitoring.log_rate_limit import LogRateLimit
from kalshi_platform.monitoring.plain_text import mask_secrets, plain, plain_lines
from kalshi_platform.monitoring.settings import LogSettings

_OURS = "kalshi_platform"
_INDENT = "    "
_TRACES = logging.Formatter()
_others: list[Callable[..., logging.LogRecord]] = []
_NOISY = ("urllib3", "botocore", "boto3", "s3transfer", "matplotlib", "asyncio", "aiohttp.access")
_log = event_logger(__name__)

_service_fields: dict[str, str] = {}
_thread_fields: Callable[[str], Mapping[str, str]] = lambda _name: {}  # noqa: E731 - a default, replaced below


def describe_process(fields: Mapping[str, str], threads: Callable[[str], Mapping[str, str]] | None = None) -> None:
    """Say which service this process is (`fields` of every record) and what the names of its threads mean."""
    global _thread_fields  # noqa: PLW0603 - one process, one service
    _service_fields.clear()
    _service_fields.update(fields)
    _thread_fields = threads or (lambda _name: {})


class PlainRecord(logging.LogRecord):
    """A record whose message and traceback are harmless in whatever handler writes them, Dagster's or Python's own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.exc_info and self.exc_info[0] is not None:
            trace = plain_lines(_TRACES.formatException(self.exc_info))
            self.exc_text = "\n".join(f"{_INDENT}{line}" for line in trace.split("\n"))

    def getMessage(self) -> str:  # noqa: N802 - the standard library's name
        """Return the message without control characters."""
        return plain(super().getMessage())


def make_our_records_plain() -> None:
    """From now on this package's records are harmless by themselves: for processes whose handlers are another's."""
    previous = logging.getLogRecordFactory()
    if previous is _record:
        return
    _others.append(previous)
    logging.setLogRecordFactory(_record)


def _record(name: str | None, *args: Any, **kwargs: Any) -> logging.LogRecord:
    # Without a name: `logging.makeLogRecord`, which Dagster calls for every event of a run.
    is_ours = name is not None and name.startswith(_OURS)
    return PlainRecord(name, *args, **kwargs) if is_ours else _others[-1](name, *args, **kwargs)


def set_up_logging(settings: LogSettings, *, verbose: bool = False, stream: TextIO | None = None) -> None:
    """Log to standard error (or `stream`), UTC. `verbose` writes everything, whatever the settings say."""
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        with contextlib.suppress(Exception):
            old.close()
    handler = _Output(stream, None if verbose else settings.repeats_per_minute)
    handler.setFormatter(formatter(settings))
    root.addHandler(handler)
    threading.excepthook = _thread_failed
    root.setLevel(logging.DEBUG if verbose else settings.level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class _Output(logging.StreamHandler[TextIO]):
    """Writes records to a stream, each event at most `limit` times a minute (None: always)."""

    def __init__(self, stream: TextIO | None, limit: int | None) -> None:
        super().__init__(stream)
        self._rate_limit = None if limit is None else LogRateLimit(limit, time.monotonic, self.handle)
        if self._rate_limit is not None:
            self.addFilter(self._rate_limit)

    def close(self) -> None:
        """Report what was held back, unless the stream is gone already; called by `logging` at the process's end."""
        if self._rate_limit is not None and not getattr(self.stream, "closed", False):
            self._rate_limit.report(at_once=True)
        super().close()


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """Python would write the error's text to the terminal as it is."""
    if failed.exc_value is None or isinstance(failed.exc_value, SystemExit):
        return
    name = "?" if failed.thread is None else failed.thread.name
    _log.critical("thread_failed", thread=name, exc_info=failed.exc_value)


def formatter(settings: LogSettings) -> logging.Formatter:
    """The formatter of these settings."""
    chain: list[Processor] = [structlog.stdlib.ExtraAdder(), _facts]
    if settings.format == "json":
        last: list[Processor] = [
            _fields_of_event,
            structlog.processors.format_exc_info,
            _without_secrets,
            _harmless,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ]
    else:
        last = [structlog.processors.format_exc_info, _without_secrets, _harmless, _console_line]
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


def _fields_of_event(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """For machines: the name of an event alone, and its fields beside it. What it says of itself wins."""
    message = event["_record"].msg
    return {**event, "event": message.name, **message.fields} if isinstance(message, Event) else event


def _console_line(_logger: Any, _method: str, event: EventDict) -> str:
    record: logging.LogRecord = event["_record"]
    line = f"{event['at'][:19]}Z {record.levelname:<7} {record.name}: {event['event']}"
    trace = event.get("exception")
    return "\n".join([line, *(f"{_INDENT}{each}" for each in trace.split("\n"))]) if trace else line


def _harmless(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Every field without what a terminal obeys or what forges a line, and of bounded length."""
    return {key: value if key.startswith("_") else _plain_field(key, value) for key, value in event.items()}


def _plain_field(key: str, value: Any) -> Any:
    if key == "exception":
        return plain_lines(str(value))
    if isinstance(value, str):
        return plain(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {plain(str(name)): _plain_field("", each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_field("", each) for each in value]
    return plain(str(value))


def _without_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """The last line of defence: no message should hold one in the first place."""
    return {key: value if key.startswith("_") else _clean(key, value) for key, value in event.items()}


def _clean(key: str, value: Any) -> Any:
    if SECRET_NAME.search(key):
        return "***"
    if not isinstance(value, str):
        return value
    return mask_secrets(value)
