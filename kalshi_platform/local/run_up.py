"""Runs `kalshi-platform up` from start to stop, and reports meanwhile."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from kalshi_platform.clock import Clock
from kalshi_platform.errors import KalshiPlatformError, StartFailed, TransientError, Unfinished
from kalshi_platform.local.dagster_processes import CODE_SERVER, DAGSTER, WEBSERVER, is_loaded
from kalshi_platform.local.final_export import FinalExport, export_open, find_hours_merged_since, merge_remaining
from kalshi_platform.local.patience import wait_saying
from kalshi_platform.local.stack import Stack, StackOptions
from kalshi_platform.local.watchdog import Watchdog
from kalshi_platform.market.times import hour_of
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage import queries
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.services import database_now

TICK_S = 1.0
STATUS_EVERY_S = 10.0
OPEN_EXPORT_EVERY_S = 60.0
_LAKE_BEHIND = "the lake lacks the newest rows of the running hour until it is tried again"
UI_START_S = 900.0
"""A machine that needs longer is not slow but stuck."""
UI_STARTS = 3
"""Times that Dagster may end before its UI has answered."""
_SQL = queries.load(Path(__file__).with_name("queries.sql"))
_log = event_logger(__name__)


def run_up(
    options: StackOptions, stop: threading.Event, seconds: float | None, say: Callable[[str], None], clock: Clock
) -> None:
    """Bring the stack up, watch it until `stop` or `seconds`, take it down.

    Raises ConfigurationError before anything starts, Unfinished at the end when something is left that could not be
    merged or exported, and StartFailed when the UI does not come.
    """
    remains: list[str] = []
    with Stack(options, say, clock, stop) as stack:
        if options.databases_only:
            say("databases are up; settings for `dagster dev` and all commands are in .env; Ctrl-C stops them")
            clock.wait(stop, seconds or 10**9)
        elif options.headless:
            began = _read_production_clock(stack)
            _watch(stack, stop, seconds, say, clock, exports=None)
            stack.wait_for_databases()
            remains += stack.stop_services()
            say("gatherers and merge stopped; last merge and open exports")
            export = _merge_and_export(stack, began, say, clock)
            _report_export(export, stack, say)
            remains += export.unfinished
        else:
            _with_ui(options, stack, stop, seconds, say, clock)
        say("stopping")
    remains += stack.find_remains()
    say(f"stopped after {stack.elapsed_s():.0f} s; everything is in {_display_path(options.data_dir)}")
    if remains:
        raise Unfinished(list(dict.fromkeys(remains)))


def _read_production_clock(stack: Stack) -> datetime:
    """Return the time by the clock that dates merges."""
    production = Database(stack.settings().deduplicator.production_url, name="production", pool_size=1)
    try:
        return database_now(production)
    finally:
        production.dispose()


def _merge_and_export(stack: Stack, began: datetime, say: Callable[[str], None], clock: Clock) -> FinalExport:
    settings = stack.settings()
    unfinished = merge_remaining(settings, clock)
    production = Database(settings.deduplicator.production_url, name="production")
    try:
        hours = find_hours_merged_since(production, began, clock.now())
        export = export_open(settings, hours, clock, say, threading.Event())
    except TransientError as error:
        export = FinalExport(unfinished=[f"the lake was not brought up to date: {error}"])
    finally:
        production.dispose()
    export.unfinished[:0] = unfinished
    return export


def _with_ui(
    options: StackOptions,
    stack: Stack,
    stop: threading.Event,
    seconds: float | None,
    say: Callable[[str], None],
    clock: Clock,
) -> None:
    try:
        _start_ui(stack, stop, say, clock)
        if not stop.is_set():
            _watch_with_ui(options, stack, stop, seconds, say, clock)
    finally:
        stop.set()
        if stack.past is not None:
            stack.past.join(timeout_s=10)


def _start_ui(stack: Stack, stop: threading.Event, say: Callable[[str], None], clock: Clock) -> None:
    """Bring Dagster up, after services that record a past. Raises StartFailed."""
    if stack.past is not None:
        stack.past.start(stack, stop)
        if stop.is_set():
            return
        stack.start_dagster()
        stack.publish()
    if _wait_for_ui(stack, stop, say, clock):
        say(f"Dagster UI after {stack.elapsed_s():.0f} s: {stack.ui_url}")
        if stack.past is not None:
            stack.past.ui_is_ready()


def _watch_with_ui(
    options: StackOptions,
    stack: Stack,
    stop: threading.Event,
    seconds: float | None,
    say: Callable[[str], None],
    clock: Clock,
) -> None:
    exporter = _OpenExporter(stack, clock)
    thread = threading.Thread(target=exporter.run, args=(stop,), name="open-exports", daemon=True)
    thread.start()
    watchdog = Watchdog(
        lambda: _read_text(options.data_dir / "state" / "supervisor-heartbeat.json"),
        stack.restart_daemon,
        stack.restart_dagster,
        clock=clock,
    )
    _watch(stack, stop, seconds, say, clock, exports=exporter, watchdog=watchdog)
    stop.set()
    thread.join(timeout=10)


def _wait_for_ui(stack: Stack, stop: threading.Event, say: Callable[[str], None], clock: Clock) -> bool:
    """Wait until Dagster's webserver has loaded the code location; False on `stop`. Raises StartFailed."""
    ends: Counter[str] = Counter()

    def is_there() -> bool:
        ends.update(gone.name for gone in stack.poll() if gone.name in DAGSTER)
        for name, times in ends.items():
            if times >= UI_STARTS:
                raise StartFailed(f"{name} ended {times} times before the UI answered: {_log_of(stack, name)}")
        return is_loaded(str(stack.ui_url))

    def what() -> str:
        return f"the Dagster UI, whose log ends with: {stack.log_tail(CODE_SERVER, 1).rpartition(' - ')[2][:100]}"

    if wait_saying(what, is_there, stop, say, clock, UI_START_S):
        return True
    if stop.is_set():
        return False
    raise StartFailed(f"the Dagster UI did not answer within {UI_START_S:.0f} s: {_log_of(stack, WEBSERVER)}")


def _log_of(stack: Stack, name: str) -> str:
    return f"{stack.log_tail(name)} (more in {_display_path(stack.group.log_dir)}/{name}.log)"


def _watch(
    stack: Stack,
    stop: threading.Event,
    seconds: float | None,
    say: Callable[[str], None],
    clock: Clock,
    *,
    exports: _OpenExporter | None,
    watchdog: Watchdog | None = None,
) -> None:
    started = clock.monotonic()
    next_status = started + STATUS_EVERY_S / 2
    production = Database(stack.settings().deduplicator.production_url, name="production")
    try:
        while not stop.is_set() and (seconds is None or clock.monotonic() - started < seconds):
            stack.poll()
            if watchdog is not None:
                watchdog.tick()
            if clock.monotonic() >= next_status:
                next_status += STATUS_EVERY_S
                say(_status_line(production, stack, exports))
            clock.wait(stop, TICK_S)
    finally:
        production.dispose()


def _status_line(production: Database, stack: Stack, exports: _OpenExporter | None) -> str:
    try:
        with production.transaction() as transaction:
            rows = transaction.fetch_all(_SQL["merged_rows"])
    except KalshiPlatformError as error:
        return "; ".join([f"production is away: {error}", *stack.problems()])
    counts = ", ".join(f"{table.removeprefix('orderbook_')} {count:,}" for table, count in rows) or "nothing yet"
    there = "" if stack.past is None else stack.past.describe()
    line = f"[{stack.elapsed_s():4.0f} s] {there}merged into production: {counts}"
    if exports is not None and exports.last is not None:
        at, export = exports.last
        line += f"; lake: {sum(export.exported_rows.values()):,} rows at {at:%H:%M:%S}"
    return "; ".join([line, *stack.problems()])


class _OpenExporter:
    """Exports the running hour as `open` every minute, so that the lake is seen to grow; Dagster closes ended hours."""

    def __init__(self, stack: Stack, clock: Clock) -> None:
        self._stack = stack
        self._clock = clock
        self.last: tuple[datetime, FinalExport] | None = None

    def run(self, stop: threading.Event) -> None:
        """Export until `stop`: first as soon as production has rows, then every OPEN_EXPORT_EVERY_S."""
        wait_s = 5.0
        while not self._clock.wait(stop, wait_s):
            try:
                export = self._export(stop)
            except KalshiPlatformError as error:
                _log.warning("open_export_postponed", error=error, retry_s=wait_s, consequence=_LAKE_BEHIND)
            except Exception:  # noqa: BLE001 - one failed export must not end the later ones
                _log.exception("open_export_failed", retry_s=OPEN_EXPORT_EVERY_S, consequence=_LAKE_BEHIND)
                wait_s = OPEN_EXPORT_EVERY_S
            else:
                for text in export.unfinished:
                    _log.warning("open_export_incomplete", reason=text, retry_s=OPEN_EXPORT_EVERY_S)
                if export.hours:
                    self.last = (self._clock.now(), export)
                    wait_s = OPEN_EXPORT_EVERY_S

    def _export(self, stop: threading.Event) -> FinalExport:
        settings = self._stack.settings()
        now = self._clock.now()
        production = Database(settings.deduplicator.production_url, name="production")
        try:
            hours = [hour for hour in find_hours_merged_since(production, None, now) if hour == hour_of(now)]
        finally:
            production.dispose()
        return export_open(settings, hours, self._clock, lambda text: _log.debug("open_export", step=text), stop)


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _report_export(export: FinalExport, stack: Stack, say: Callable[[str], None]) -> None:
    for table in sorted(export.exported_rows):
        in_production = export.production_rows.get(table)
        production = "" if in_production is None else f"{in_production:>12,} rows in production, "
        say(f"{table:<20} {production}{export.exported_rows[table]:>12,} in the lake")
    if not export.hours:
        say("no rows came")
    say(f"lake: {stack.settings().lake.root}")


def _display_path(path: Path) -> str:
    try:
        return f"./{path.relative_to(Path.cwd())}"
    except ValueError:
        return str(path)
