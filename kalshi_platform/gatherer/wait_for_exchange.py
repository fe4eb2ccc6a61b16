"""Waiting for an exchange that is closed for maintenance."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Protocol

from kalshi_platform.backoff import exponential, jittered
from kalshi_platform.clock import Clock
from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.gatherer.capture.exchange_clock import ExchangeClock
from kalshi_platform.market.catalog import ExchangeStatus
from kalshi_platform.market.clock_offset import Offset
from kalshi_platform.market.times import US_PER_S, datetime_from_us

_UNKNOWN_RESUME_S = 15.0
_JITTER_S = 2.0
_log = logging.getLogger(__name__)


class StatusClient(Protocol):
    """The part of the REST client that is needed here."""

    def exchange_status(self) -> ExchangeStatus: ...


def wait_until_active(
    rest: StatusClient,
    clock: Clock,
    stop: threading.Event,
    longest_wait_s: float,
    say: Callable[[str], None] = lambda _: None,
    exchange_offset: Callable[[], Offset | None] = lambda: None,
) -> bool:
    """Return True once the exchange is active (a trading pause counts as active), False when `stop` came first.

    An inactive exchange is asked again at its estimated resume time, at the latest after `longest_wait_s`, a little
    later in each process; one that does not answer is asked ever more rarely. `say` gets a line about each wait.
    `exchange_offset`: this machine's clock against the exchange's, whose time the estimate is.
    """
    failures = 0
    exchange_clock = ExchangeClock(clock, exchange_offset)
    while not stop.is_set():
        try:
            status = rest.exchange_status()
        except KalshiPlatformError as error:
            failures += 1
            delay_s = jittered(exponential(1.0, longest_wait_s, failures), random.random)
            say(f"exchange status unknown: {error}")
            if not stop.is_set():
                _log.warning("exchange status unknown (%s); asking again in %.0f s", error, delay_s)
        else:
            if status.exchange_active:
                if not status.trading_active:
                    _log.info("the exchange pauses trading; books stand still, recording goes on")
                return True
            failures = 0
            delay_s = _until_resume_s(status, exchange_clock, longest_wait_s)
            resume = status.estimated_resume_us
            expected = "unknown" if resume is None else datetime_from_us(resume).isoformat()
            say(f"exchange inactive, expected back: {expected}")
            _log.info("the exchange is inactive (expected back: %s); asking again in %.1f s", expected, delay_s)
        clock.wait(stop, delay_s)
    return False


def _until_resume_s(status: ExchangeStatus, clock: ExchangeClock, longest_wait_s: float) -> float:
    if status.estimated_resume_us is None:
        wait_s = _UNKNOWN_RESUME_S
    else:
        wait_s = max(0.0, status.estimated_resume_us / US_PER_S - clock.now_us() / US_PER_S)
    # An estimate in the past is asked about soon, but never without a pause.
    return min(max(wait_s, 0.2), longest_wait_s) + min(_JITTER_S, 0.1 * longest_wait_s) * random.random()  # noqa: S311
