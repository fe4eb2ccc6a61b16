"""Checks of trades against the exchange's listing, as two commands make and print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kalshi_platform.deduplicator.trades.reconcile_trades import TradeCheck
    from kalshi_platform.exchange.rest import RestClient


def open_public_rest() -> RestClient:
    """Make a client of the configured exchange for reads that need no key."""
    import threading

    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.config import load_public_reads
    from kalshi_platform.exchange.rest import RestClient

    return RestClient(load_public_reads(), SYSTEM_CLOCK, threading.Event())


def describe_trade_check(check: TradeCheck) -> str:
    """Describe a check in one line."""
    if check.state == "not checked":
        return f"not checked: {check.reason}"
    figures = f"{check.rest_count:,} listed, {check.inserted:,} new"
    if check.only_in_production or check.differing:
        figures += f", {check.only_in_production:,} only in production, {check.differing:,} with other values"
    return f"{check.state}: {figures}" + (f" ({check.reason})" if check.reason else "")
