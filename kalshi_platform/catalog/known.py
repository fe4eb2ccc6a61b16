"""The catalog as it was known at a moment of this platform's clock, from production's history."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import polars as pl

from kalshi_platform.storage.read import arrow_snapshot

_COLUMNS = {
    "series": "ticker, title, category",
    "events": "ticker, series_ticker, title, category",
    "markets": "ticker, event_ticker, status, title, open_time, close_time, result",
}


def known_at(production_url: str, what: Literal["series", "events", "markets"], moment: datetime) -> pl.DataFrame:
    """Every object as it was known at `moment` (aware), sorted by ticker; `payload` is the exchange's object as JSON.

    The columns are those of the SQL functions `series_as_known_at`, `events_as_known_at` and `markets_as_known_at`.
    Raises ValueError for a moment without a zone, DatabaseUnavailable.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no zone")
    with arrow_snapshot(production_url) as snapshot:
        rows = snapshot.table(
            f"SELECT {_COLUMNS[what]}, known_from, known_until, payload::text AS payload"  # noqa: S608 - our own names
            f' FROM {what}_as_known_at($1) ORDER BY ticker COLLATE "C"',
            [moment],
        )
    return pl.DataFrame(rows)
