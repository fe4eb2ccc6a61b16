"""How a close reads its gatherers."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import polars as pl
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close import hour_gatherers
from kalshi_platform.deduplicator.coverage.gatherer_hour import CLAIMS, GathererHour, HourQuestion
from kalshi_platform.deduplicator.coverage.streams.check_snapshots import RUN_CHECKS
from kalshi_platform.deduplicator.merge.hour_files import HourFiles
from kalshi_platform.deduplicator.merge.market_buckets import MarketBuckets
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.errors import DatabaseUnavailable

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"
HOUR = datetime(2026, 11, 23, 10, tzinfo=UTC)
NONE_KNOWN = pl.DataFrame(schema={"gatherer": pl.String, "stream_id": pl.Int64, "seq": pl.Int64, "ticker": pl.String})


def test_a_gatherer_that_brings_rows_is_waited_for_and_one_that_stands_still_is_missed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    over = Event()

    def read(source: GathererSource, question: HourQuestion, files: HourFiles) -> GathererHour:
        if source.name == "g2":
            raise DatabaseUnavailable("g2 is away")
        if source.name == "g4":
            over.wait(60)  # it never answers while the others do
        while source.name == "g3" and files.rows_read < 5:
            over.wait(0.1)  # as long as a question may stand still
            files.rows_read += 1
        return GathererHour(pl.DataFrame(schema=CLAIMS), pl.DataFrame(), pl.DataFrame(schema=RUN_CHECKS), frozenset())

    monkeypatch.setattr(hour_gatherers, "read_gatherer_hour", read)
    sources = tuple(GathererSource(name, NOWHERE, NOWHERE) for name in ("g1", "g2", "g3", "g4"))
    settings = DeduplicatorSettings(NOWHERE, sources, close_timeout_s=0.3)
    gatherers = hour_gatherers.HourGatherers(settings, HOUR, SYSTEM_CLOCK)
    with ExitStack() as until:
        until.callback(over.set)
        found, files = gatherers.read_hour(MarketBuckets(), tmp_path, NONE_KNOWN, until)
    assert list(found) == list(files) == ["g1", "g3"]
    assert gatherers.missed["g2"] == "g2 is away"
    assert "no answer within 0.3 s" in gatherers.missed["g4"]
