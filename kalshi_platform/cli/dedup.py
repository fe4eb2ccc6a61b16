"""`kalshi-platform dedup`: the live merge alone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import typer

from kalshi_platform.cli.running import tell

if TYPE_CHECKING:
    from kalshi_platform.deduplicator.merge import MergeReport


def dedup(
    seconds: float = typer.Option(0.0, "--seconds", min=0.0, help="Stop after this many seconds; 0 = until Ctrl-C."),
    once: bool = typer.Option(False, "--once", help="Merge everything that is there now, then end."),
    metrics_port: int | None = typer.Option(
        None, "--metrics-port", min=0, max=65535, help="Serve /metrics and /healthz here; default: KALSHI_METRICS_PORT."
    ),
) -> None:
    """Merge what all gatherers record into production, every few seconds, each message once."""
    import dataclasses

    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.config import load_bounds, load_deduplicator
    from kalshi_platform.deduplicator.catalog_merge import merge_catalog
    from kalshi_platform.deduplicator.live import LiveMerger
    from kalshi_platform.deduplicator.merge import Merger
    from kalshi_platform.local.stop_signals import stop_on_signals
    from kalshi_platform.monitoring.logs import describe_process

    settings = load_deduplicator()
    if metrics_port is not None:
        endpoint = dataclasses.replace(settings.endpoint, port=metrics_port)
        settings = dataclasses.replace(settings, endpoint=endpoint)
    describe_process({"service": "deduplicator"})
    bounds = load_bounds()
    stop = threading.Event()
    stop_on_signals(stop)
    names = ", ".join(source.name for source in settings.sources)
    if once:
        tell(f"merging what {names} recorded so far")
        merger = Merger(settings, SYSTEM_CLOCK, bounds)
        missed: tuple[str, ...] = ()
        try:
            while not stop.is_set():
                report = merger.merge_new()
                _tell(report)
                missed = report.missed
                if not report.behind:
                    break
        finally:
            merger.dispose()
        catalog = merge_catalog(settings, SYSTEM_CLOCK)
        tell(f"catalog: {catalog.rows_changed:,} series, events and markets new or known more newly")
        missed = tuple(dict.fromkeys((*missed, *catalog.missed)))
        if missed:
            tell(f"not read: {', '.join(missed)}", err=True)
            raise typer.Exit(1)
        return

    def tell_if_any(report: MergeReport) -> None:
        if report.rows_read or report.missed:
            _tell(report)

    tell(f"merging {names} every {settings.interval_s:g} s; Ctrl-C stops")
    timer = threading.Timer(seconds, stop.set) if seconds > 0 else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    live = LiveMerger(settings, SYSTEM_CLOCK, bounds, on_report=tell_if_any)
    live.run(stop)
    if timer is not None:
        timer.cancel()
    _state, details = live.status()
    inserted = {name: counts["inserted"] for name, counts in details["tables"].items() if counts["inserted"]}
    text = ", ".join(f"{count:,} {name}" for name, count in sorted(inserted.items())) or "nothing new"
    tell(f"stopped after {details['passes']:,} passes; into production: {text}")


def _tell(report: MergeReport) -> None:
    seconds = (report.finished_at - report.started_at).total_seconds()
    tables = ", ".join(
        f"{table.inserted:,} {name}" for name, table in report.tables.items() if table.inserted
    )  # fmt: skip
    line = f"{report.finished_at:%H:%M:%S} read {report.rows_read:,} rows, new: {tables or 'none'} ({seconds:.2f} s)"
    if report.behind:
        line += "; more is waiting"
    if report.missed:
        line += f"; away: {', '.join(report.missed)}"
    tell(line)
