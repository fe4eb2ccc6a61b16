"""How a close reads its gatherers."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import polars as pl
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close import hour_gatherers
from kalshi_platform.deduplicator.coverage.gatherer_hour import CLAIMS, GathererHour
from kalshi_platform.deduplicator.coverage.streams.check_snapshots import RUN_CHECKS
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.errors import DatabaseUnavailable

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"
HOUR = datetime(2026, 11, 23, 10, tzinfo=UTC)


def test_claims_are_read_from_one_gatherer_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, other = threading.Lock(), threading.Event()
    at_once, most, asked = 0, 0, []

    def read(source: GathererSource, low_us: int, high_us: int, max_out_of_orderness_us: int) -> GathererHour:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
            asked.append(source.name)
            if at_once > 1:
                other.set()
        other.wait(0.1)  # a second one that is asked meanwhile comes within this time
        with lock:
            at_once -= 1
        if source.name == "g2":
            raise DatabaseUnavailable("g2 is away")
        return GathererHour(pl.DataFrame(schema=CLAIMS), pl.DataFrame(), pl.DataFrame(schema=RUN_CHECKS), frozenset())

    monkeypatch.setattr(hour_gatherers, "_read_checked_hour", read)
    sources = tuple(GathererSource(name, NOWHERE, NOWHERE) for name in ("g1", "g2", "g3"))
    settings = DeduplicatorSettings(NOWHERE, sources)
    gatherers = hour_gatherers.HourGatherers(settings, HOUR, SYSTEM_CLOCK)
    assert list(gatherers.read_claims()) == ["g1", "g3"]
    assert list(gatherers.missed) == ["g2"]
    assert (asked, most) == (["g1", "g2", "g3"], 1)
