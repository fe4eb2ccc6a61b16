"""Everything that a finished run left behind → findings. Reads, compares, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import polars as pl

from kalshi_platform.config import PlatformSettings
from kalshi_platform.deduplicator.coverage import read_claims
from kalshi_platform.market.coverage import Interval, holds, union
from kalshi_platform.market.times import datetime_from_us
from kalshi_platform.proof import recorded
from kalshi_platform.proof.books import BooksAtEnd, books_at_end
from kalshi_platform.proof.compare import Difference, compare
from kalshi_platform.proof.holes import Claims, HoleAccount, account, missed_by, missed_by_all, united
from kalshi_platform.proof.inject import InjectedFault
from kalshi_platform.proof.tables import DELTAS, LIFECYCLE, MARKETS, REQUIRED, STREAM_TABLES
from kalshi_platform.proof.truth import Truth, read_truth
from kalshi_platform.proof.windows import Unexplained, unexplained, windows

_SECOND_US = 1_000_000
NEWS_US = 5_000_000
_BREAKING = ("cut", "unknown_frame", "error_25")
ENDS_MARGIN_US = 2_500_000
"""Left out of the account of holes at the start and end of a market: claims need a margin there, whatever happens."""


@dataclass(frozen=True)
class TableFinding:
    """One table: rows published, rows of production and of the lake (None where the lake has no such table)."""

    name: str
    truth: int
    production: Difference
    lake: Difference | None

    @property
    def missing(self) -> int:
        """The worse of production and lake; likewise `doubled` and `wrong`."""
        return max(each.missing.height for each in self.stores)

    @property
    def doubled(self) -> int:
        return max(each.doubled.height for each in self.stores)

    @property
    def wrong(self) -> int:
        return max(each.wrong.height for each in self.stores)

    @property
    def stores(self) -> tuple[Difference, ...]:
        return (self.production,) if self.lake is None else (self.production, self.lake)


@dataclass(frozen=True)
class Findings:
    """`merge_lost`: deltas that some gatherer stored as often as published, and production lacks.

    `undeclared_messages`: missing trades, tickers and lifecycle events of a time at which a connection lived, or of one
    with no fault near. `recorded_spans` by gatherer, for people. `unexplained`: losses of books with no fault near.
    `ledger`: the exchange's rows of the whole run by kind, as its own count names them.
    """

    tables: Sequence[TableFinding]
    holes: HoleAccount
    books: BooksAtEnd
    lake_books: BooksAtEnd
    merge_lost: int
    undeclared_messages: int
    recorded_spans: Mapping[str, Sequence[Interval]]
    unexplained: Sequence[Unexplained] = ()
    ledger: Mapping[str, int] = field(default_factory=dict)


def examine(
    settings: PlatformSettings, truth_folder: Path, lake_folder: Path, run: Interval, faults: Sequence[InjectedFault]
) -> Findings:
    """Compare what the stack stored with what was published in `run` (µs of the exchange's clock), in memory.

    `faults` are those that were injected: what was lost must lie near one of them.

    Raises DatabaseUnavailable when a database is away.
    """
    truth = read_truth(truth_folder, run[0])
    production_url = settings.deduplicator.production_url
    in_production = recorded.production(production_url)
    published = dict(truth.tables)
    published[MARKETS.name], in_production[MARKETS.name] = _forgive_news(
        truth, in_production[MARKETS.name], run[1] - NEWS_US
    )
    in_lake = recorded.lake(lake_folder)
    tables = [
        TableFinding(
            table.name,
            int(published[table.name][REQUIRED].sum()),
            compare(table, published[table.name], in_production[table.name]),
            compare(table, published[table.name], in_lake[table.name]) if table.name in in_lake else None,
        )
        for table in (*STREAM_TABLES, MARKETS)
    ]
    deltas = truth.tables[DELTAS.name]
    claims = _claims(settings, deltas, run)
    both = united(claims)
    seen = {name: recorded.gatherer_deltas(each.timeseries_url) for name, each in settings.gatherers.items()}
    spans = {name: recorded.gatherer_spans(each.timeseries_url) for name, each in settings.gatherers.items()}
    needed = _needed(truth, seen, recorded.exchange_indices(production_url))
    missing = tables[0].production.missing
    margin_us = max(ENDS_MARGIN_US, 2 * settings.deduplicator.margin_us)
    lives = _lives(truth.markets, run)
    near = windows(faults)
    missed = missed_by_all(list(needed.values()))
    return Findings(
        tables=tables,
        holes=account(both, lives, deltas, missing, list(needed.values()), margin_us),
        books=_books(truth, recorded.production_anchors(production_url), in_production[DELTAS.name], both, near),
        lake_books=_books(truth, recorded.lake_anchors(lake_folder), in_lake[DELTAS.name], both, near),
        merge_lost=_merge_lost(deltas, missing, list(seen.values())),
        undeclared_messages=undeclared_messages(tables, truth.tables, list(spans.values()), near),
        recorded_spans={name: each[DELTAS.name] for name, each in spans.items()},
        unexplained=unexplained(lives, run[0], margin_us, missing, missed, near),
        ledger=truth.ledger,
    )


def _forgive_news(truth: Truth, markets: pl.DataFrame, since_us: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Leave out of both catalogs the markets with news after `since_us`: REST is asked about them only afterwards."""
    events = truth.tables[LIFECYCLE.name].filter(pl.col("at_us") >= since_us).select("ticker").unique()
    published = truth.tables[MARKETS.name]
    return published.join(events, on="ticker", how="anti"), markets.join(events, on="ticker", how="anti")


def _claims(settings: PlatformSettings, deltas: pl.DataFrame, run: Interval) -> dict[str, Claims]:
    last = max([run[1], *deltas["exchange_us"].tail(1).to_list()])
    low, high = datetime_from_us(run[0]) - timedelta(minutes=1), datetime_from_us(last) + timedelta(minutes=1)
    dedup = settings.deduplicator
    return {source.name: read_claims(source, low, high, dedup.margin_us) for source in dedup.sources}


def _lives(markets: pl.DataFrame, run: Interval) -> dict[str, Interval]:
    lives = {
        ticker: (max(run[0], opened), min(run[1], closed))
        for ticker, opened, closed in markets.select("ticker", "open_us", "close_us").iter_rows()
    }
    return {ticker: life for ticker, life in lives.items() if life[0] < life[1]}


def _needed(truth: Truth, seen: Mapping[str, pl.DataFrame], indices: Mapping[str, int]) -> dict[str, Claims]:
    columns = ["n", *DELTAS.columns]
    deltas = truth.tables[DELTAS.name].select(columns)
    needed: dict[str, Claims] = {}
    for name, of_gatherer in seen.items():
        served = truth.served.filter(pl.col("user_agent").str.contains(f"({name} ", literal=True))
        lines = set(served["connection"].to_list())
        broken = [
            at_us
            for kind, at_us, effects in truth.faults.select("kind", "at_us", "effects").iter_rows()
            if kind in _BREAKING and any(effect.get("connection") in lines for effect in json.loads(effects))
        ]
        needed[name] = missed_by(deltas, of_gatherer, served.select("n", "ticker"), broken, indices)
    return needed


def _books(
    truth: Truth, anchors: pl.DataFrame, deltas: pl.DataFrame, claims: Claims, near: Sequence[Interval]
) -> BooksAtEnd:
    published = truth.tables[DELTAS.name]
    last_us = dict(published.group_by("ticker").agg(pl.col("exchange_us").max()).iter_rows())
    # A market whose book never moved after it was listed, and never was anything else, has nothing to prove.
    tickers = sorted(set(last_us) | set(truth.last_books["ticker"].to_list()))
    return books_at_end(tickers, truth.last_books, anchors, deltas, claims, last_us, near)


def _merge_lost(truth: pl.DataFrame, missing: pl.DataFrame, seen: Sequence[pl.DataFrame]) -> int:
    columns = list(DELTAS.columns)
    published = truth.group_by(columns).agg(pl.len().cast(pl.Int64).alias("_published"))
    lacking = missing.group_by(columns).agg(pl.len().cast(pl.Int64).alias("_lacking"))
    best = pl.concat(seen).group_by(columns).agg(pl.col("seen").max())
    counted = lacking.join(published, on=columns).join(best, on=columns, how="left")
    # Nobody can know of more copies than the stream that saw most of them.
    avoidable = pl.col("_lacking") - (pl.col("_published") - pl.col("seen").fill_null(0))
    return int(counted.select(avoidable.clip(lower_bound=0).sum()).item() or 0)


def undeclared_messages(
    tables: Sequence[TableFinding],
    truth: Mapping[str, pl.DataFrame],
    spans: Sequence[Mapping[str, Sequence[Interval]]],
    near: Sequence[Interval],
) -> int:
    """Missing rows of channels without claims by market, of moments with no fault near or with a connection.

    The ends of a stream's time are not counted: its first and last millisecond may be half.
    """
    count = 0
    for finding in tables:
        if finding.name in (DELTAS.name, MARKETS.name):
            continue
        lived = union((low + _SECOND_US // 1_000, high) for each in spans for low, high in each.get(finding.name, ()))
        columns = finding.production.missing.columns
        published = truth[finding.name]
        times = finding.production.missing.unique().join(published, on=columns, nulls_equal=True)["at_us"].to_list()
        count += sum(holds(lived, moment) or not holds(near, moment) for moment in times)
    return count
