"""`kalshi-platform gather NAME`: runs one gatherer alone."""

from __future__ import annotations

import threading

import typer


def gather(
    name: str = typer.Argument(..., help="Which gatherer, as named in KALSHI_GATHERERS."),
    seconds: float | None = typer.Option(None, "--seconds", min=0.1, help="Stop after that long; default: never."),
    metrics_port: int | None = typer.Option(
        None, "--metrics-port", min=0, max=65535, help="Serve /metrics and /healthz here; default: KALSHI_METRICS_PORT."
    ),
) -> None:
    """Record what the exchange publishes into one gatherer's databases, until Ctrl-C.

    Switched off in its table service_switches it stops recording and waits to be switched on again.

    Exit codes: 0 stopped by a signal, 2 configuration, 3 another process records under this name, 1 anything else
    (frames that wait in the journal, too).
    """
    import dataclasses

    from kalshi_platform import config
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.errors import Unfinished
    from kalshi_platform.gatherer.status.status import GathererStatus, IngestStatus
    from kalshi_platform.gatherer.switch import run_while_enabled
    from kalshi_platform.gatherer.threads import log_fields
    from kalshi_platform.local.processes.stop_signals import stop_on_signals
    from kalshi_platform.monitoring.heartbeat import read_file
    from kalshi_platform.monitoring.logs import describe_process

    settings, exchange, bounds = config.load_gatherer(name), config.load_exchange(), config.load_bounds()
    if metrics_port is not None:
        endpoint = dataclasses.replace(settings.endpoint, port=metrics_port)
        settings = dataclasses.replace(settings, endpoint=endpoint)
    describe_process({"service": settings.service, "gatherer": name}, lambda thread: log_fields(name, thread))
    stop = threading.Event()
    stop_on_signals(stop)
    if seconds is not None:
        timer = threading.Timer(seconds, stop.set)
        timer.daemon = True
        timer.start()
    run_while_enabled(settings, exchange, SYSTEM_CLOCK, bounds, stop)
    heartbeat = read_file(settings.heartbeat_file, GathererStatus)
    ingest = (None if heartbeat is None else heartbeat.details.ingest) or IngestStatus()
    if ingest.behind_bytes:
        where = f"the journal ({settings.folder / 'journal'})"
        raise Unfinished([f"{ingest.behind_bytes:,} bytes wait in {where}; the next start writes them to the database"])
