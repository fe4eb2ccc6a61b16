"""The gatherer as a resource: one long-running service per name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import dagster as dg

from kalshi_platform import config
from kalshi_platform.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from kalshi_platform.gatherer.status.reports import Report


class WebSocketIngestor(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Hosts the gatherer service: exchange WebSocket and REST → one gatherer's pair of databases."""

    def run(
        self,
        name: str,
        stop: threading.Event,
        on_report: Callable[[Report], None] | None = None,
        run_id: str | None = None,
    ) -> None:
        """Record until `stop` is set; returns after everything received is written or spooled.

        Raises ConfigurationError, AuthenticationFailed, AnotherWriter (another process records under this name).
        """
        from kalshi_platform.gatherer.service import GathererService

        GathererService(
            config.load_gatherer(name),
            config.load_exchange(),
            SYSTEM_CLOCK,
            config.load_bounds(),
            run_id=run_id,
            on_report=on_report,
        ).run(stop)
