"""Waits for an exchange that is closed for maintenance."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Protocol

from kalshi_platform.backoff import exponential, jittered
from kalshi_platform.clock import Clock, wait_until_s
from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.gatherer.capture.exchange_clock import ExchangeClock
from kalshi_platform.market.catalog import ExchangeStatus
from kalshi_platform.market.clock_offset import Offset
from kalshi_platform.market.times import US_PER_S, datetime_from_us
from kalshi_platform.monitoring.event_log import event_logger

_UNKNOWN_RESUME_S = 15.0
_JITTER_S = 2.0
_log = event_logger(__name__)


class StatusClient(Protocol):
    """Describes the part of the REST client that is needed here."""

    def exchange_status(self) -> ExchangeStatus:
        """Return the state of the exchange."""


def wait_until_active(
    rest: StatusClient,
    clock: Clock,
    stop: threading.Event,
    longest_wait_s: float,
    on_wait: Callable[[str], None] = lambda _: None,
    on_status: Callable[[ExchangeStatus], None] = lambda _: None,
    exchange_offset: Callable[[], Offset | None] = lambda: None,
) -> bool:
    """Wait until the exchange is active (a trading pause counts); return False when `stop` came first.

    The status of an inactive exchange is read again at its estimated resume time, at the latest after `longest_wait_s`,
    a little later in each process; without an answer it is read ever more rarely. `on_wait` receives a line of text
    about each wait, `on_status` each status. `exchange_offset` returns our clock against the exchange's, by which the
    estimate counts.
    """
    failures = 0
    exchange_clock = ExchangeClock(clock, exchange_offset)
    while not stop.is_set():
        try:
            status = rest.exchange_status()
        except KalshiPlatformError as error:
            failures += 1
            delay_s = jittered(exponential(1.0, longest_wait_s, failures), random.random)
            on_wait(f"exchange status unknown: {error}")
            if not stop.is_set():
                _log.warning("exchange_status_unknown", error=error, retry_s=round(delay_s, 1))
        else:
            on_status(status)
            if status.exchange_active:
                if not status.trading_active:
                    _log.info("trading_paused", consequence="books stand still, recording goes on")
                return True
            failures = 0
            delay_s = _until_resume_s(status, clock, exchange_clock, longest_wait_s)
            resume = status.estimated_resume_us
            expected = "unknown" if resume is None else datetime_from_us(resume).isoformat()
            on_wait(f"exchange inactive, expected back: {expected}")
            _log.info("exchange_inactive", expected_back=expected, retry_s=round(delay_s, 1))
        clock.wait(stop, delay_s)
    return False


def _until_resume_s(
    status: ExchangeStatus, clock: Clock, exchange_clock: ExchangeClock, longest_wait_s: float
) -> float:
    if status.estimated_resume_us is None:
        wait_s = _UNKNOWN_RESUME_S
    else:
        wait_s = max(0.0, wait_until_s(clock, (status.estimated_resume_us - exchange_clock.now_us()) / US_PER_S))
    # After an estimate in the past the status is read again soon, but never without a pause.
    return min(max(wait_s, 0.2), longest_wait_s) + min(_JITTER_S, 0.1 * longest_wait_s) * random.random()  # noqa: S311
