"""The book of one market at one moment: the newest book that is known, and the deltas after it.

The same answer as SQL's book_basis and book_at of production (docs/queries.md). A book is exact where the market's
coverage reaches without a hole from a checkpoint to the moment. Elsewhere the newest book seen, polled ones included,
is the best there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import polars as pl

from kalshi_platform.errors import MissingPartition
from kalshi_platform.lake.datasets import DATASETS, Dataset
from kalshi_platform.lake.layout import Partition, partition_at
from kalshi_platform.lake.reader.coverage import DELTAS, CoverageHole, find_holes, require_whole
from kalshi_platform.lake.reader.source import AbsentPartition, Holes, Selection, Source, make_source
from kalshi_platform.lake.store import Lake
from kalshi_platform.market.fold import SIDES, sum_levels
from kalshi_platform.market.times import datetime_from_us

BookState: TypeAlias = Literal["proven", "approximate", "unknown"]
CHECKPOINTS, SNAPSHOTS = DATASETS["raw/book_checkpoints"], DATASETS["raw/orderbook_snapshots"]
LOOK_BACK = timedelta(hours=24)
_US = timedelta(microseconds=1)
_LEVELS = ("yes_price_e4", "yes_count_e2", "no_price_e4", "no_count_e2")
_SCALED = {"side": pl.String, "price_e4": pl.Int32, "count_e2": pl.Int64}


@dataclass(frozen=True)
class Book:
    """A market's book at the end of `at`. `levels`: side, price_e4, count_e2, ascending; bids of both outcomes.

    `state`: see SQL's book_basis. `base`: the kind of book that it is folded from (checkpoint, ws, rest, …), seen at
    `base_ts`. `uncovered_from`: since when something may be missing after the newest checkpoint.
    """

    ticker: str
    at: datetime
    state: BookState
    levels: pl.DataFrame
    base: str | None = None
    base_ts: datetime | None = None
    uncovered_from: datetime | None = None

    @property
    def exact(self) -> bool:
        """Whether it is known to be the exchange's book."""
        return self.state == "proven"


class _Base(NamedTuple):
    kind: str
    moment: datetime
    levels: pl.DataFrame


def find_book(
    lake: Lake | Source,
    ticker: str,
    at: datetime,
    *,
    open: bool = False,
    production_url: str | None = None,
    look_back: timedelta = LOOK_BACK,
) -> Book:
    """Find the book of one market at the end of `at`, whatever is known of it; `unknown` has no levels."""
    with make_source(lake, open=open, production_url=production_url).session() as source:
        return _find_book(source, ticker, at, look_back)[0]


def book_at(
    lake: Lake | Source,
    ticker: str,
    at: datetime,
    *,
    holes: Holes = "raise",
    open: bool = False,
    production_url: str | None = None,
    look_back: timedelta = LOOK_BACK,
) -> pl.DataFrame:
    """The book of one market at the end of `at`: one row per level, `side, price_e4, count_e2`, ascending.

    `base`, `base_ts` (what it is folded from) and `exact` come with every row. Raises MissingPartition when no book is
    known within `look_back`, HoleInRange when the book is not exact; with `holes="mark"` it gives the best book there
    is instead, with `exact = False`.
    """
    with make_source(lake, open=open, production_url=production_url).session() as source:
        book, lost = _find_book(source, ticker, at, look_back)
    if book.state == "unknown":
        raise MissingPartition(f"no book of {ticker} in the {look_back} before {at.isoformat()} is known")
    if holes == "raise" and not book.exact:
        require_whole(lost, f"the book of {ticker} at {at.isoformat()} is not exact")
        negative = book.levels.filter(pl.col("count_e2") < 0)
        if negative.height:
            side, price_e4, count_e2 = negative.row(0)
            what = f"its {side} level at {price_e4} is {count_e2}"
        else:
            what = f"it has no checkpoint in the {look_back} before"
        raise MissingPartition(f"the book of {ticker} at {at.isoformat()} lacks changes: {what}")
    return book.levels.with_columns(
        base=pl.lit(book.base, pl.String),
        base_ts=pl.lit(book.base_ts, pl.Datetime("us", "UTC")),
        exact=pl.lit(book.exact),
    )


def yes_book_at(
    lake: Lake | Source,
    ticker: str,
    at: datetime,
    *,
    holes: Holes = "raise",
    open: bool = False,
    production_url: str | None = None,
    look_back: timedelta = LOOK_BACK,
) -> pl.DataFrame:
    """The same book seen from yes: `side` (bid or ask), `price_dollars`, `contracts`, `exact`, best price first."""
    book = book_at(lake, ticker, at, holes=holes, open=open, production_url=production_url, look_back=look_back)
    return yes_levels(book)


def yes_levels(levels: pl.DataFrame) -> pl.DataFrame:
    """Levels (side, price_e4, count_e2) seen from yes: side, price_dollars, contracts, best first; and `exact`."""
    is_yes, is_bid = pl.col("side") == "yes", pl.col("side") == "bid"
    seen = levels.with_columns(
        side=pl.when(is_yes).then(pl.lit("bid")).otherwise(pl.lit("ask")),
        price_e4=pl.when(is_yes).then("price_e4").otherwise(10_000 - pl.col("price_e4")),
    )
    best_first = pl.when(is_bid).then(-pl.col("price_e4")).otherwise("price_e4")
    return seen.sort("side", best_first).select(
        "side",
        to_decimal("price_e4", 9, 4).alias("price_dollars"),
        to_decimal("count_e2", 18, 2).alias("contracts"),
        *(name for name in ("exact",) if name in levels.columns),
    )


def to_decimal(column: str, precision: int, scale: int) -> pl.Expr:
    """An integer column of the smallest unit as exact decimals."""
    return (pl.col(column).cast(pl.Decimal(38, 0)) / pl.lit(10**scale).cast(pl.Decimal(38, scale))).cast(
        pl.Decimal(precision, scale)
    )


def _find_book(source: Source, ticker: str, at: datetime, look_back: timedelta) -> tuple[Book, list[CoverageHole]]:
    checkpoint = _newest_checkpoint(source, ticker, at, look_back)
    lost: list[CoverageHole] = []
    if checkpoint is not None:
        lost = find_holes(source, checkpoint.moment + _US, at + _US, [ticker], explain=False)
    base, is_proven = checkpoint, checkpoint is not None and not lost
    if not is_proven:
        seen = _newest_seen(source, ticker, at, look_back)
        if seen is not None and (base is None or seen.moment > base.moment):
            base = seen
    if base is None:
        return Book(ticker, at, "unknown", pl.DataFrame(schema=_SCALED)), lost
    changes = _deltas(source, ticker, base.moment + _US, at + _US)
    levels = sum_levels(pl.concat([base.levels, changes]), ())
    if levels.select((pl.col("count_e2") < 0).any()).item():
        is_proven = False
    uncovered_from = datetime_from_us(lost[0].from_us) if lost else None
    state: BookState = "proven" if is_proven else "approximate"
    return Book(ticker, at, state, levels, base.kind, base.moment, uncovered_from), lost


def _deltas(source: Source, ticker: str, start: datetime, end: datetime) -> pl.DataFrame:
    columns = ("side", "price_e4", "delta_e2")
    frames = [pl.DataFrame(schema=_SCALED)]
    for found in source.find(DELTAS, start, end):
        if not isinstance(found, AbsentPartition):
            rows, _ = source.read(found, Selection(start, end, (ticker,), columns))
            frames.append(cast(pl.DataFrame, pl.from_arrow(rows)).rename({"delta_e2": "count_e2"}))
    return pl.concat(frames)


def _newest_checkpoint(source: Source, ticker: str, at: datetime, look_back: timedelta) -> _Base | None:
    """The last checkpoint at or before `at`."""
    columns = ("checkpoint_ts", "gatherer", "stream_id", "seq", *_LEVELS)
    for partition in _hours_before(CHECKPOINTS, at, look_back):
        rows = _read(source, partition, ticker, at, look_back, columns)
        if rows.height:
            best = rows.sort(pl.col("checkpoint_ts"), descending=True, maintain_order=True).filter(
                pl.col("checkpoint_ts") == pl.col("checkpoint_ts").max()
            )
            row = best.sort("gatherer", "stream_id", "seq").row(0, named=True)
            return _Base("checkpoint", row["checkpoint_ts"], _levels(row))
    return None


def _newest_seen(source: Source, ticker: str, at: datetime, look_back: timedelta) -> _Base | None:
    """The last book that was sent or polled. A polled one is stored under its minute and was received within it."""
    columns = ("snapshot_ts", "source", "received_at", *_LEVELS)
    for partition in _hours_before(SNAPSHOTS, at, look_back):
        rows = _read(source, partition, ticker, at, look_back, columns).filter(pl.col("received_at") <= at)
        if rows.height:
            row = rows.sort("snapshot_ts", "received_at", descending=True).row(0, named=True)
            return _Base(row["source"], row["received_at"], _levels(row))
    return None


def _hours_before(data: Dataset, at: datetime, look_back: timedelta) -> Iterator[Partition]:
    """Yield the hours from that of `at` back, as far as `look_back`."""
    partition = partition_at(data, at)
    while partition.end > at - look_back:
        yield partition
        partition = Partition(data, partition.start - data.span)


def _read(
    source: Source, partition: Partition, ticker: str, at: datetime, look_back: timedelta, columns: tuple[str, ...]
) -> pl.DataFrame:
    """Rows of a market after at − look_back and up to `at`."""
    found = source.find_one(partition)
    if isinstance(found, AbsentPartition):
        return pl.DataFrame(schema={name: pl.Datetime("us", "UTC") for name in columns})
    rows, _ = source.read(found, Selection(at - look_back + _US, at + _US, (ticker,), columns))
    return cast(pl.DataFrame, pl.from_arrow(rows))


def _levels(row: dict[str, Any]) -> pl.DataFrame:
    rows = [
        (side, price_e4, count_e2)
        for side in SIDES
        for price_e4, count_e2 in zip(row[f"{side}_price_e4"], row[f"{side}_count_e2"], strict=True)
    ]
    return pl.DataFrame(rows, schema=_SCALED, orient="row")
