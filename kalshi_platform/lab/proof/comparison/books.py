"""The book of every market at the end: a checkpoint plus the deltas after it, against the true one. Pure.

Deltas are folded in parts, in any order: only the sum of each level is kept. The fold is the proof's own on purpose,
and not `market.fold`: the proof must not share a mistake with the code that it judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from kalshi_platform.market.intervals import Interval, holes, intersection

_LEVEL = ("ticker", "side", "price_e4")
SIDES = ("yes", "no")


@dataclass(frozen=True)
class BooksAtEnd:
    """Books at the end of a run, as they were judged.

    `right` and `wrong` books; `open`: markets whose record has a hole after the last checkpoint, or has no checkpoint;
    `unexplained`: those of `open` whose hole, or whose record without any checkpoint, meets no injected fault.
    """

    right: int
    wrong: tuple[str, ...]
    open: tuple[str, ...]
    unexplained: tuple[str, ...] = ()


class Fold:
    """The books that one store tells: of every market the latest checkpoint, and the deltas after it."""

    def __init__(self, checkpoints: pl.DataFrame) -> None:
        """`checkpoints`: checkpoint_ts, ticker and the four lists."""
        self._latest = (
            checkpoints.with_columns(checkpoint_us=pl.col("checkpoint_ts").dt.epoch("us"))
            .sort("checkpoint_us")
            .unique("ticker", keep="last", maintain_order=True)
        )
        self.starts: dict[str, int] = dict(self._latest.select("ticker", "checkpoint_us").iter_rows())
        self._levels = summed(pl.concat([exploded(self._latest, side) for side in SIDES]))

    def add(self, deltas: pl.DataFrame) -> None:
        """Take deltas in natural columns."""
        later = (
            deltas.join(self._latest.select("ticker", "checkpoint_us"), on="ticker")
            .filter(pl.col("exchange_us") > pl.col("checkpoint_us"))
            .select(*_LEVEL, pl.col("delta_e2").alias("count_e2"))
            .with_columns(pl.col("price_e4", "count_e2").cast(pl.Int64))
        )
        self._levels = summed(pl.concat([self._levels, later]))

    def levels(self) -> pl.DataFrame:
        """The levels that are not empty: ticker, side, price_e4, count_e2."""
        return self._levels.filter(pl.col("count_e2") != 0)


def books_at_end(
    tickers: Sequence[str],
    truth: pl.DataFrame,
    fold: Fold,
    claims: Mapping[str, list[Interval]],
    last_us: Mapping[str, int],
    near: Sequence[Interval],
) -> BooksAtEnd:
    """Compare every market's folded book with the true last one.

    `truth`: ticker, side, price_e4, count_e2. `claims`: the union over gatherers. `last_us`: time of each market's last
    published delta, where it had one: up to there its record must be whole. `near`: the windows of injected faults.
    """
    folded, starts = fold.levels(), fold.starts
    true = truth.filter(pl.col("count_e2") != 0).select(*_LEVEL, pl.col("count_e2").cast(pl.Int64))
    differing = set(
        pl.concat([true.join(folded, on=true.columns, how="anti"), folded.join(true, on=true.columns, how="anti")])[
            "ticker"
        ].to_list()
    )
    wrong, still_open, unexplained, right = [], [], [], 0
    for ticker in sorted(tickers):
        start = starts.get(ticker)
        if start is None or _is_open(claims.get(ticker, []), start, last_us.get(ticker, start)):
            # What nobody claims is not promised, but neither is it wrong when it is right.
            if start is not None and ticker not in differing:
                right += 1
            else:
                still_open.append(ticker)
                if not _is_near(claims.get(ticker, []), start, last_us.get(ticker), near):
                    unexplained.append(ticker)
        elif ticker in differing:
            wrong.append(ticker)
        else:
            right += 1
    return BooksAtEnd(right, tuple(wrong), tuple(still_open), tuple(unexplained))


def _is_open(claims: Sequence[Interval], start: int, last: int) -> bool:
    # The last delta itself is never claimed by its own stream: the run may have ended inside its microsecond.
    return last > start + 1 and bool(holes(claims, (start + 1, last)))


def _is_near(claims: Sequence[Interval], start: int | None, last: int | None, near: Sequence[Interval]) -> bool:
    if last is None or not near:
        return False
    since = near[0][0] if start is None else start + 1
    return bool(intersection(holes(claims, (since, last)), list(near))) if since < last else False


def exploded(checkpoints: pl.DataFrame, side: str, *more: str) -> pl.DataFrame:
    """One side of checkpointed books, a row per level: ticker, side, price_e4, count_e2, and the columns `more`."""
    return (
        checkpoints.select(
            *more,
            "ticker",
            pl.lit(side).alias("side"),
            pl.col(f"{side}_price_e4").alias("price_e4"),
            pl.col(f"{side}_count_e2").alias("count_e2"),
        )
        .explode("price_e4", "count_e2")
        .drop_nulls()
        .with_columns(pl.col("price_e4", "count_e2").cast(pl.Int64))
    )


def summed(levels: pl.DataFrame) -> pl.DataFrame:
    """One row per ticker, side and price."""
    return levels.group_by(_LEVEL).agg(pl.col("count_e2").sum())
