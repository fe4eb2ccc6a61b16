"""Rows that cannot be in production, and where they go instead: `dead_letters`, with an alarm.

Nothing is claimed of them: a claim that counts a row which production lacks is withdrawn by the close's comparison; a
change of a book whose time cannot be is noted with its receipt, around which the close claims nothing of the market.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from kalshi_platform.deduplicator.merge import alarms, hour_activity
from kalshi_platform.market.names import LONGEST_NAME
from kalshi_platform.market.tables import PRODUCTION_TABLES
from kalshi_platform.market.times import us_from_datetime
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Transaction

REFUSED = "refused"
NO_PARTITION = "no_partition"
OUT_OF_BOUNDS = "out_of_bounds"
MISDATED = "misdated"
NAME_TOO_LONG = "name_too_long"
LETTERS_KEPT = 5_000
"""Of one gatherer and table; further rows are only counted in the alarm."""
_EXCHANGE_TIMED = ("orderbook_deltas", "trades", "tickers")
_NAMES = ("ticker", "trade_id")
_PAYLOAD_CHARS = 100_000
_MICROSECOND = timedelta(microseconds=1)
_BEFORE_RECEIPT = timedelta(minutes=1)


class Aside(NamedTuple):
    """Rows of one table, each with its `gatherer`, that go aside for one reason."""

    table: str
    rows: pl.DataFrame
    reason: str
    detail: str


def nameable(table: str, rows: pl.DataFrame) -> tuple[pl.DataFrame, list[Aside]]:
    """Take out rows whose names are longer than a key of production may hold for sure."""
    names = [name for name in _NAMES if name in rows.columns]
    longest = rows.select(pl.max_horizontal(pl.col(name).str.len_chars().max() for name in names)).item()
    if longest is None or longest <= LONGEST_NAME:
        return rows, []
    fits = pl.all_horizontal(pl.col(name).str.len_chars() <= LONGEST_NAME for name in names)
    detail = f"a name has more than {LONGEST_NAME} characters"
    return rows.filter(fits), [Aside(table, rows.filter(~fits), NAME_TOO_LONG, detail)]


def believed(table: str, gatherer: str, rows: pa.Table, bounds: PartitionBounds) -> tuple[pa.Table, list[Aside]]:
    """Take out rows of a gatherer (in its columns) that are dated far from their receipt, and stand alone with that in
    their stream.

    A capture that is played again is far from its receipt as a whole, and is believed.
    """
    if table not in _EXCHANGE_TIMED or not rows.num_rows:
        return rows, []
    late = pc.subtract(rows.column("received_at"), rows.column("exchange_ts"))
    extremes = pc.min_max(late.cast(pa.int64())).as_py()
    if extremes["min"] >= -(bounds.ahead // _MICROSECOND) and extremes["max"] <= bounds.behind // _MICROSECOND:
        return rows, []
    before, after = (pl.col("exchange_ts").shift(places).over("stream_id", order_by="seq") for places in (1, -1))
    near = [(pl.col("exchange_ts") - other).is_between(-bounds.behind, bounds.ahead) for other in (before, after)]
    alone = ~pl.any_horizontal(each.fill_null(value=False) for each in near)
    # REST rows are of no stream; and where nothing else of a stream is there, nothing contradicts it.
    alone &= (pl.col("stream_id") != 0) & (before.is_not_null() | after.is_not_null())
    is_late = ~(pl.col("received_at") - pl.col("exchange_ts")).is_between(-bounds.ahead, bounds.behind)
    frame = pl.DataFrame(rows)
    is_far = frame.select((is_late & alone).alias("far")).get_column("far")
    if not is_far.any():
        return rows, []
    detail = "dated far from its receipt, and far from the rows beside it in its stream"
    far = frame.filter(is_far).with_columns(gatherer=pl.lit(gatherer))
    return rows.filter((~is_far).to_arrow()), [Aside(table, far, MISDATED, detail)]


def put(transaction: Transaction, asides: Iterable[Aside], *, is_close: bool = False) -> None:
    """Put rows aside. Outside of a close, closed hours that rest on them are opened again, and an alarm is raised."""
    for aside in asides:
        for (gatherer,), part in aside.rows.group_by("gatherer", maintain_order=True):
            _put_letters(transaction, str(gatherer), aside, part)
            if not is_close:
                detail = f"{part.height} rows were put aside in dead_letters ({aside.reason}): {aside.detail}"
                alarms.raise_alarm(transaction, alarms.ROWS_REFUSED, f"{gatherer} {aside.table}", detail)
        if is_close:
            continue
        times = aside.rows.get_column(PRODUCTION_TABLES[aside.table].time_column)
        if aside.reason in (MISDATED, OUT_OF_BOUNDS):
            received = aside.rows.get_column("received_at")
            times = pl.concat([received, received - _BEFORE_RECEIPT])
            if aside.table == "orderbook_deltas":
                _note_misdated(transaction, aside.rows)
        hour_activity.reopen_hours(transaction, times.dt.truncate("1h").unique().to_list())


def misdated_around(transaction: Transaction, low: datetime, high: datetime) -> list[tuple[str, int, int, str]]:
    """(ticker, from, to, reason) of spans in [low, high), in µs, in which a change of a book lies whose time cannot be:
    the last minute before its receipt."""
    rows = transaction.fetch_all(
        "SELECT ticker, first_received_at, last_received_at, deltas FROM misdated_deltas"
        " WHERE hour >= %(low)s AND hour <= %(high)s AND first_received_at - %(before)s < %(high)s"
        " AND last_received_at >= %(low)s ORDER BY 1, 2",
        {"low": low, "high": high, "before": _BEFORE_RECEIPT},
    )
    return [
        (ticker, us_from_datetime(first - _BEFORE_RECEIPT), us_from_datetime(last) + 1,
         f"{deltas} changes of the book were put aside, of a time that cannot be")
        for ticker, first, last, deltas in rows
    ]  # fmt: skip


def _put_letters(transaction: Transaction, gatherer: str, aside: Aside, rows: pl.DataFrame) -> None:
    held = transaction.fetch_one(
        "SELECT count(*) FROM dead_letters WHERE gatherer = %s AND table_name = %s", (gatherer, aside.table)
    )
    room = max(0, LETTERS_KEPT - (int(held[0]) if held else 0))
    payloads = [_payload(row) for row in rows.head(room).iter_rows(named=True)]
    detail = aside.detail.replace("\x00", "")[:1_000]
    transaction.execute_values(
        "INSERT INTO dead_letters (gatherer, table_name, fingerprint, reason, detail, payload) VALUES %s"
        " ON CONFLICT (gatherer, table_name, fingerprint)"
        " DO UPDATE SET reason = excluded.reason, detail = excluded.detail",
        [(gatherer, aside.table, text, aside.reason, detail, text) for text in dict.fromkeys(payloads)],
        "(%s, %s, md5(%s)::uuid, %s, %s, %s)",
    )


def _note_misdated(transaction: Transaction, rows: pl.DataFrame) -> None:
    noted = (
        rows.group_by(pl.col("received_at").dt.truncate("1h").alias("hour"), "ticker")
        .agg(pl.len(), pl.col("received_at").min().alias("first"), pl.col("received_at").max().alias("last"))
        .filter(pl.col("ticker").str.len_chars() <= LONGEST_NAME)
    )
    transaction.execute_values(
        "INSERT INTO misdated_deltas AS t (hour, ticker, deltas, first_received_at, last_received_at) VALUES %s"
        " ON CONFLICT (hour, ticker) DO UPDATE SET deltas = t.deltas + excluded.deltas,"
        " first_received_at = least(t.first_received_at, excluded.first_received_at),"
        " last_received_at = greatest(t.last_received_at, excluded.last_received_at)",
        noted.rows(),
    )


def _payload(row: Mapping[str, object]) -> str:
    # JSON escapes what PostgreSQL's text cannot hold.
    return msgspec.json.encode(row).decode()[:_PAYLOAD_CHARS]
