"""A claim spans a message that nobody can read only where snapshots on both sides prove that it changed nothing."""

from __future__ import annotations

import polars as pl

from kalshi_platform.deduplicator.coverage.streams.check_snapshots import RUN_CHECKS
from kalshi_platform.deduplicator.coverage.streams.seq_ranges import clip_to_range, merge_segments
from kalshi_platform.deduplicator.coverage.streams.unknown_frames import UNKNOWN, find_doubted, truncate_subscriptions

# Two markets, each with snapshots at 1 and 10 (A) or 2 and 11 (B); both are followed to the end of the run.
BOOK_SUBSCRIPTIONS = pl.DataFrame(
    [(1, "A", 0, 1, 10), (1, "A", 0, 10, None), (1, "B", 0, 2, 11), (1, "B", 0, 11, None)],
    schema={
        "stream_id": pl.Int64, "ticker": pl.String, "exchange_index": pl.Int64, "seq_from": pl.Int64, "seq_to": pl.Int64
    },
    orient="row",
)  # fmt: skip
SEGMENTS = pl.DataFrame([(1, 1, 20)], schema=["stream_id", "seq_from", "seq_to"], orient="row")


def stands(
    unknown: list[tuple[int, str, str]], checks: list[tuple[str, int, int, bool]]
) -> list[tuple[str, int, int | None]]:
    frames = pl.DataFrame(unknown, schema=UNKNOWN, orient="row")
    doubted = find_doubted(clip_to_range(BOOK_SUBSCRIPTIONS, merge_segments(SEGMENTS)), frames)
    rows = [(1, ticker, seq, following, 0, 0, passed) for ticker, seq, following, passed in checks]
    found = truncate_subscriptions(
        BOOK_SUBSCRIPTIONS, doubted, frames, pl.DataFrame(rows, schema=RUN_CHECKS, orient="row")
    )
    return found.select("ticker", "seq_from", "seq_to").rows()


def test_a_subscription_that_no_snapshot_proves_ends_before_the_unknown_message() -> None:
    assert stands([(5, "news", ""), (15, "news", "")], [("A", 1, 10, True), ("B", 2, 11, True)]) == [
        ("A", 1, 10), ("A", 10, 14), ("B", 2, 11), ("B", 11, 14)
    ]  # fmt: skip


def test_a_message_that_names_a_market_concerns_no_other() -> None:
    assert stands([(5, "news", "B")], []) == [("A", 1, 10), ("A", 10, None), ("B", 2, 4), ("B", 11, None)]


def test_one_changed_book_disproves_its_frame_type_for_all_markets() -> None:
    checks = [("A", 1, 10, True), ("B", 2, 11, False)]
    assert stands([(5, "news", "")], checks) == [("A", 1, 4), ("A", 10, None), ("B", 2, 1), ("B", 11, None)]
    # A's message was of another type than B's.
    named = [(5, "views", "A"), (6, "news", "B")]
    assert stands(named, checks) == [("A", 1, 10), ("A", 10, None), ("B", 2, 1), ("B", 11, None)]


def test_a_stream_without_unknown_messages_is_unchanged() -> None:
    assert stands([], []) == BOOK_SUBSCRIPTIONS.select("ticker", "seq_from", "seq_to").rows()
