"""A gatherer that obeys its off switch without ending: switched off it waits, with a heartbeat, until it is wanted.

For hosts that restart what ends, a process group say. A host that has a supervisor of its own runs the service alone,
which ends when it is switched off.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from kalshi_platform.clock import Clock
from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.gatherer.service import GathererService
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.heartbeat import FILE_NAME, Heartbeat, should_run, write_file, write_row
from kalshi_platform.gatherer.status.reports import Report
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database

SWITCHED_OFF = "switched off"
_log = logging.getLogger(__name__)


def run_while_wanted(
    settings: GathererSettings,
    exchange: ExchangeSettings,
    clock: Clock,
    bounds: PartitionBounds,
    stop: threading.Event,
    run_id: str | None = None,
    on_report: Callable[[Report], None] | None = None,
) -> None:
    """Record whenever `service_switches` lets this gatherer, until `stop`. Raises what `GathererService.run` raises."""
    while not stop.is_set():
        service = GathererService(settings, exchange, clock, bounds, run_id=run_id, on_report=on_report)
        service.run(stop)
        if not service.switched_off:
            return
        _wait_until_wanted(settings, clock, stop, run_id)


def _wait_until_wanted(settings: GathererSettings, clock: Clock, stop: threading.Event, run_id: str | None) -> None:
    _log.info("%s: switched off in service_switches; waiting to be switched on", settings.service)
    started_at = clock.now()
    database = Database(
        settings.timeseries_url,
        name=f"{settings.name} timeseries",
        pool_size=1,
        statement_timeout_s=settings.statement_timeout_s,
    )
    try:
        while not stop.is_set():
            beat = Heartbeat(settings.service, clock.now(), started_at, SWITCHED_OFF, run_id)
            try:
                write_file(settings.folder / FILE_NAME, beat)
            except OSError as error:
                _log.warning("%s: the heartbeat file cannot be written: %s", settings.name, error)
            try:
                write_row(database, beat)
                if should_run(database, settings.service):
                    _log.info("%s: switched on", settings.service)
                    return
            except DatabaseUnavailable as error:
                _log.debug("%s: %s", settings.name, error)
            clock.wait(stop, settings.heartbeat_interval_s)
    finally:
        database.dispose()
