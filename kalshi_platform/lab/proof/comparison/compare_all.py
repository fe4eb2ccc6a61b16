"""One walk over all rows of a run, in parts of time: what differs is kept, what is equal is forgotten.

A part holds about `ROWS_AT_ONCE` deltas of each store at a time, so memory does not grow with the run, but for 20 bytes
of every delta and for what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import polars as pl

from kalshi_platform.lab.proof.comparison.books import Fold
from kalshi_platform.lab.proof.comparison.checkpoints import CheckpointCheck
from kalshi_platform.lab.proof.comparison.compare import Comparison, Difference
from kalshi_platform.lab.proof.comparison.lost_rows import Feeds, lost_of
from kalshi_platform.lab.proof.comparison.tables import DELTAS, TICKERS, TIMED_TABLES, TRADES, ComparableTable
from kalshi_platform.lab.proof.comparison.truth import Truth
from kalshi_platform.market.intervals import Interval

ROWS_AT_ONCE = 200_000
Rows: TypeAlias = Callable[[ComparableTable, Interval], pl.DataFrame]
"""All rows of a store's table that lie in a part of time, in natural columns."""


@dataclass(frozen=True)
class GathererRows:
    """One gatherer: its deltas of a part of time as `recorded.gatherer_deltas` gives them, and the books it was sent.

    `served`: n, ticker.
    """

    deltas: Callable[[Interval], pl.DataFrame]
    served: pl.DataFrame


@dataclass(frozen=True)
class ComparedAll:
    """What the walk kept.

    Differences by table; `lost`: gatherer → numbers of the deltas that it did not store, and `lost_rows` → ticker,
    exchange_us of the same. `last_us`: ticker → time of its last published delta. `best_seen`: of deltas that seemed to
    be missing, natural columns and how often the gatherer that saw most of each saw it.
    """

    parts: list[Interval]
    production: Mapping[str, Difference]
    lake: Mapping[str, Difference]
    feeds: Feeds
    lost: Mapping[str, list[int]]
    lost_rows: Mapping[str, pl.DataFrame]
    last_us: Mapping[str, int]
    best_seen: pl.DataFrame


def compare_all(
    truth: Truth,
    production: tuple[Rows, Fold],
    lake: tuple[Rows, Fold],
    checkpoints: Sequence[CheckpointCheck],
    gatherers: Mapping[str, GathererRows],
    indices: Mapping[str, int],
    rows_at_once: int = ROWS_AT_ONCE,
) -> ComparedAll:
    """Compare everything that has a time; fold both stores' deltas into the books; show the truth to `checkpoints`."""
    compared = {store: {table.name: Comparison(table) for table in TIMED_TABLES} for store in ("production", "lake")}
    stores = {"production": production, "lake": lake}
    feeds = Feeds(indices)
    lost: dict[str, list[int]] = {name: [] for name in gatherers}
    lost_rows: dict[str, list[pl.DataFrame]] = {name: [] for name in gatherers}
    last_us: dict[str, int] = {}
    best: list[pl.DataFrame] = []
    parts = truth.parts(rows_at_once)
    published = {DELTAS.name: truth.deltas, TRADES.name: truth.trades, TICKERS.name: truth.tickers}
    for part in parts:
        for table in TIMED_TABLES:
            told = published[table.name](part)
            missing: dict[str, pl.DataFrame] = {}
            for store, (rows, fold) in stores.items():
                found = rows(table, part)
                missing[store] = compared[store][table.name].add(told, found)
                if table is DELTAS:
                    fold.add(found)
            if table is DELTAS:
                feeds.add(told)
                for check in checkpoints:
                    check.add(part, told)
                last_us |= dict(told.group_by("ticker").agg(pl.col("exchange_us").max()).iter_rows())
                lacking = missing["production"].unique()
                for name, gatherer in gatherers.items():
                    seen = gatherer.deltas(part)
                    numbers = lost_of(told.select("n", *DELTAS.columns), seen, gatherer.served)
                    lost[name] += numbers
                    lost_rows[name].append(told.filter(pl.col("n").is_in(numbers)).select("ticker", "exchange_us"))
                    best.append(seen.join(lacking, on=DELTAS.columns, how="semi"))
    return ComparedAll(
        parts=parts,
        production={name: each.result() for name, each in compared["production"].items()},
        lake={name: each.result() for name, each in compared["lake"].items()},
        feeds=feeds,
        lost=lost,
        lost_rows={name: pl.concat(rows) for name, rows in lost_rows.items()},
        last_us=last_us,
        best_seen=_most(best),
    )


def _most(seen: list[pl.DataFrame]) -> pl.DataFrame:
    columns = list(DELTAS.columns)
    if not seen:
        return pl.DataFrame(schema=[*columns, "seen"])
    return pl.concat(seen).group_by(columns).agg(pl.col("seen").max())
