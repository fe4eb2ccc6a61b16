"""Everything that a finished run left behind → findings. Reads, compares, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import polars as pl

from kalshi_platform.config import PlatformSettings
from kalshi_platform.deduplicator.coverage.gatherer_hour import read_claims
from kalshi_platform.lab.proof.comparison import stored_rows as recorded
from kalshi_platform.lab.proof.comparison.books import BooksAtEnd, Fold, books_at_end
from kalshi_platform.lab.proof.comparison.checkpoints import CheckpointCheck, CheckpointsFound
from kalshi_platform.lab.proof.comparison.compare import Difference, compare
from kalshi_platform.lab.proof.comparison.compare_all import ComparedAll, GathererRows, compare_all
from kalshi_platform.lab.proof.comparison.fault_windows import (
    FORGETTING,
    Unexplained,
    fault_windows,
    is_born_too_late,
    unexplained,
)
from kalshi_platform.lab.proof.comparison.holes import (
    CoverageFound,
    HoleAccount,
    account,
    claimed_losses,
    compare_coverage,
    united,
)
from kalshi_platform.lab.proof.comparison.lost_rows import ALWAYS, Claims, lost_by_all
from kalshi_platform.lab.proof.comparison.sent_frames import SentFound
from kalshi_platform.lab.proof.comparison.tables import AT, DELTAS, LIFECYCLE, MARKETS, TIMED_TABLES
from kalshi_platform.lab.proof.comparison.truth import Truth, read_truth
from kalshi_platform.lab.proof.kinds import InjectedFault
from kalshi_platform.lab.proof.rebuilt import RebuiltRun
from kalshi_platform.market.intervals import Interval, covers, intersection, subtract, union
from kalshi_platform.market.times import datetime_from_us
from kalshi_platform.storage.read import ArrowSnapshot, arrow_snapshot

_SECOND_US = 1_000_000
NEWS_US = 5_000_000
_BREAKING = ("cut", "unknown_frame", "error_25")
_CLAIMS_AT_ONCE = timedelta(minutes=5)
ENDS_MARGIN_US = 2_500_000
"""Left out of the account of holes at the start and end of a market: claims need a margin there, whatever happens."""


MARKETS_ASKED, MOMENTS_ASKED = 12, 7
"""How many books production is asked for at the end."""


@dataclass(frozen=True)
class Aside:
    """What a run had beside itself.

    An hour before it (`past`), of which production's partitions may have been dropped (`dropped`), and books that
    production called proven meanwhile (as `recorded.proven_books` gives them).
    """

    past: Interval | None = None
    dropped: Interval | None = None
    told: Sequence[pl.DataFrame] = ()


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
        """Rows that stand twice, in the store where there are most."""
        return max(each.doubled.height for each in self.stores)

    @property
    def wrong(self) -> int:
        """Rows with wrong values, in the store where there are most."""
        return max(each.wrong.height for each in self.stores)

    @property
    def stores(self) -> tuple[Difference, ...]:
        """The differences of production and, where it holds the table, of the lake."""
        return (self.production,) if self.lake is None else (self.production, self.lake)


@dataclass(frozen=True)
class Findings:
    """What was found out about a run.

    `coverage` is what production states; `holes` are what it leaves open. `merge_lost`: deltas that some gatherer
    stored as often as published, and production lacks.

    `undeclared_messages`: missing trades, tickers and lifecycle events of a time at which a connection lived, or of one
    with no fault near. `recorded_spans` by gatherer, for people. `unexplained`: losses of books with no fault near;
    `unexplained_of`: what a gatherer itself lost with no fault near that was done to it, whoever else has it.
    `ledger`: the exchange's rows of the whole run by kind, as its own count names them. `false_claims` by gatherer: how
    many deltas that it lacks its ledger claims, and of which markets. `told`: books that production called proven, in
    the middle of the run and at its end. `sent`: journals against what the exchange sent; `rebuilt`: the run made again
    from the journals.
    """

    tables: Sequence[TableFinding]
    coverage: CoverageFound
    checkpoints: CheckpointsFound
    lake_checkpoints: CheckpointsFound
    holes: HoleAccount
    books: BooksAtEnd
    lake_books: BooksAtEnd
    merge_lost: int
    undeclared_messages: int
    recorded_spans: Mapping[str, Sequence[Interval]]
    unexplained: Sequence[Unexplained] = ()
    unexplained_of: Mapping[str, Sequence[Unexplained]] = field(default_factory=dict)
    ledger: Mapping[str, int] = field(default_factory=dict)
    false_claims: Mapping[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    told: CheckpointsFound = field(default_factory=lambda: CheckpointsFound(0))
    sent: SentFound = field(default_factory=SentFound)
    rebuilt: RebuiltRun = field(default_factory=RebuiltRun)


def examine(
    settings: PlatformSettings,
    truth_folder: Path,
    lake_folder: Path,
    run: Interval,
    faults: Sequence[InjectedFault],
    aside: Aside | None = None,
) -> Findings:
    """Compare what the stack stored with what was published in `run` (µs of the exchange's clock), in bounded memory.

    `faults` are those that were injected: what was lost must lie near one of them. `aside`: of a run with a past.

    Raises DatabaseUnavailable when a database is away, ProofFailed when the exchange's ledger is not whole.
    """
    aside = aside or Aside()
    truth = read_truth(truth_folder, run[0], aside.past)
    lake = recorded.Lake(lake_folder)
    with ExitStack() as stack:
        production = stack.enter_context(recorded.Production(settings.deduplicator.production_url))
        snapshots = {
            name: stack.enter_context(arrow_snapshot(each.timeseries_url)) for name, each in settings.gatherers.items()
        }
        gatherers = {name: _rows_of(truth, name, snapshot) for name, snapshot in snapshots.items()}
        checkpoints = production.checkpoints(), lake.checkpoints()
        folds = Fold(checkpoints[0]), Fold(checkpoints[1])
        told = pl.concat([*aside.told, _proven_at_end(settings, truth, run)])
        checks = [CheckpointCheck(truth.first_books, each) for each in (*checkpoints, told)]
        indices = production.exchange_indices()
        compared = compare_all(truth, (production.rows, folds[0]), (lake.rows, folds[1]), checks, gatherers, indices)
        tables = _tables(truth, compared, production, lake, run[1] - NEWS_US)
        missing = tables[0].production.missing
        if aside.dropped is not None:
            tables = [_without_dropped(table, aside.dropped) for table in tables]
        spans = {name: recorded.gatherer_spans(snapshot) for name, snapshot in snapshots.items()}
        claims = production.coverage()
    stated = claims
    span = (run[0], max([run[1], *compared.last_us.values()]))
    by_gatherer = _claims(settings, span)
    if aside.past is not None:
        # What is stated of the hour before may rest on ledgers that were dropped since; its rows are compared anyway.
        stated = _since(run[0], claims)
        by_gatherer = {name: _since(run[0], each) for name, each in by_gatherer.items()}
    lost_by_gatherer = {
        name: compared.feeds.lost_rows(compared.lost[name], each.served, _broken_us(truth, name))
        for name, each in gatherers.items()
    }
    margin_us = max(ENDS_MARGIN_US, 2 * settings.deduplicator.max_out_of_orderness_us)
    lives = _lives(truth.markets, run)
    near = fault_windows(faults)
    late = frozenset(ticker for ticker, life in lives.items() if is_born_too_late(life, run[0]))
    books = [_books(truth, fold, claims, compared.last_us, near, late) for fold in folds]
    return Findings(
        tables=tables,
        coverage=compare_coverage(stated, united(by_gatherer)),
        checkpoints=checks[0].result(),
        lake_checkpoints=checks[1].result(),
        holes=account(
            claims, lives, map(truth.deltas, compared.parts), missing, list(lost_by_gatherer.values()), margin_us
        ),
        books=books[0],
        lake_books=books[1],
        merge_lost=merge_lost(tables[0].production, compared.best_seen),
        undeclared_messages=undeclared_messages(
            tables, list(spans.values()), near, fault_windows(faults, kinds=FORGETTING)
        ),
        recorded_spans={name: each[DELTAS.name] for name, each in spans.items()},
        unexplained=unexplained(
            lives, run[0], margin_us, tables[0].production.missing, lost_by_all(list(lost_by_gatherer.values())), near
        ),
        unexplained_of={
            name: unexplained(lives, run[0], margin_us, missing.clear(), each, fault_windows(faults, name))
            for name, each in lost_by_gatherer.items()
        },
        ledger=truth.ledger,
        false_claims={name: claimed_losses(by_gatherer[name], lost) for name, lost in compared.lost_rows.items()},
        told=checks[2].result(),
    )


def _since(moment: int, claims: Claims) -> dict[str, list[Interval]]:
    return {ticker: intersection(parts, [(moment, ALWAYS[1])]) for ticker, parts in claims.items()}


def _proven_at_end(settings: PlatformSettings, truth: Truth, run: Interval) -> pl.DataFrame:
    """Books that production calls proven, of a few markets at a few moments of the run."""
    tickers = sorted(truth.markets["ticker"].to_list())[:: max(1, truth.markets.height // MARKETS_ASKED)]
    moments = [run[0] + (run[1] - run[0]) * part // (MOMENTS_ASKED + 1) for part in range(1, MOMENTS_ASKED + 1)]
    samples = [(ticker, moment) for ticker in tickers for moment in moments]
    return recorded.proven_books(settings.deduplicator.production_url, samples)


def _without_dropped(table: TableFinding, dropped: Interval) -> TableFinding:
    """Production need not have what was dropped; the lake must."""
    if table.name not in {each.name for each in TIMED_TABLES}:
        return table
    is_dropped = pl.col("exchange_us").is_between(*dropped, closed="left")
    missing = table.production.missing.filter(~is_dropped)
    published = table.production.published.filter(~is_dropped)
    return replace(table, production=replace(table.production, missing=missing, published=published))


def _rows_of(truth: Truth, name: str, snapshot: ArrowSnapshot) -> GathererRows:
    served = truth.served.filter(pl.col("user_agent").str.contains(f"({name} ", literal=True)).select("n", "ticker")
    return GathererRows(partial(recorded.gatherer_deltas, snapshot), served)


def _tables(
    truth: Truth, compared: ComparedAll, production: recorded.Production, lake: recorded.Lake, news_us: int
) -> list[TableFinding]:
    events = lake.rows(LIFECYCLE)
    lifecycle = [compare(LIFECYCLE, truth.lifecycle, rows) for rows in (production.rows(LIFECYCLE), events)]
    # Of markets with news at the end REST is asked only afterwards.
    news = truth.lifecycle.filter(pl.col(AT) >= news_us).select("ticker").unique()
    known, stored = (
        each.join(news, on="ticker", how="anti") for each in (truth.markets_at_end, production.rows(MARKETS))
    )
    found = [TableFinding(name, each.truth, each, compared.lake[name]) for name, each in compared.production.items()]
    found.append(TableFinding(LIFECYCLE.name, lifecycle[0].truth, *lifecycle))
    markets = compare(MARKETS, known, stored)
    return [*found, TableFinding(MARKETS.name, markets.truth, markets, None)]


def _claims(settings: PlatformSettings, span: Interval) -> Mapping[str, Claims]:
    """What each gatherer claims of the run, read in windows of time; those that touch become one."""
    dedup = settings.deduplicator
    end = datetime_from_us(span[1]) + timedelta(minutes=1)
    found: dict[str, dict[str, list[Interval]]] = {source.name: {} for source in dedup.sources}
    for source in dedup.sources:
        low = datetime_from_us(span[0]) - timedelta(minutes=1)
        while low < end:
            high = low + _CLAIMS_AT_ONCE
            for ticker, intervals in read_claims(source, low, high, dedup.max_out_of_orderness_us).items():
                found[source.name].setdefault(ticker, []).extend(intervals)
            low = high
    return found


def _lives(markets: pl.DataFrame, run: Interval) -> dict[str, Interval]:
    lives = {
        ticker: (max(run[0], opened), min(run[1], closed))
        for ticker, opened, closed in markets.select("ticker", "open_us", "close_us").iter_rows()
    }
    return {ticker: life for ticker, life in lives.items() if life[0] < life[1]}


def _broken_us(truth: Truth, name: str) -> list[int]:
    """When the exchange cut a line of this gatherer, or sent it a garbled frame."""
    served = truth.served.filter(pl.col("user_agent").str.contains(f"({name} ", literal=True))
    lines = set(served["connection"].to_list())
    return [
        at_us
        for kind, at_us, effects in truth.faults.select("kind", "at_us", "effects").iter_rows()
        if kind in _BREAKING and any(effect.get("connection") in lines for effect in json.loads(effects))
    ]


def _books(
    truth: Truth, fold: Fold, claims: Claims, last_us: Mapping[str, int], near: Sequence[Interval], late: frozenset[str]
) -> BooksAtEnd:
    # A market whose book never moved after it was listed, and never was anything else, has nothing to prove; nor has
    # one that opened too late in the run to have a checkpoint, and has none.
    tickers = sorted((set(last_us) | set(truth.last_books["ticker"].to_list())) - (late - fold.starts.keys()))
    return books_at_end(tickers, truth.last_books, fold, claims, last_us, near)


def merge_lost(deltas: Difference, best_seen: pl.DataFrame) -> int:
    """Missing deltas that a gatherer stored. `best_seen`: natural columns, and how often one of them saw each."""
    columns = list(DELTAS.columns)
    if deltas.missing.is_empty():
        return 0
    published = deltas.published.group_by(columns).agg(pl.len().cast(pl.Int64).alias("_published"))
    lacking = deltas.missing.group_by(columns).agg(pl.len().cast(pl.Int64).alias("_lacking"))
    counted = lacking.join(published, on=columns).join(best_seen, on=columns, how="left")
    # Nobody can know of more copies than the stream that saw most of them.
    avoidable = pl.col("_lacking") - (pl.col("_published") - pl.col("seen").fill_null(0))
    return int(counted.select(avoidable.clip(lower_bound=0).sum()).item() or 0)


def undeclared_messages(
    tables: Sequence[TableFinding],
    spans: Sequence[Mapping[str, Sequence[Interval]]],
    near: Sequence[Interval],
    forgotten: Sequence[Interval] = (),
) -> int:
    """Missing rows of channels without claims by market, of moments with no fault near or with a connection.

    The ends of a stream's time are not counted: its first and last millisecond may be half; nor is what a database was
    made to forget (`forgotten`), although the connection lived on.
    """
    count = 0
    for finding in tables:
        if finding.name in (DELTAS.name, MARKETS.name):
            continue
        lived = union((low + _SECOND_US // 1_000, high) for each in spans for low, high in each.get(finding.name, ()))
        lived = subtract(lived, list(forgotten))
        missing, published = finding.production.missing, finding.production.published
        times = missing.unique().join(published, on=missing.columns, nulls_equal=True)[AT].to_list()
        count += sum(covers(lived, moment) or not covers(near, moment) for moment in times)
    return count
