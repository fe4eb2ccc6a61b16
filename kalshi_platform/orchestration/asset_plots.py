"""Plots for the pages of assets and checks, as Markdown with a PNG inside.

Dagster keeps metadata in its event log, so a plot is small, and a run makes each at most once: of its last hour or day.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import dagster as dg

from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.market.times import HOUR
from kalshi_platform.monitoring.event_log import event_logger

if TYPE_CHECKING:
    from kalshi_platform.deduplicator.close.hour_traffic import HourTraffic
    from kalshi_platform.lake.manifest import Manifest
    from kalshi_platform.lake.settings import LakeSettings
    from kalshi_platform.storage.pool import Database

MARKET_STATS = "aggregates/market_stats"
MOST_BYTES = 36_000
"""Of the PNG: as Markdown it takes a third more, and that stays below 50 kB."""
_HOURS_SHOWN = 24
_MARKETS_SHOWN = 30
_BUSY_MARKETS = 20
_log = event_logger(__name__)

Plots = dict[str, dg.MetadataValue[Any]]
P = ParamSpec("P")


def plot_metadata(figure: Any, name: str = "plot") -> Plots:
    """Return a figure as metadata, if there is one and it is small enough."""
    from kalshi_platform.plots.timeline import small_png

    image = b"" if figure is None else small_png(figure, MOST_BYTES)
    if not image:
        return {}
    return {name: dg.MetadataValue.md(f"![{name}](data:image/png;base64,{b64encode(image).decode()})")}


def _never_failing(make: Callable[P, Plots]) -> Callable[P, Plots]:
    """A plot that cannot be made is left out: what it shows is made already, and stays."""

    @wraps(make)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Plots:
        try:
            return make(*args, **kwargs)
        except KalshiPlatformError as error:
            _log.warning("plot_not_made", plot=make.__name__, error=error)
            return {}

    return guarded


def plot_traffic(hour: datetime, traffic: Mapping[str, HourTraffic]) -> Plots:
    """Plot messages and lag of each gatherer, minute by minute."""
    from kalshi_platform.plots import hours as plots

    minutes = {
        name: [plots.Minute(each.at, each.messages, each.lag_p50_ms, each.lag_p99_ms) for each in found.minutes]
        for name, found in traffic.items()
    }
    if not any(minutes.values()):
        return {}
    title = f"Messages by gatherer and minute, {hour:%Y-%m-%d %H}:00 UTC; lag to the socket: p50, dotted p99"
    return plot_metadata(plots.traffic(title, minutes))


@_never_failing
def plot_coverage_map(database: Database, hour: datetime) -> Plots:
    """Plot the covered share by market and hour: of the least covered markets, up to `hour`."""
    from kalshi_platform.deduplicator.close import hour_summary
    from kalshi_platform.plots import hours as plots

    first = hour - (_HOURS_SHOWN - 1) * HOUR
    shares = hour_summary.read_least_covered_markets(database, first, hour + HOUR, _MARKETS_SHOWN)
    if not shares:
        return {}
    # Before the first hour that was closed there is nothing to show.
    first = min(min(of_market) for of_market in shares.values())
    hours = [first + number * HOUR for number in range(round((hour - first) / HOUR) + 1)]
    title = f"Covered share by market and hour: the {len(shares)} least covered markets"
    return plot_metadata(plots.coverage_map(title, hours, shares))


@_never_failing
def plot_agreement(database: Database, hour: datetime, least: float) -> Plots:
    """Plot how far each gatherer's deltas are those of others, hour by hour up to `hour`; `least` (0 … 1) is wanted."""
    from kalshi_platform.deduplicator.close import hour_summary
    from kalshi_platform.plots import hours as plots

    shares = hour_summary.read_agreement_by_hour(database, hour - (_HOURS_SHOWN - 1) * HOUR, hour + HOUR)
    if not shares:
        return {}
    return plot_metadata(plots.agreement("Agreement of gatherers: deltas that another one has too", shares, least))


@_never_failing
def plot_busy_markets(lake: LakeSettings, day: datetime, manifest: Manifest) -> Plots:
    """Plot volume and spread of the markets with the most contracts traded on a day, from `aggregates/market_stats`."""
    from kalshi_platform.plots.busy_markets import BusyMarket, busy_markets

    rows = _read_busy_markets(lake, day, manifest)
    if not rows:
        return {}
    markets = [
        BusyMarket(
            row["ticker"],
            float(row["volume_contracts"]),
            None if row["spread_mean_dollars"] is None else 100 * float(row["spread_mean_dollars"]),
        )
        for row in rows
    ]
    return plot_metadata(busy_markets(f"The busiest markets of {day:%Y-%m-%d} UTC", markets))


def _read_busy_markets(lake: LakeSettings, day: datetime, manifest: Manifest) -> Sequence[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from kalshi_platform.lake.datasets import DATASETS
    from kalshi_platform.lake.layout import partition_at
    from kalshi_platform.lake.store import open_store

    store, folder = open_store(lake), partition_at(DATASETS[MARKET_STATS], day).path
    parts = []
    for file in manifest.files:
        stream = store.open(f"{folder}/{file.name}")
        if stream is not None:
            with stream:
                parts.append(pq.read_table(stream, columns=["ticker", "volume_contracts", "spread_mean_dollars"]))
    if not parts:
        return []
    table = pa.concat_tables(parts)
    traded = table.filter(pc.greater(table["volume_contracts"], 0))
    busiest = traded.sort_by([("volume_contracts", "descending"), ("ticker", "ascending")])
    rows: list[dict[str, Any]] = busiest.slice(0, _BUSY_MARKETS).to_pylist()
    return rows
