"""Reads what an earlier close left of an hour, and decides what of it stays because its rows were dropped since.

Rows that a close counted and that are no longer there were dropped, by drop_partitions_before or by hand. Claims and
proofs of then were true of them: they stay, marked by a row of `dropped_hours`, until a close finds all rows again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from kalshi_platform.deduplicator.coverage.gatherer_hour import GathererHour
from kalshi_platform.market.times import HOUR
from kalshi_platform.storage.pool import Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

# Rows that claims and proofs rest on, and the claims themselves: without them an hour cannot be verified anew.
_VERIFIED = ("orderbook_deltas", "orderbook_snapshots", "stream_claims")


@dataclass(frozen=True)
class PreviousClose:
    """`rows`: by table, as the last close counted them; None for an hour that was never closed.

    `is_reopened`: rows came since the last close, whether this one or a merge before it brought them.
    `dropped`: tables with a line in dropped_hours. `held`: gatherer, stream_id, seq_to, deltas of the streams read
    then; `claiming`: by gatherer, the streams with a claim.
    """

    rows: Mapping[str, int] | None
    dropped: frozenset[str]
    held: pl.DataFrame
    claiming: Mapping[str, frozenset[int]]
    is_reopened: bool = False

    def find_lost_tables(self, counts: Mapping[str, int], incomplete: frozenset[str]) -> tuple[str, ...]:
        """Return tables of which production no longer has all rows, although all was merged again (`counts`).

        `incomplete`: tables of which not every gatherer could show all. How many rows an hour had that
        was never closed is not known: they count as back when every gatherer has brought all.
        """
        if self.rows is None:
            return tuple(sorted(self.dropped & incomplete))
        fewer = {table for table, count in self.rows.items() if counts.get(table, count) < count}
        never_counted = self.dropped - self.rows.keys()
        lost = fewer | (never_counted & incomplete) | (never_counted - counts.keys() - _REMADE)
        return tuple(sorted(lost | (self.dropped & _REMADE if self.keeps_verification(lost) else frozenset())))

    def keeps_verification(self, lost: Iterable[str]) -> bool:
        """Return whether claims, coverage, proofs and checkpoints stay as the last close left them."""
        return self.rows is not None and not set(lost).isdisjoint(_VERIFIED)

    def streams_to_keep(self, gatherer: str, now: GathererHour) -> frozenset[int]:
        """Return streams that hold less than they did, or cannot be checked as they were: what they claimed stays."""
        then = self.held.filter(pl.col("gatherer") == gatherer)
        less = then.join(now.held, on="stream_id", suffix="_now").filter(
            (pl.col("seq_to_now") < pl.col("seq_to")) | (pl.col("deltas_now") < pl.col("deltas"))
        )
        vanished = then.join(now.held, on="stream_id", how="anti")
        unchecked = now.unchecked & self.claiming.get(gatherer, frozenset())
        return frozenset(less["stream_id"]) | frozenset(vanished["stream_id"]) | unchecked


# A close that verifies makes these anew.
_REMADE = frozenset({"book_checkpoints", "coverage", "book_proofs"})


def read_previous_close(transaction: Transaction, hour: datetime) -> PreviousClose:
    """Read the earlier close of an hour from production."""
    row = transaction.fetch_one(_SQL["read_counted_rows"], (hour,))
    dropped = transaction.fetch_all(_SQL["find_lost_tables"], (hour,))
    held = transaction.fetch_all(_SQL["read_streams"], (hour,))
    claiming = transaction.fetch_all(_SQL["find_claiming_streams"], (hour, hour + HOUR))
    schema = {"gatherer": pl.String, "stream_id": pl.Int64, "seq_to": pl.Int64, "deltas": pl.Int64}
    return PreviousClose(
        None if row is None else {table: int(count) for table, count in row[0].items()},
        frozenset(table for (table,) in dropped),
        pl.DataFrame(held, schema=schema, orient="row"),
        {gatherer: frozenset(streams) for gatherer, streams in claiming},
        is_reopened=row is not None and bool(row[1]),
    )


def replace_dropped_tables(transaction: Transaction, hour: datetime, lost: Iterable[str]) -> None:
    """Replace the hour's rows of `dropped_hours` by these tables."""
    transaction.execute(_SQL["delete_lost_tables"], (hour, list(lost)))
    transaction.execute_values(_SQL["insert_lost_tables"], [(hour, each) for each in lost])
