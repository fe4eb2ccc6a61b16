"""The simulated exchange's own ledger, in natural columns. See the simulator's truth module for its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from kalshi_platform.proof.errors import ProofFailed
from kalshi_platform.proof.tables import (
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

SAME_EVENT_US = 300_000_000
"""Equal lifecycle content of one ticker within five minutes is one event."""
_MILLISECOND_US = 1_000
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

    `tables`: by name, natural columns, `required`, and the time as `at_us`; deltas carry `n`, the order of publication.
    `last_books`: ticker, side, price_e4, count_e2 at the end. `markets`: ticker, open_us, close_us of all but combos.
    `served`: n, ticker, connection, user_agent; `faults` as the simulator wrote them.
    `ledger`: rows of the whole ledger, by kind as the simulator counts what it publishes.
    """

    tables: Mapping[str, pl.DataFrame]
    last_books: pl.DataFrame
    markets: pl.DataFrame
    served: pl.DataFrame
    faults: pl.DataFrame
    ledger: Mapping[str, int]


def read_truth(folder: Path, from_us: int) -> Truth:
    """Read a finished ledger. Rows published before `from_us` are known, but not required of anybody.

    Raises ProofFailed when the ledger is not complete.
    """
    check_complete(folder)
    raw = {table: _parts(folder, table) for table in _EMPTY}
    markets = raw["markets"].filter(~pl.col("ticker").str.starts_with(COMBO_PREFIX))
    required = (pl.col("at_us") >= from_us).alias(REQUIRED)
    deltas = raw["deltas"].with_columns(exchange_us="exchange_ts_us", at_us="exchange_ts_us")
    trades = raw["trades"].with_columns(
        exchange_us=_floored(), no_price_e4=10_000 - pl.col("yes_price_e4"), at_us="exchange_ts_us"
    )
    return Truth(
        tables={
            DELTAS.name: shaped(DELTAS, deltas, "n", "at_us").sort("n").with_columns(required),
            TRADES.name: shaped(TRADES, trades, "at_us").with_columns(required),
            TICKERS.name: _tickers(raw["tickers"]).with_columns(required & ~pl.col("initial")),
            LIFECYCLE.name: _lifecycle(raw["lifecycle"]).with_columns(required),
            # Who was over before the run need not be known.
            MARKETS.name: _markets(markets).with_columns((pl.col("close_us") >= from_us).alias(REQUIRED)),
        },
        last_books=raw["books"]
        .filter((pl.col("phase") == "last") & ~pl.col("ticker").str.starts_with(COMBO_PREFIX))
        .select("ticker", "side", pl.col("price_e4").cast(pl.Int64), pl.col("size_e2").alias("count_e2")),
        markets=markets.select("ticker", "open_us", "close_us"),
        served=raw["served"].sort("n"),
        faults=raw["faults"],
        ledger={
            "delta": raw["deltas"].height,
            "trade": raw["trades"].height,
            "ticker": int((~raw["tickers"]["initial"]).sum()),
            "lifecycle": raw["lifecycle"].height,
        },
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
        files = sorted(folder.glob(f"{table}-*.parquet"))
        there = int(pl.scan_parquet(files).select(pl.len()).collect().item()) if files else 0
        if there != rows.get(table):
            raise ProofFailed(
                f"the exchange wrote {rows.get(table)} rows of {table}, its ledger in {folder} has {there}"
            )


def _parts(folder: Path, table: str) -> pl.DataFrame:
    files = sorted(folder.glob(f"{table}-*.parquet"))
    return pl.concat([_EMPTY[table], *(pl.read_parquet(file) for file in files)], how="vertical_relaxed")


def _floored() -> pl.Expr:
    return pl.col("exchange_ts_us") // _MILLISECOND_US * _MILLISECOND_US


def _tickers(rows: pl.DataFrame) -> pl.DataFrame:
    columns = [ticker_columns(json.loads(body)) for body in rows["body"].to_list()]
    names = [name for name in TICKERS.columns if name not in ("exchange_us", "ticker")]
    values = pl.DataFrame({name: pl.Series([each[name] for each in columns], dtype=pl.Int64) for name in names})
    framed = rows.with_columns(exchange_us=_floored(), at_us="exchange_ts_us").hstack(values)
    return shaped(TICKERS, framed, "at_us", "initial")


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
    return shaped(LIFECYCLE, named[events], "at_us")


def _markets(rows: pl.DataFrame) -> pl.DataFrame:
    settled = rows.with_columns(
        settlement_value_e6=pl.col("settlement_e4").cast(pl.Int64) * 100,
        stage=stage(pl.col("status")),
        open_us=to_seconds(pl.col("open_us")),
        close_us=to_seconds(pl.col("close_us")),
        result=pl.col("result").fill_null(""),
    )
    return shaped(MARKETS, settled)
