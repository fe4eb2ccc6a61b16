"""Runs a gatherer whenever its switch is on; switched off it waits, with a heartbeat, instead of ending.

This is for hosts that restart processes that end. A host with its own supervisor runs the service alone, which ends
when it is switched off.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from kalshi_platform.clock import Clock
from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.gatherer.service import GathererService
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.reports import Report
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.heartbeat import Heartbeat, write_file
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.services import is_enabled, write_heartbeat

SWITCHED_OFF = "switched off"
_log = event_logger(__name__)


def run_while_enabled(
    settings: GathererSettings,
    exchange: ExchangeSettings,
    clock: Clock,
    bounds: PartitionBounds,
    stop: threading.Event,
    run_id: str | None = None,
    on_report: Callable[[Report], None] | None = None,
) -> None:
    """Record whenever the switch of this gatherer is on, until `stop`. Raises like `GathererService.run`."""
    while not stop.is_set():
        service = GathererService(settings, exchange, clock, bounds, run_id=run_id, on_report=on_report)
        service.run(stop)
        if not service.switched_off:
            return
        _wait_until_enabled(settings, clock, stop, run_id)


def _wait_until_enabled(settings: GathererSettings, clock: Clock, stop: threading.Event, run_id: str | None) -> None:
    _log.info("waiting_to_be_switched_on", service=settings.service, table="service_switches")
    started_at = clock.now()
    database = Database(
        settings.timeseries_url,
        name=f"{settings.name} timeseries",
        pool_size=1,
        statement_timeout_s=settings.statement_timeout_s,
    )
    status = GathererStatus(state=SWITCHED_OFF, market_shard=str(settings.market_filter.shard))
    try:
        while not stop.is_set():
            heartbeat = Heartbeat(settings.service, clock.now(), started_at, SWITCHED_OFF, status, run_id=run_id)
            try:
                write_file(settings.heartbeat_file, heartbeat)
            except OSError as error:
                _log.warning("heartbeat_file_not_written", gatherer=settings.name, error=error)
            try:
                write_heartbeat(database, heartbeat)
                if is_enabled(database, settings.service):
                    _log.info("switched_on", service=settings.service)
                    return
            except DatabaseUnavailable as error:
                _log.debug("switch_not_read", gatherer=settings.name, error=error)
            clock.wait(stop, settings.heartbeat_interval_s)
    finally:
        database.dispose()
