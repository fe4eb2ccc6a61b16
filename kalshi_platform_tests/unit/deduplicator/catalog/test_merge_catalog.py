"""Who knows a market best."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from kalshi_platform.deduplicator.catalog.merge_catalog import find_newest

T0 = datetime(2026, 11, 23, 10, tzinfo=UTC)
OPEN, TOLD, LOST = (False, False), (True, False), (False, True)
"""(has_end, lost_end): nothing known of an end; its result known; deleted, and its result never heard."""


def knows(*rows: tuple[int, tuple[bool, bool]]) -> pl.DataFrame:
    return pl.DataFrame(
        [("A", T0 + timedelta(minutes=minutes), *end) for minutes, end in rows],
        schema={
            "ticker": pl.String, "known_at": pl.Datetime("us", "UTC"), "has_end": pl.Boolean, "lost_end": pl.Boolean,
        },
        orient="row",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("g1", "g2", "here", "best"),
    [
        (knows((1, OPEN)), knows((2, OPEN)), knows(), ["g2"]),
        (knows((2, OPEN)), knows((2, OPEN)), knows(), ["g1"]),
        (knows((2, OPEN)), knows((1, OPEN)), knows((2, OPEN)), []),
        (knows((3, OPEN)), knows((1, OPEN)), knows((2, OPEN)), ["g1"]),
        # Who was away at the end, and found the market deleted later, does not outweigh who heard its result.
        (knows((1, TOLD)), knows((9, LOST)), knows(), ["g1"]),
        (knows((1, TOLD)), knows((9, LOST)), knows((1, TOLD)), []),
        (knows((1, TOLD)), knows((9, LOST)), knows((9, LOST)), ["g1"]),
        (knows(), knows((9, LOST)), knows((1, TOLD)), []),
        # But where nobody heard it, deleted is what it is.
        (knows((1, OPEN)), knows((9, LOST)), knows((1, OPEN)), ["g2"]),
        (knows(), knows(), knows((1, OPEN)), []),
    ],
)
def test_the_newest_knowledge_wins_but_not_over_a_known_end(
    g1: pl.DataFrame, g2: pl.DataFrame, here: pl.DataFrame, best: list[str]
) -> None:
    assert find_newest({"g1": g1, "g2": g2}, here)["source"].to_list() == best


def test_series_and_events_have_no_ends() -> None:
    plain = knows((1, OPEN)).drop("has_end", "lost_end")
    assert find_newest({"g1": plain}, plain.clear())["source"].to_list() == ["g1"]
    assert find_newest({}, plain)["source"].to_list() == []
