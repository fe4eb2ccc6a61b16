"""Candles of a simulated day against the exchange's endpoint, and against an independent computation in SQL."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from kalshi_platform import config
from kalshi_platform.clock import Clock
from kalshi_platform.config import PlatformSettings
from kalshi_platform.exchange.request_params import MAX_CANDLE_MARKETS, MAX_CANDLES_BATCH
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.lab.proof.comparison.candles import CANDLES, compare_candles
from kalshi_platform.lab.proof.errors import ProofFailed
from kalshi_platform.lab.proof.simulated.findings import Compared
from kalshi_platform.market.catalog import Candlestick
from kalshi_platform.storage.pool import Database

DAY = timedelta(days=1)
_TICKERS = "SELECT ticker FROM markets WHERE mve_collection_ticker IS NULL AND status <> 'vanished'"
_SQL = Path(__file__).with_name("candles.sql")


def fetch_candles(
    settings: PlatformSettings, environ: Mapping[str, str], day: datetime, since: datetime, clock: Clock
) -> dict[int, list[Candlestick]]:
    """Return the endpoint's candles of a day by period in minutes, of every market that REST still knows.

    A candle belongs to the day of its start; those that start before `since`, a whole hour of the day, are left out. To
    be called while the exchange stands still.
    """
    rest = RestClient(config.load_public_reads(environ), clock, threading.Event())
    production = Database(settings.deduplicator.production_url, name="production", pool_size=1)
    try:
        with production.transaction() as transaction:
            markets = transaction.fetch_all(_TICKERS)
    finally:
        production.dispose()
    tickers = [str(ticker) for (ticker,) in markets]
    found: dict[int, list[Candlestick]] = {period: [] for period in CANDLES}
    for period in CANDLES:
        first, last = int((since + timedelta(minutes=period)).timestamp()), int((day + DAY).timestamp())
        if first > last:
            continue
        at_once = min(MAX_CANDLE_MARKETS, MAX_CANDLES_BATCH // (1_440 // period))
        for low in range(0, len(tickers), at_once):
            found[period] += rest.candlesticks(tickers[low : low + at_once], first, last, period)
    return found


def compare_endpoint(settings: PlatformSettings, exchange: Mapping[int, Sequence[Candlestick]]) -> Compared:
    """Compare every field of every candle that the lake calls complete with the endpoint's."""
    figures: dict[str, float] = {}
    problems = []
    for period, candles in exchange.items():
        if not candles:
            continue
        found = compare_candles(settings.lake, period, candles)
        figures[f"candles of {period} min"] = found.compared
        figures[f"incomplete of {period} min"] = found.incomplete
        figures[f"undecided fields of {period} min"] = len(found.undecided)
        for what, some in (("differ", found.differing), ("are missing", found.missing), ("are too many", found.extra)):
            if some:
                problems.append(f"{len(some)} candles (fields) of {period} min {what}, the first: {some[0]}")
        if not found.compared:
            problems.append(f"no candle of {period} min is complete")
    if not exchange[1]:
        problems.append("the endpoint had no candles")
    return Compared("candles against the endpoint", figures, tuple(problems))


def compare_sql(lake_folder: Path, day: datetime) -> Compared:
    """Compare candles with what DuckDB makes of processed/quotes and raw/trades by plain SQL."""
    try:
        import duckdb
    except ImportError as missing:
        raise ProofFailed("the comparison in SQL needs DuckDB: pip install duckdb") from missing
    figures: dict[str, float] = {}
    problems = []
    text = _SQL.read_text(encoding="utf-8")
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        for period, key in CANDLES.items():
            values = {
                "candles": f"{lake_folder}/{key}/date={day:%Y-%m-%d}/*.parquet",
                "quotes": f"{lake_folder}/processed/quotes/date={day:%Y-%m-%d}/*.parquet",
                "trades": f"{lake_folder}/raw/trades/date={day:%Y-%m-%d}/hour=*/*.parquet",
                "period_us": period * 60_000_000,
            }
            row = database.execute(text, values).fetchone()
            compared, differing, first = row or (0, 0, None)
            figures[f"candles of {period} min"] = compared
            if differing:
                problems.append(f"{differing} of {compared} candles of {period} min differ, the first: {first}")
            if not compared and period < 1_440:
                problems.append(f"no candle of {period} min could be compared")
    return Compared("candles against SQL", figures, tuple(problems))
