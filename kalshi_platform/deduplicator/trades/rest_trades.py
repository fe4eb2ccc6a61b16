"""Stores the exchange's own listing of an hour's trades in the table `trade_listing`, page by page, in bounded memory.

One windowed listing covers all markets, so that an hour costs a request per thousand trades, however many markets
traded. The read budget of the REST client paces it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from kalshi_platform.market.identity import TRADE_WINDOW_US
from kalshi_platform.market.records import Trade
from kalshi_platform.market.tables import DATABASES
from kalshi_platform.market.times import HOUR, US_PER_S, us_from_datetime
from kalshi_platform.storage.arrow import ARROW_TYPES, ArrowBuilder
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

MARGIN = timedelta(microseconds=TRADE_WINDOW_US)
"""Listed around the hour as well: two sources may put one trade a little apart."""
_ROWS_AT_ONCE = 20_000
_TABLE = DATABASES["production"]["trade_listing"]
_BUILD = ArrowBuilder(Trade, _TABLE, without=("hour",))


class TradeLister(Protocol):
    """What of the REST client is needed here."""

    def iter_trades_of_both_tiers(
        self,
        ticker: str | None = None,
        min_ts: int | None = None,
        max_ts: int | None = None,
        *,
        on_skipped: Callable[[str], None] | None = None,
    ) -> Iterator[Trade]:
        """Trades of all markets between two moments (Unix seconds), wherever they lie."""


@dataclass(frozen=True)
class Listing:
    """What was stored. `trades` includes those of the margins; `left_out`: why it is not whole, empty if it is."""

    trades: int
    left_out: tuple[str, ...]


def store_listing(production: Database, rest: TradeLister, hour: datetime) -> Listing:
    """Read the trades of [hour - MARGIN, hour + 1 h + MARGIN) into `trade_listing`, instead of what stood there.

    A trade that is listed twice is stored once. Raises the errors of the exchange and DatabaseUnavailable.
    """
    delete_listing(production, hour)
    left_out: list[str] = []
    low_us, high_us = us_from_datetime(hour - MARGIN), us_from_datetime(hour + HOUR + MARGIN)
    trades = rest.iter_trades_of_both_tiers(
        min_ts=low_us // US_PER_S, max_ts=high_us // US_PER_S, on_skipped=left_out.append
    )
    wanted = (trade for trade in trades if low_us <= trade.exchange_ts_us < high_us)
    stored = 0
    while rows := list(islice(wanted, _ROWS_AT_ONCE)):
        with production.transaction() as transaction:
            stored += transaction.insert_new(_TABLE, _arrow(rows, us_from_datetime(hour)))
    return Listing(stored, tuple(left_out))


def delete_listing(production: Database, hour: datetime) -> None:
    """Delete the listing of an hour."""
    with production.transaction() as transaction:
        transaction.execute(_SQL["delete_listing"], {"hour": hour})


def _arrow(trades: list[Trade], hour_us: int) -> pa.Table:
    hours = pa.array([hour_us] * len(trades), ARROW_TYPES["timestamptz"])
    return _BUILD(trades).append_column("hour", hours)
