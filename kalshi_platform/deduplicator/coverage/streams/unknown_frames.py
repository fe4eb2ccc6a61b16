"""Truncates book subscriptions at messages of unknown type, unless later snapshots prove that these changed nothing.

A gatherer follows a market on when a message of an unknown type takes a number: it may have changed a book, or not. The
next snapshot of the market decides: where the one before and the stream's own deltas lead to it, the messages between
changed nothing, and the market was followed all the time. Otherwise it was followed only to the number before the first
of them. One book that was changed disproves the type: of no market does a snapshot then prove anything against it, for
what a message changed, another may have changed back.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import polars as pl

from kalshi_platform.deduplicator.coverage.streams.check_snapshots import RUN_CHECKS, pair_snapshots
from kalshi_platform.deduplicator.coverage.streams.seq_ranges import clip_to_range, merge_segments
from kalshi_platform.deduplicator.coverage.streams.snapshot_reader import read_checks
from kalshi_platform.deduplicator.coverage.streams.stream_ledger import StreamLedger, read_ledger
from kalshi_platform.market.intervals import Interval
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import ArrowSnapshot

_SQL = load(Path(__file__).parents[1] / "queries.sql")

UNKNOWN = {"seq": pl.Int64, "frame_type": pl.String, "ticker": pl.String}
_SUBSCRIPTION = ["ticker", "seq"]


class VerifiedLedger(NamedTuple):
    """What is left of the ledger once unknown frames are taken out.

    `ledger`: with book subscriptions only as far as they stand. `pending`: whether one that is still open may yet be
    proved to reach further.
    """

    ledger: StreamLedger
    pending: bool


def read_verified_ledger(snapshot: ArrowSnapshot, stream_id: int, within: Interval) -> VerifiedLedger:
    """Read a stream's ledger as far as it stands; proofs are looked for where a stretch touches `within`.

    Raises DatabaseUnavailable.
    """
    ledger = read_ledger(snapshot, stream_id)
    table = snapshot.table(_SQL["read_unknown_frames"], (stream_id,))
    unknown = pl.DataFrame(pl.from_arrow(table))
    if unknown.is_empty():
        return VerifiedLedger(ledger, pending=False)
    doubted = find_doubted(clip_to_range(ledger.book_subscriptions, merge_segments(ledger.segments)), unknown)
    found = pair_doubted(ledger, doubted, within)
    checks = read_checks(snapshot, stream_id, found) if found.height else pl.DataFrame(schema=RUN_CHECKS)
    book_subscriptions = truncate_subscriptions(ledger.book_subscriptions, doubted, unknown, checks)
    pending = (
        ledger.book_subscriptions.filter(pl.col("seq_to").is_null()).height > book_subscriptions["seq_to"].null_count()
    )
    return VerifiedLedger(ledger._replace(book_subscriptions=book_subscriptions), pending)


def find_doubted(spans: pl.DataFrame, unknown: pl.DataFrame) -> pl.DataFrame:
    """The spans of one stream that hold an unknown message which may concern their market, each with `first`. Pure.

    `spans` as clip_to_range() gives them, `unknown`: the columns of UNKNOWN, an empty ticker for any market.
    """
    ordered = spans.sort("seq")
    numbers = unknown.select(pl.col("seq").alias("_unknown"), "ticker").sort("_unknown")
    general = numbers.filter(pl.col("ticker") == "").select("_unknown")
    named = numbers.filter(pl.col("ticker") != "").with_columns(pl.col("ticker").cast(spans.schema["ticker"]))
    found = ordered.join_asof(
        general, left_on="seq", right_on="_unknown", strategy="forward", allow_exact_matches=False, coalesce=False,
        check_sortedness=False,
    ).rename({"_unknown": "_general"})  # fmt: skip
    found = found.join_asof(
        named, left_on="seq", right_on="_unknown", by="ticker", strategy="forward", allow_exact_matches=False,
        coalesce=False, check_sortedness=False,
    )  # fmt: skip
    return (
        found.with_columns(first=pl.min_horizontal("_general", "_unknown"))
        .drop("_general", "_unknown")
        .filter(pl.col("first") <= pl.col("seq_end"))
    )


def pair_doubted(ledger: StreamLedger, doubted: pl.DataFrame, within: Interval) -> pl.DataFrame:
    """Neighbouring snapshots with an unknown message between them, as pair_snapshots() gives them. Pure."""
    every = clip_to_range(ledger.book_subscriptions, merge_segments(ledger.segments))
    return pair_snapshots(every, ledger.segments, within).join(
        doubted.select(_SUBSCRIPTION), on=_SUBSCRIPTION, how="semi"
    )


def truncate_subscriptions(
    book_subscriptions: pl.DataFrame, doubted: pl.DataFrame, unknown: pl.DataFrame, checks: pl.DataFrame
) -> pl.DataFrame:
    """The book subscriptions of one stream as far as they stand. Pure.

    `doubted` as find_doubted() gives them; `checks`: those of check_snapshots.RUN_CHECKS that could be made of them.
    """
    if doubted.is_empty():
        return book_subscriptions
    kind = doubted.schema["ticker"]
    verdicts = checks.select(pl.col("ticker").cast(kind), "seq", "passed")
    checked = doubted.join(verdicts, on=_SUBSCRIPTION, how="left")
    changing_types = _frame_types_between(checked.filter(~pl.col("passed")), unknown)
    changed = find_doubted(checked.drop("first"), unknown.filter(pl.col("frame_type").is_in(changing_types)))
    stands = pl.col("passed").fill_null(value=False) & ~pl.col("_is_changed")
    changed_spans = changed.select(*_SUBSCRIPTION, pl.lit(value=True).alias("_is_changed"))
    cut = (
        checked.join(changed_spans, on=_SUBSCRIPTION, how="left")
        .with_columns(pl.col("_is_changed").fill_null(value=False))
        .filter(~stands)
        .select(
            "ticker",
            pl.col("seq").alias("seq_from"),
            # Where the snapshots contradict each other it is not known from where on it was wrong.
            _to=pl.when(pl.col("passed").fill_null(value=True)).then(pl.col("first") - 1).otherwise(pl.col("seq") - 1),
        )
    )
    return (
        book_subscriptions.join(cut, on=["ticker", "seq_from"], how="left", maintain_order="left")
        .with_columns(seq_to=pl.coalesce("_to", "seq_to"))
        .drop("_to")
    )


def _frame_types_between(failed: pl.DataFrame, unknown: pl.DataFrame) -> list[str]:
    """The types of the unknown messages that may have changed one of these books."""
    types: set[str] = set()
    for ticker, low, high in failed.select(pl.col("ticker").cast(pl.String), "seq", "seq_end").iter_rows():
        mine = pl.col("ticker").is_in(["", ticker]) & pl.col("seq").is_between(low, high)
        types.update(unknown.filter(mine)["frame_type"])
    return sorted(types)
