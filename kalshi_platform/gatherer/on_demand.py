"""Polls the books over REST once, outside of a running service and safe beside one."""

from __future__ import annotations

from kalshi_platform.catalog.store import CatalogStore
from kalshi_platform.clock import Clock
from kalshi_platform.gatherer.capture.snapshot_poller import BooksClient, poll_once
from kalshi_platform.gatherer.ingest.batch_commit import commit_records
from kalshi_platform.gatherer.markets.catalog_poller import CatalogPoller
from kalshi_platform.gatherer.markets.registry import Registry
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.report_publisher import write_polls
from kalshi_platform.gatherer.status.reports import BooksPolled
from kalshi_platform.market.catalog import BooksAnswer
from kalshi_platform.market.records import BookSnapshot, SnapshotSource
from kalshi_platform.market.times import US_PER_S
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database


def poll_books(
    settings: GathererSettings,
    rest: BooksClient,
    clock: Clock,
    bounds: PartitionBounds,
    timeseries: Database,
    catalog: Database,
) -> BooksPolled:
    """Poll the books of every market that the gatherer would follow now, and store them as this minute's snapshots.

    A market whose snapshot of this minute is there already keeps it. Raises DatabaseUnavailable.
    """
    registry = Registry(settings.market_filter)
    chosen = settings.market_filter
    CatalogPoller(CatalogStore(catalog), registry, parents=bool(chosen.series or chosen.categories)).refresh()
    keeper = PartitionKeeper(timeseries, bounds, clock)

    def put(answer: BooksAnswer, source: SnapshotSource, snapshot_ts_us: int | None) -> None:
        moment_us = answer.answered_at_ns // 1_000 if snapshot_ts_us is None else snapshot_ts_us
        at_ns, requested_ns = answer.answered_at_ns, answer.requested_at_ns
        snapshots = [
            BookSnapshot(ticker, source, moment_us, at_ns, yes, no, requested_at_ns=requested_ns)
            for ticker, (yes, no) in answer.books.items()
        ]
        if snapshots:
            commit_records(timeseries, keeper, settings.name, snapshots)

    now_us = clock.now_ns() // 1_000
    interval_us = int(settings.snapshot_interval_s * US_PER_S)
    tickers = sorted(registry.desired_markets(now_us))
    report = poll_once(rest, tickers, put, clock, now_us // interval_us * interval_us)
    write_polls(timeseries, [report])
    return report
