"""The naive close: every row of every gatherer is inserted again, then production is folded in a dict and compared.

One gatherer after the other, a named cursor, `execute_values` of 1,000 with ON CONFLICT; the book proof is one pass
over all deltas in order of time. It proves less than the real one (no claims, no checkpoints), with the same tables
and keys.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime, timedelta

import psycopg2
import psycopg2.extras

from kalshi_platform.market.tables import PRODUCTION_TABLES

PAGE = 1_000
_TABLE = "orderbook_deltas"


def close_naively(sources: Mapping[str, str], production_url: str, hour: datetime) -> tuple[int, int]:
    """Close the hour; return (rows read from `sources`, deltas in production that were folded)."""
    columns = [name for name in PRODUCTION_TABLES[_TABLE].names if name != "gatherer"]
    names, span = ", ".join(columns), (hour, hour + timedelta(hours=1))
    read = folded = 0
    with contextlib.closing(psycopg2.connect(production_url)) as production:
        for gatherer, url in sources.items():
            with (
                contextlib.closing(psycopg2.connect(url)) as connection,
                connection.cursor("rows") as cursor,
                production.cursor() as target,
            ):
                cursor.itersize = PAGE
                cursor.execute(f"SELECT {names} FROM {_TABLE} WHERE exchange_ts >= %s AND exchange_ts < %s", span)  # noqa: S608
                while rows := cursor.fetchmany(PAGE):
                    psycopg2.extras.execute_values(
                        target,
                        f"INSERT INTO {_TABLE} ({names}, gatherer) VALUES %s ON CONFLICT DO NOTHING",  # noqa: S608
                        [(*row, gatherer) for row in rows],
                        page_size=PAGE,
                    )
                    read += len(rows)
        books: dict[tuple[str, str, int], int] = {}
        with production.cursor("deltas") as cursor:
            cursor.itersize = PAGE
            cursor.execute(
                f"SELECT ticker, side, price_e4, delta_e2 FROM {_TABLE}"  # noqa: S608
                " WHERE exchange_ts >= %s AND exchange_ts < %s ORDER BY exchange_ts",
                span,
            )
            for ticker, side, price_e4, delta_e2 in cursor:
                level = ticker, side, price_e4
                books[level] = books.get(level, 0) + delta_e2
                folded += 1
        production.commit()
    return read, folded
