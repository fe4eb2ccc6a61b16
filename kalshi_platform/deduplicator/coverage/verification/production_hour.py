"""Reads an hour of production as arrays: its deltas, the checkpoints they follow, and the polled books to compare with.

Rows become numbers batch by batch while they stream in: about 40 bytes each are kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from kalshi_platform.deduplicator.coverage.multiset_hash import book_hashes, delta_hashes, row_fingerprints
from kalshi_platform.deduplicator.coverage.timeline import Ints, Timeline
from kalshi_platform.deduplicator.coverage.verification.check_books import Checkpoints, PolledBooks
from kalshi_platform.deduplicator.coverage.verification.verify_claims import ProductionHour
from kalshi_platform.market.fold import LEVEL_TYPES, Changes
from kalshi_platform.market.times import US_PER_S, datetime_from_us
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import arrow_snapshot

_SQL = load(Path(__file__).parents[1] / "queries.sql")

_MINUTE_US = 60 * US_PER_S


class HourRows(NamedTuple):
    """`hour`: what verify_claims() takes. `changes` and `exchange_us`: the deltas, `line` being the market.

    `checkpoints`: the rows behind hour.checkpoints, with the lists of levels.
    """

    hour: ProductionHour
    changes: Changes
    exchange_us: Ints
    checkpoints: pl.DataFrame


class _Collector:
    """Turns batches of deltas into columns; markets and streams get numbers as they appear."""

    def __init__(self) -> None:
        self.tickers: dict[str, int] = {}
        self._observers: dict[str, int] = {}
        self._columns: dict[str, list[np.ndarray]] = {}
        self._delays: list[pl.DataFrame] = []

    def add(self, batch: pl.DataFrame) -> None:
        frame = batch.with_columns(
            exchange_us=pl.col("exchange_ts").dt.epoch("us"),
            observer=pl.concat_str("gatherer", "stream_id", separator=" "),
        )
        self._keep("market", number_names(frame["ticker"], self.tickers).astype(np.int32))
        self._keep("us", frame["exchange_us"].to_numpy())
        self._keep("seq", frame["seq"].to_numpy())
        self._keep("observer", number_names(frame["observer"], self._observers).astype(np.int32))
        self._keep("side", (frame["side"] == "no").to_numpy().astype(np.int8))
        self._keep("price", frame["price_e4"].to_numpy())
        self._keep("size", frame["delta_e2"].to_numpy())
        self._keep("part", delta_hashes(frame))
        self._keep("content", row_fingerprints(frame))
        received = pl.col("received_at").dt.epoch("us")
        self._delays.append(
            frame.group_by((received // _MINUTE_US).alias("minute")).agg(
                (received - pl.col("exchange_us")).min().alias("us")
            )
        )

    def column(self, name: str, kind: type) -> np.ndarray:
        parts = self._columns.pop(name, [])
        return np.concatenate(parts) if parts else np.empty(0, dtype=kind)

    def delays(self) -> pl.DataFrame:
        """By minute of receipt: how long the fastest row was under way (µs), clock errors included."""
        empty = pl.DataFrame(schema={"minute": pl.Int64, "us": pl.Int64})
        return pl.concat([empty, *self._delays]).group_by("minute").agg(pl.col("us").min())

    def _keep(self, name: str, values: np.ndarray) -> None:
        self._columns.setdefault(name, []).append(np.ascontiguousarray(values))


def read_production_hour(url: str, low_us: int, high_us: int, age_us: int, skew_us: int) -> HourRows:
    """Read [low, high) and as much around it as polled books need. Raises DatabaseUnavailable.

    `age_us`: how old a polled book may be when it is answered; `skew_us`: how far apart our clock and the exchange's
    may be. Polls of minutes in which rows came earlier or later than that allows cannot be found inconsistent.
    """
    around = age_us + skew_us + _MINUTE_US
    found = _Collector()
    with arrow_snapshot(url) as snapshot:
        batches = snapshot.batches(
            _SQL["read_deltas_between"], (datetime_from_us(low_us - around), datetime_from_us(high_us + around))
        )
        for batch in batches:
            if batch.num_rows:
                found.add(pl.DataFrame(batch))
        checkpoints = snapshot.table(
            _SQL["read_checkpoints_before"],
            (datetime_from_us(low_us - 1), datetime_from_us(high_us), datetime_from_us(low_us)),
        )
        polled = snapshot.table(_SQL["read_polled_books"], (datetime_from_us(low_us), datetime_from_us(high_us)))
    checkpoint_rows = _with_levels(pl.DataFrame(pl.from_arrow(checkpoints)))
    return _assemble(
        found, checkpoint_rows, _with_levels(pl.DataFrame(pl.from_arrow(polled))), low_us, (age_us, skew_us)
    )


def number_names(names: pl.Series, known: dict[str, int]) -> np.ndarray:
    """A number for each name, the same for equal ones; new names are added to `known`."""
    here = {name: known.setdefault(name, len(known)) for name in names.unique().sort()}
    return names.replace_strict(here, return_dtype=pl.Int64).to_numpy() if here else np.empty(0, dtype=np.int64)


def _assemble(
    found: _Collector, checkpoint_rows: pl.DataFrame, polled_rows: pl.DataFrame, low_us: int, bounds_us: tuple[int, int]
) -> HourRows:
    market, us = found.column("market", np.int32), found.column("us", np.int64)
    timeline = Timeline(
        low_us - 3_600 * US_PER_S, market, us, found.column("part", np.uint64), found.column("content", np.uint64),
        found.column("observer", np.int32), found.column("seq", np.int64),
    )  # fmt: skip
    checkpoint_rows = checkpoint_rows.with_columns(
        market=pl.Series(number_names(checkpoint_rows["ticker"], found.tickers)),
        us=pl.col("checkpoint_ts").dt.epoch("us"),
    ).sort("market", "us", "gatherer", "stream_id", "seq")
    checkpoints = Checkpoints(
        checkpoint_rows["market"].to_numpy(), checkpoint_rows["us"].to_numpy(), book_hashes(checkpoint_rows)
    )
    numbers = number_names(polled_rows["ticker"], found.tickers)
    polled = _polled_books(polled_rows.with_columns(market=pl.Series(numbers)), found.delays(), *bounds_us)
    changes = Changes(market, *(found.column(name, np.int64) for name in ("side", "price", "size")))
    tickers = sorted(found.tickers, key=found.tickers.__getitem__)
    return HourRows(ProductionHour(tickers, timeline, checkpoints, polled), changes, us, checkpoint_rows)


def _polled_books(rows: pl.DataFrame, delays: pl.DataFrame, age_us: int, skew_us: int) -> PolledBooks:
    """The windows of polled books; one of a minute in which the clocks were too far apart reaches back for ever."""
    received = pl.col("received_at").dt.epoch("us")
    windows = (
        rows.with_columns(
            _low=pl.coalesce("requested_at", "snapshot_ts").dt.epoch("us") - age_us - skew_us,
            _high=received + skew_us,
            minute=received // _MINUTE_US,
        )
        .join(delays, on="minute", how="left", maintain_order="left")
        .with_columns(_apart=~pl.col("us").is_between(-skew_us, age_us + skew_us).fill_null(value=True))
        .with_columns(_low=pl.when("_apart").then(0).otherwise("_low"))
    )
    return PolledBooks(
        windows["market"].to_numpy(), windows["_low"].to_numpy(), windows["_high"].to_numpy(), book_hashes(windows)
    )


def _with_levels(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.col(name).cast(kind) for name, kind in LEVEL_TYPES.items())
