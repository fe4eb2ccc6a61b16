"""The simulated exchange's own ledger, in natural columns. See the simulator's truth module for its files.

Deltas, trades and tickers are read in parts of time, so that a run of any length fits in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import polars as pl

from kalshi_platform.lab.proof.comparison.tables import (
    AT,
    COMBO_PREFIX,
    DELTAS,
    LIFECYCLE,
    MARKETS,
    REQUIRED,
    TICKERS,
    TRADES,
    canonical,
    shaped,
    stage,
    ticker_columns,
    to_seconds,
)
from kalshi_platform.lab.proof.errors import ProofFailed
from kalshi_platform.market.intervals import Interval

SAME_EVENT_US = 300_000_000
"""Equal lifecycle content of one ticker within five minutes is one event."""
LONGEST_TICKER = 1_000
"""Bytes; the exchange's own have about sixty."""
ALL_TIME: Interval = (-(2**62), 2**62)
_SECOND_US, _MILLISECOND_US = 1_000_000, 1_000
_LIFECYCLE_NAMES = {"event_lifecycle": "event_created", "event_fee_update": "event_fee_update"}
_EMPTY: Mapping[str, pl.DataFrame] = {
    "deltas": pl.DataFrame(
        schema={
            "n": pl.Int64, "exchange_ts_us": pl.Int64, "ticker": pl.String, "side": pl.String, "price_e4": pl.Int32,
            "delta_e2": pl.Int64,
        }
    ),
    "trades": pl.DataFrame(
        schema={
            "n": pl.Int64, "exchange_ts_us": pl.Int64, "ticker": pl.String, "trade_id": pl.String,
            "yes_price_e4": pl.Int32, "count_e2": pl.Int64, "taker_side": pl.String, "is_block_trade": pl.Boolean,
        }
    ),
    "tickers": pl.DataFrame(
        schema={
            "n": pl.Int64, "exchange_ts_us": pl.Int64, "ticker": pl.String, "body": pl.String, "initial": pl.Boolean,
        }
    ),
    "lifecycle": pl.DataFrame(
        schema={
            "n": pl.Int64, "published_us": pl.Int64, "ticker": pl.String, "type": pl.String, "event_type": pl.String,
            "body": pl.String, "suppressed": pl.Boolean,
        }
    ),
    "books": pl.DataFrame(
        schema={
            "phase": pl.String, "ticker": pl.String, "side": pl.String, "price_e4": pl.Int32, "size_e2": pl.Int64,
        }
    ),
    "markets": pl.DataFrame(
        schema={
            "ticker": pl.String, "status": pl.String, "result": pl.String, "settlement_e4": pl.Int32,
            "open_us": pl.Int64, "close_us": pl.Int64,
        }
    ),
    "served": pl.DataFrame(
        schema={"n": pl.Int64, "ticker": pl.String, "connection": pl.String, "user_agent": pl.String}
    ),
    "faults": pl.DataFrame(
        schema={
            "id": pl.Int64, "kind": pl.String, "at_us": pl.Int64, "hits": pl.Int64, "params": pl.String,
            "effects": pl.String,
        }
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """Everything that was published.

    Rows before `from_us` are known, but not required of anybody. Of an hour before that (`past`) deltas, trades and
    tickers are, of markets that were there already. Markets under names that nobody can store are left out of
    everything but `ledger`.

    `lifecycle` and `markets_at_end`: tables in natural columns, with `required` (lifecycle also with `at_us`).
    `first_books`, `last_books`: ticker, side, price_e4, count_e2 before everything and at the end. `markets`: ticker,
    open_us, close_us of all but combos.
    `served`: n, ticker, connection, user_agent; `faults` as the simulator wrote them.
    `ledger`: rows of the whole ledger, by kind as the simulator counts what it publishes.
    """

    folder: Path
    from_us: int
    lifecycle: pl.DataFrame
    markets_at_end: pl.DataFrame
    first_books: pl.DataFrame
    last_books: pl.DataFrame
    markets: pl.DataFrame
    served: pl.DataFrame
    faults: pl.DataFrame
    ledger: Mapping[str, int]
    past: Interval | None = None
    born_in_past: Sequence[str] = ()

    def parts(self, rows: int) -> list[Interval]:
        """Cut the run, and all time around it, at whole seconds, into parts of about `rows` deltas at least."""
        by_second = (
            _scan(self.folder, "deltas")
            .group_by(pl.col("exchange_ts_us") // _SECOND_US)
            .agg(pl.len().alias("rows"))
            .sort("exchange_ts_us")
            .collect()
        )
        edges, held = [ALL_TIME[0]], 0
        for second, count in by_second.iter_rows():
            held += count
            if held >= rows:
                edges.append((second + 1) * _SECOND_US)
                held = 0
        return list(pairwise([*edges, ALL_TIME[1]]))

    def deltas(self, part: Interval) -> pl.DataFrame:
        """Published deltas of a part of time in natural columns, with n, at_us and required."""
        rows = _within(self.folder, "deltas", part).with_columns(exchange_us="exchange_ts_us", at_us="exchange_ts_us")
        return shaped(DELTAS, rows, "n", AT).sort("n").with_columns(self._required())

    def trades(self, part: Interval) -> pl.DataFrame:
        """Published trades of a part of time in natural columns, with at_us and required."""
        rows = _within(self.folder, "trades", part).with_columns(
            exchange_us=_floored(), no_price_e4=10_000 - pl.col("yes_price_e4"), at_us="exchange_ts_us"
        )
        return shaped(TRADES, rows, AT).with_columns(self._required())

    def tickers(self, part: Interval) -> pl.DataFrame:
        """Published tickers of a part of time in natural columns, with at_us and required."""
        rows = _tickers(_within(self.folder, "tickers", part))
        return rows.with_columns(self._required() & ~pl.col("initial"))

    def _required(self) -> pl.Expr:
        required = pl.col(AT) >= self.from_us
        if self.past is not None:
            is_old = pl.col(AT).is_between(*self.past, closed="left") & ~pl.col("ticker").is_in(self.born_in_past)
            required = required | is_old
        return required.alias(REQUIRED)


def read_truth(folder: Path, from_us: int, past: Interval | None = None) -> Truth:
    """Read a finished ledger. Raises ProofFailed when it is not complete."""
    check_complete(folder)
    raw = {table: _nameable(folder, table).collect() for table in ("lifecycle", "books", "markets", "served")}
    raw["faults"] = _scan(folder, "faults").collect()
    markets = raw["markets"].filter(~pl.col("ticker").str.starts_with(COMBO_PREFIX))
    born = pl.col("open_us").is_between(past[0], from_us) if past is not None else pl.lit(value=False)
    return Truth(
        folder=folder,
        from_us=from_us,
        lifecycle=_lifecycle(raw["lifecycle"]).with_columns((pl.col(AT) >= from_us).alias(REQUIRED)),
        # Who was over before the run need not be known.
        markets_at_end=_markets(markets).with_columns((pl.col("close_us") >= from_us).alias(REQUIRED)),
        first_books=_books(raw["books"], "first"),
        last_books=_books(raw["books"], "last"),
        markets=markets.select("ticker", "open_us", "close_us"),
        served=raw["served"].sort("n"),
        faults=raw["faults"],
        ledger={
            "delta": _count(_scan(folder, "deltas")),
            "trade": _count(_scan(folder, "trades")),
            "ticker": _count(_scan(folder, "tickers").filter(~pl.col("initial"))),
            "lifecycle": _count(_scan(folder, "lifecycle")),
        },
        past=past,
        born_in_past=markets.filter(born)["ticker"].to_list(),
    )


def check_complete(folder: Path) -> None:
    """Raise ProofFailed unless the exchange finished its ledger and every row of it is there.

    With less of a truth a record that lost the same rows would look whole.
    """
    file = folder / "complete.json"
    try:
        rows: dict[str, int] = json.loads(file.read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ProofFailed(
            f"the exchange did not finish its ledger in {folder}; there is nothing to compare with"
        ) from None
    for table in _EMPTY:
        there = _count(_scan(folder, table))
        if there != rows.get(table):
            raise ProofFailed(
                f"the exchange wrote {rows.get(table)} rows of {table}, its ledger in {folder} has {there}"
            )


def _scan(folder: Path, table: str) -> pl.LazyFrame:
    files = sorted(folder.glob(f"{table}-*.parquet"))
    return pl.concat(
        [_EMPTY[table].lazy(), *(pl.scan_parquet(file, glob=False) for file in files)], how="vertical_relaxed"
    )


def _within(folder: Path, table: str, part: Interval) -> pl.DataFrame:
    low, high = part
    moment = pl.col("exchange_ts_us")
    return _nameable(folder, table).filter((moment >= low) & (moment < high)).collect()


def _nameable(folder: Path, table: str) -> pl.LazyFrame:
    """Rows of markets with names that can be stored: not thousands of characters, and none that controls."""
    is_short, is_plain = (
        pl.col("ticker").str.len_bytes() <= LONGEST_TICKER,
        ~pl.col("ticker").str.contains(r"[\x00-\x1f]"),
    )
    return _scan(folder, table).filter(is_short & is_plain)


def _books(rows: pl.DataFrame, phase: str) -> pl.DataFrame:
    followed = (pl.col("phase") == phase) & ~pl.col("ticker").str.starts_with(COMBO_PREFIX)
    levels = pl.col("price_e4").cast(pl.Int64), pl.col("size_e2").cast(pl.Int64).alias("count_e2")
    return rows.filter(followed).select("ticker", "side", *levels)


def _count(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect().item())


def _floored() -> pl.Expr:
    return pl.col("exchange_ts_us") // _MILLISECOND_US * _MILLISECOND_US


def _tickers(rows: pl.DataFrame) -> pl.DataFrame:
    columns = [ticker_columns(json.loads(body)) for body in rows["body"].to_list()]
    names = [name for name in TICKERS.columns if name not in ("exchange_us", "ticker")]
    values = pl.DataFrame({name: pl.Series([each[name] for each in columns], dtype=pl.Int64) for name in names})
    framed = rows.with_columns(exchange_us=_floored(), at_us="exchange_ts_us").hstack(values)
    return shaped(TICKERS, framed, AT, "initial")


def _lifecycle(rows: pl.DataFrame) -> pl.DataFrame:
    heard = rows.filter(~pl.col("suppressed") & ~pl.col("ticker").str.starts_with(COMBO_PREFIX)).sort("n")
    named = heard.with_columns(
        event_type=pl.col("type").replace_strict(_LIFECYCLE_NAMES, default=pl.col("event_type")),
        content=pl.Series([canonical(body) for body in heard["body"].to_list()], dtype=pl.String),
        at_us="published_us",
    )
    kept: dict[tuple[object, ...], int] = {}
    events = []
    for place, (at_us, *content) in enumerate(named.select("at_us", *LIFECYCLE.columns).iter_rows()):
        before = kept.get(tuple(content))
        if before is None or at_us - before > SAME_EVENT_US:
            kept[tuple(content)] = at_us
            events.append(place)
    return shaped(LIFECYCLE, named[events], AT)


def _markets(rows: pl.DataFrame) -> pl.DataFrame:
    settled = rows.with_columns(
        settlement_value_e6=pl.col("settlement_e4").cast(pl.Int64) * 100,
        stage=stage(pl.col("status")),
        open_us=to_seconds(pl.col("open_us")),
        close_us=to_seconds(pl.col("close_us")),
        result=pl.col("result").fill_null(""),
    )
    return shaped(MARKETS, settled)
