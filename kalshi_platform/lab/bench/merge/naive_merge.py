"""The naive merge: one gatherer after the other, a named cursor, `execute_values` of 1,000, the server decides.

The same tables, keys, batch cursors and production transaction as the real one: what it writes is right, only slowly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import psycopg2
import psycopg2.extras

from kalshi_platform.market.tables import PRODUCTION_TABLES

PAGE = 1_000
_TABLE = "orderbook_deltas"


def merge_naively(sources: Mapping[str, str], production_url: str) -> tuple[int, int]:
    """Merge all deltas of `sources` (name → URL) in one transaction; return (rows read, rows inserted)."""
    columns = [name for name in PRODUCTION_TABLES[_TABLE].names if name != "gatherer"]
    names = ", ".join(columns)
    read = inserted = 0
    with contextlib.closing(psycopg2.connect(production_url)) as production, production.cursor() as target:
        for gatherer, url in sources.items():
            with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor("rows") as cursor:
                cursor.itersize = PAGE
                cursor.execute(f"SELECT {names} FROM {_TABLE} WHERE batch_no > 0 ORDER BY batch_no")  # noqa: S608
                while rows := cursor.fetchmany(PAGE):
                    psycopg2.extras.execute_values(
                        target,
                        f"INSERT INTO {_TABLE} ({names}, gatherer) VALUES %s ON CONFLICT DO NOTHING",  # noqa: S608
                        [(*row, gatherer) for row in rows],
                        page_size=PAGE,
                    )
                    read += len(rows)
                    inserted += target.rowcount
        production.commit()
    return read, inserted
