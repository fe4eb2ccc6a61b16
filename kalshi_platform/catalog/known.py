"""Reads production's history of the catalog: what was known at a moment of this platform's clock."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import polars as pl

from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import arrow_snapshot

_COLUMNS = {
    "series": "ticker, title, category",
    "events": "ticker, series_ticker, title, category",
    "markets": "ticker, event_ticker, status, title, open_time, close_time, result",
}


def known_at(production_url: str, what: Literal["series", "events", "markets"], moment: datetime) -> pl.DataFrame:
    """Return every object as it was known at `moment` (aware), sorted by ticker.

    The columns are those of the SQL functions `series_as_known_at`, `events_as_known_at` and `markets_as_known_at`;
    `payload` is the exchange's object as JSON.
    Raises ValueError for a moment without a zone, DatabaseUnavailable.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no zone")
    with arrow_snapshot(production_url) as snapshot:
        rows = snapshot.table(load("catalog")["known_at"].format(columns=_COLUMNS[what], table=what), [moment])
    return pl.DataFrame(rows)
