"""Looks at the exchange: whether it answers, whether it takes the key, and how far its clock is from ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from kalshi_platform import config
from kalshi_platform.cli.doctor.findings import Finding
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import AuthenticationFailed, ConfigurationError, KalshiPlatformError
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.settings import ExchangeSettings

_TOKENS = 10
"""What a usual request costs."""
_NETWORK = "see whether this machine reaches it (network, proxy, KALSHI_CA_FILE), and KALSHI_REST_URL"
_KEY = "use a key of the environment that KALSHI_REST_URL names, with read scope, and set the clock right (NTP)"


def check_exchange() -> Iterator[Finding]:
    """Ask for its status without a key, compare the clocks, then ask for the account's limits with the key."""
    try:
        settings = config.load_public_reads()
    except ConfigurationError:
        return  # a finding of the settings
    rest = RestClient(_impatient(settings), SYSTEM_CLOCK)
    try:
        status = rest.exchange_status()
    except KalshiPlatformError as error:
        yield Finding("exchange", "fail", f"{settings.rest_url}: {error}", _NETWORK)
        return
    state = "active" if status.exchange_active else "inactive"
    trading = "trading" if status.trading_active else "trading is paused"
    yield Finding("exchange", "ok", f"{settings.rest_url} answers: {state}, {trading}")
    offset = rest.clock_offset()
    if offset is not None:
        text = offset.describe("the exchange's")
        remedy = "set the clock right (NTP): signatures of a wrong time are refused" if offset.is_large else ""
        yield Finding("clock", "fail" if offset.is_large else "ok", text.partition(": ")[0], remedy)
    yield from _check_key()


def _check_key() -> Iterator[Finding]:
    try:
        settings = config.load_exchange()
    except ConfigurationError:
        return  # a finding of the settings
    try:
        limits = RestClient(_impatient(settings), SYSTEM_CLOCK).account_limits()
    except AuthenticationFailed as error:
        yield Finding("key", "fail", str(error), _KEY)
    except KalshiPlatformError as error:
        yield Finding("key", "warn", f"whether the key is good is not known: {error}", _NETWORK)
    else:
        tier = f"tier {limits.usage_tier}, " if limits.usage_tier else ""
        yield Finding(
            "key", "ok", f"the exchange takes it: {tier}{limits.read_refill_per_s / _TOKENS:g} reads a second"
        )


def _impatient(settings: ExchangeSettings) -> ExchangeSettings:
    """Return settings that give up soon, because a person waits."""
    return dataclasses.replace(
        settings, max_attempts=2, request_timeout_s=5.0, connect_timeout_s=5.0, answer_deadline_s=10.0
    )
