"""Registers a partition at once where an export has replaced its files, which its table still names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.lake.iceberg.settings import IcebergSettings
from kalshi_platform.lake.layout import Partition
from kalshi_platform.lake.manifest import Manifest, read_manifest
from kalshi_platform.lake.store import Lake, open_store
from kalshi_platform.monitoring.event_log import event_logger

_log = event_logger(__name__)


@contextmanager
def registering_replaced(lake: Lake, settings: Callable[[], IcebergSettings], partition: Partition) -> Iterator[None]:
    """Export a partition in the block; where it was closed before and has other files then, its table gets these.

    What the catalog has against it is logged: the export stands, and the next registration finds it.
    """
    store = open_store(lake)
    before = _closed(store, partition)
    yield
    if before is None:
        return
    after = _closed(store, partition)
    if after is not None and after.files == before.files:
        return
    try:
        from kalshi_platform.lake.iceberg.register import register

        register(store, settings(), [partition.dataset], [partition.start.date()])
    except KalshiPlatformError as error:
        _log.warning("table_not_registered", table=partition.dataset.key, partition=partition.key, error=error)


def _closed(lake: Lake, partition: Partition) -> Manifest | None:
    for path in filter(None, (partition.path, partition.former_path)):
        try:
            manifest = read_manifest(lake, path)
        except KalshiPlatformError:  # the export says so
            return None
        if manifest is not None:
            return manifest if manifest.state == "closed" else None
    return None
