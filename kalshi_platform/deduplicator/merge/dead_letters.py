"""Quarantines rows that cannot be in production: they go to `dead_letters`, with an alarm.

Nothing is claimed of them: a claim that counts a row which production lacks is withdrawn by the close's comparison; a
delta with an implausible exchange time is recorded by its receipt, around which the close claims nothing of the market.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
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
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

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


class QuarantinedRows(NamedTuple):
    """Rows of one table, each with its `gatherer`, that are quarantined for one reason."""

    table: str
    rows: pl.DataFrame
    reason: str
    detail: str


def split_long_names(table: str, rows: pl.DataFrame) -> tuple[pl.DataFrame, list[QuarantinedRows]]:
    """Split off rows whose names are longer than a key of production may hold for sure: (rows kept, quarantined)."""
    names = [name for name in _NAMES if name in rows.columns]
    longest = rows.select(pl.max_horizontal(pl.col(name).str.len_chars().max() for name in names)).item()
    if longest is None or longest <= LONGEST_NAME:
        return rows, []
    fits = pl.all_horizontal(pl.col(name).str.len_chars() <= LONGEST_NAME for name in names)
    detail = f"a name has more than {LONGEST_NAME} characters"
    return rows.filter(fits), [QuarantinedRows(table, rows.filter(~fits), NAME_TOO_LONG, detail)]


def split_implausible_times(
    table: str, gatherer: str, rows: pa.Table, bounds: PartitionBounds
) -> tuple[pa.Table, list[QuarantinedRows]]:
    """Split off rows of a gatherer (in its columns) whose exchange time is implausible: (rows kept, quarantined).

    It is far from their receipt and from the rows beside them in their stream. A capture that is played again is far
    from its receipt as a whole, and is kept.
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
    return rows.filter((~is_far).to_arrow()), [QuarantinedRows(table, far, MISDATED, detail)]


def write_dead_letters(transaction: Transaction, rows: Iterable[QuarantinedRows], *, is_close: bool = False) -> None:
    """Write rows to `dead_letters`. Outside of a close, raise an alarm and reopen closed hours that rest on them."""
    for quarantined in rows:
        for (gatherer,), part in quarantined.rows.group_by("gatherer", maintain_order=True):
            _write_letters(transaction, str(gatherer), quarantined, part)
            if not is_close:
                detail = f"{part.height} rows went to dead_letters ({quarantined.reason}): {quarantined.detail}"
                alarms.raise_alarm(transaction, alarms.ROWS_REFUSED, f"{gatherer} {quarantined.table}", detail)
        if is_close:
            continue
        times = quarantined.rows.get_column(PRODUCTION_TABLES[quarantined.table].time_column)
        if quarantined.reason in (MISDATED, OUT_OF_BOUNDS):
            received = quarantined.rows.get_column("received_at")
            times = pl.concat([received, received - _BEFORE_RECEIPT])
            if quarantined.table == "orderbook_deltas":
                _record_misdated(transaction, quarantined.rows)
        hour_activity.reopen_hours(transaction, times.dt.truncate("1h").unique().to_list())


def read_misdated_spans(transaction: Transaction, low: datetime, high: datetime) -> list[tuple[str, int, int, str]]:
    """Read the spans of [low, high) in which a delta of implausible exchange time may belong.

    Returns (ticker, from_us, to_us, reason); a span is the minute before the delta's receipt.
    """
    rows = transaction.fetch_all(_SQL["find_misdated_deltas"], {"low": low, "high": high, "before": _BEFORE_RECEIPT})
    return [
        (ticker, us_from_datetime(first - _BEFORE_RECEIPT), us_from_datetime(last) + 1,
         f"{deltas} deltas of the book were quarantined for an implausible exchange time")
        for ticker, first, last, deltas in rows
    ]  # fmt: skip


def _write_letters(transaction: Transaction, gatherer: str, quarantined: QuarantinedRows, rows: pl.DataFrame) -> None:
    held = transaction.fetch_one(_SQL["count_dead_letters"], (gatherer, quarantined.table))
    room = max(0, LETTERS_KEPT - (int(held[0]) if held else 0))
    payloads = [_payload(row) for row in rows.head(room).iter_rows(named=True)]
    detail = quarantined.detail.replace("\x00", "")[:1_000]
    transaction.execute_values(
        _SQL["upsert_dead_letters"],
        [(gatherer, quarantined.table, text, quarantined.reason, detail, text) for text in dict.fromkeys(payloads)],
        "(%s, %s, md5(%s)::uuid, %s, %s, %s)",
    )


def _record_misdated(transaction: Transaction, rows: pl.DataFrame) -> None:
    noted = (
        rows.group_by(pl.col("received_at").dt.truncate("1h").alias("hour"), "ticker")
        .agg(pl.len(), pl.col("received_at").min().alias("first"), pl.col("received_at").max().alias("last"))
        .filter(pl.col("ticker").str.len_chars() <= LONGEST_NAME)
    )
    transaction.execute_values(_SQL["record_misdated_deltas"], noted.rows())


def _payload(row: Mapping[str, object]) -> str:
    # JSON escapes what PostgreSQL's text cannot hold.
    return msgspec.json.encode(row).decode()[:_PAYLOAD_CHARS]
