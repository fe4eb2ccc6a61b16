"""`kalshi-platform dedup`: runs the live merge alone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import typer

from kalshi_platform.cli.console import print_line
from kalshi_platform.errors import LockHeld, Unfinished

if TYPE_CHECKING:
    from kalshi_platform.deduplicator.live.status import DeduplicatorStatus
    from kalshi_platform.deduplicator.merge.merge_pass import MergeReport
    from kalshi_platform.deduplicator.settings import DeduplicatorSettings
    from kalshi_platform.storage.settings import PartitionBounds


def dedup(
    seconds: float = typer.Option(0.0, "--seconds", min=0.0, help="Stop after this many seconds; 0 = until Ctrl-C."),
    once: bool = typer.Option(False, "--once", help="Merge everything that is there now, then end."),
    metrics_port: int | None = typer.Option(
        None, "--metrics-port", min=0, max=65535, help="Serve /metrics and /healthz here; default: KALSHI_METRICS_PORT."
    ),
) -> None:
    """Merge what all gatherers record into production, every few seconds, each message once.

    Exit codes: 0 done, or stopped by a signal; 1 when a gatherer or production was away at the end; 2 wrong settings;
    3 another deduplicator merges already.
    """
    import dataclasses

    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.config import load_bounds, load_deduplicator
    from kalshi_platform.deduplicator.live.live_merger import LiveMerger
    from kalshi_platform.local.processes.stop_signals import stop_on_signals
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
        print_line(f"merging what {names} recorded so far")
        _merge_once(settings, bounds, stop)
        return

    def print_if_any(report: MergeReport) -> None:
        if report.rows_read or report.missed:
            _print_report(report)

    print_line(f"merging {names} every {settings.interval_s:g} s; Ctrl-C stops")
    timer = threading.Timer(seconds, stop.set) if seconds > 0 else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    live = LiveMerger(settings, SYSTEM_CLOCK, bounds, on_report=print_if_any)
    live.run(stop)
    if timer is not None:
        timer.cancel()
    status = live.status()
    inserted = {name: counts.inserted for name, counts in status.tables.items() if counts.inserted}
    text = ", ".join(f"{count:,} {name}" for name, count in sorted(inserted.items())) or "nothing new"
    print_line(f"stopped after {status.passes:,} passes; into production: {text}")
    if status.state == "waiting" and not status.passes:
        raise LockHeld("nothing was merged here: another deduplicator held the lock on production all the time")
    if remains := _remains(status):
        raise Unfinished(remains)


def _merge_once(settings: DeduplicatorSettings, bounds: PartitionBounds, stop: threading.Event) -> None:
    """Merge what is there now, rows and catalogs. Raises Unfinished when something is left."""
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.deduplicator.catalog.merge_catalog import merge_catalog
    from kalshi_platform.deduplicator.merge.merge_pass import Merger

    merger = Merger(settings, SYSTEM_CLOCK, bounds)
    try:
        while True:
            report = merger.merge_new()
            _print_report(report)
            if not report.behind:
                break
            if stop.is_set():
                raise Unfinished(["stopped before everything was merged: more is waiting; the next merge goes on"])
    finally:
        merger.dispose()
    catalog = merge_catalog(settings, SYSTEM_CLOCK)
    print_line(f"catalog: {catalog.rows_changed:,} series, events and markets new or known more newly")
    missed = tuple(dict.fromkeys((*report.missed, *catalog.missed)))
    if missed:
        raise Unfinished([f"not read: {', '.join(missed)}; the next merge goes on where it stands"])


def _remains(status: DeduplicatorStatus) -> list[str]:
    """List what the last pass could not do; the next start goes on where it stands."""
    remains = []
    if status.state == "production away":
        remains.append(f"production is away: {status.error}")
    if status.missed:
        remains.append(f"not read by the last pass: {', '.join(status.missed)}")
    if status.catalog is not None and status.catalog.error:
        remains.append(f"the catalogs were not merged: {status.catalog.error}")
    return remains


def _print_report(report: MergeReport) -> None:
    seconds = (report.finished_at - report.started_at).total_seconds()
    tables = ", ".join(
        f"{table.inserted:,} {name}" for name, table in report.tables.items() if table.inserted
    )  # fmt: skip
    line = f"{report.finished_at:%H:%M:%S} read {report.rows_read:,} rows, new: {tables or 'none'} ({seconds:.2f} s)"
    if report.behind:
        line += "; more is waiting"
    if report.missed:
        line += f"; away: {', '.join(report.missed)}"
    print_line(line)
