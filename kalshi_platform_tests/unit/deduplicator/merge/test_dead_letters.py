"""Which rows go aside before production sees them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa

from kalshi_platform.deduplicator.merge.dead_letters import (
    MISDATED,
    NAME_TOO_LONG,
    QuarantinedRows,
    split_implausible_times,
    split_long_names,
)
from kalshi_platform.deduplicator.merge.source import group_windows
from kalshi_platform.storage.partitions import PartitionBounds

NOW = datetime(2026, 11, 30, 6, tzinfo=UTC)
BOUNDS = PartitionBounds()
YEARS = timedelta(days=900)


def rows(*dated: tuple[int, int, timedelta], ticker: str = "A") -> pl.DataFrame:
    """(stream, seq, how long before its receipt it is dated)."""
    return pl.DataFrame(
        [
            {
                "gatherer": "g1", "stream_id": stream, "seq": seq, "ticker": ticker,
                "exchange_ts": NOW + timedelta(seconds=seq) - late, "received_at": NOW + timedelta(seconds=seq),
            }
            for stream, seq, late in dated
        ]
    )  # fmt: skip


def quarantined_seqs(found: tuple[pa.Table, list[QuarantinedRows]]) -> list[int]:
    assert all(each.reason == MISDATED for each in found[1])
    return [seq for each in found[1] for seq in each.rows["seq"].to_list()]


def test_a_row_dated_years_before_its_receipt_and_alone_in_that_is_quarantined() -> None:
    none = timedelta()
    found = split_implausible_times(
        "orderbook_deltas", "g1", rows((1, 3, none), (1, 2, YEARS), (1, 1, none), (2, 9, none)).to_arrow(), BOUNDS
    )
    assert found[0].column("seq").to_pylist() == [3, 1, 9]
    assert quarantined_seqs(found) == [2]
    assert quarantined_seqs(
        split_implausible_times("trades", "g1", rows((1, 1, none), (1, 2, -YEARS)).to_arrow(), BOUNDS)
    ) == [2]


def test_a_capture_that_is_played_again_is_kept() -> None:
    replayed = rows(*((1, seq, YEARS) for seq in range(5)), (2, 1, timedelta()))
    listed = rows((0, 0, YEARS), (0, 0, timedelta()))  # REST rows are of no stream
    for found in (replayed, rows((1, 1, YEARS)), listed):
        kept, asides = split_implausible_times("tickers", "g1", found.to_arrow(), BOUNDS)
        assert (kept.num_rows, asides) == (found.height, [])


def test_rows_with_names_too_long_for_a_key_are_quarantined() -> None:
    kept, asides = split_long_names("trades", pl.concat([rows((1, 1, YEARS)), rows((1, 2, YEARS), ticker="X" * 3_503)]))
    assert kept["seq"].to_list() == [1]
    assert [(each.reason, each.rows["seq"].to_list()) for each in asides] == [(NAME_TOO_LONG, [2])]


def test_wide_windows_are_cut_into_groups_that_leave_nothing_out() -> None:
    hours = [timedelta(hours=n) for n in range(100)]
    windows = [(NOW, NOW + hours[30]), (NOW + hours[40], NOW + hours[41]), (NOW + hours[50], NOW + hours[50])]
    groups = group_windows(windows, hours[10])
    assert all(sum((high - low for low, high in group), timedelta()) <= hours[10] for group in groups)
    pieces = [piece for group in groups for piece in group]
    for moment in (NOW, NOW + hours[10] - timedelta(microseconds=1), NOW + hours[10], NOW + hours[41], NOW + hours[50]):
        assert sum(low <= moment <= high for low, high in pieces) == 1
    assert group_windows(windows[1:], hours[10]) == [windows[1:]]
    assert group_windows([], hours[10]) == [[]]
