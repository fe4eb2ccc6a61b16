"""The platform's gatherer as a measured process: the whole service, as `kalshi-platform gather` runs it.

`python -m kalshi_platform.lab.bench.gatherer.gatherer_host SPEC`; ends on SIGINT.
"""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.gatherer.ingest import batch_commit
from kalshi_platform.gatherer.service import GathererService
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.status import GathererStatus, IngestStatus
from kalshi_platform.lab.bench import host
from kalshi_platform.lab.bench.host import HostSpec
from kalshi_platform.local.processes.stop_signals import stop_on_signals
from kalshi_platform.monitoring.event_log import Event
from kalshi_platform.monitoring.heartbeat import read_file
from kalshi_platform.storage.partitions import PartitionBounds

NAME = "bench"


class CommitTimes(logging.Handler):
    """Hears of every commit as the commit room logs it, in the ingest's thread, right after the commit returned."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.by_batch: dict[int, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Note the time of a batch's commit."""
        event = record.msg
        if isinstance(event, Event) and event.name == batch_commit.COMMITTED:
            self.by_batch[int(str(event.fields["batch_no"]))] = SYSTEM_CLOCK.now_ns()


def main() -> None:
    """Record until SIGINT."""
    spec = HostSpec.read(sys.argv[1])
    folder = Path(spec.folder)
    stop = threading.Event()
    stop_on_signals(stop)
    logging.basicConfig(level=logging.INFO)
    times = CommitTimes()
    logger = logging.getLogger(batch_commit.__name__)
    logger.setLevel(logging.DEBUG)
    logger.addHandler(times)
    logger.propagate = False
    settings = GathererSettings(
        name=NAME,
        timeseries_url=spec.timeseries_url,
        catalog_url=spec.catalog_url,
        state_dir=folder / "state",
        heartbeat_interval_s=0.5,
    )
    exchange = ExchangeSettings(
        rest_url=spec.rest_url,
        ws_url=spec.ws_url,
        key_id=spec.key_id,
        private_key_pem=Path(spec.key_file).read_bytes(),
    )
    service = GathererService(settings, exchange, SYSTEM_CLOCK, PartitionBounds())
    running = threading.Event()

    def serve() -> None:
        try:
            service.run(running)
        finally:
            stop.set()

    thread = threading.Thread(target=serve, name="service")
    thread.start()
    cpu = host.report_until(folder, stop, lambda: _rows(settings))
    running.set()
    thread.join()
    host.finish(folder, times.by_batch, cpu)


def _rows(settings: GathererSettings) -> dict[str, int]:
    heartbeat = read_file(settings.heartbeat_file, GathererStatus)
    ingest = None if heartbeat is None else heartbeat.details.ingest
    return (ingest or IngestStatus()).rows


if __name__ == "__main__":
    main()
