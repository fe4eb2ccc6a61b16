"""When the lists of REST are read again."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kalshi_platform.catalog.store import SyncReport
from kalshi_platform.clock import Clock
from kalshi_platform.gatherer import catalog_keeper
from kalshi_platform.gatherer.catalog_keeper import CatalogKeeper
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform_tests.fixtures.clocks import FakeClock

EVERY_S = 300.0


class Watched:
    """A keeper whose syncs only note when they came; `until_s` of a clock that nobody waits for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, until_s: float) -> None:
        self.stop = threading.Event()
        self.at: list[float] = []
        self.clock = FakeClock()
        self._until_s = until_s
        for what in ("series", "events", "markets"):
            monkeypatch.setattr(catalog_keeper, f"sync_{what}", self._sync_of(what))
        settings = GathererSettings(
            name="g1", timeseries_url="", catalog_url="", state_dir=tmp_path, reconcile_interval_s=EVERY_S,
            events_interval_s=10_000, catalog_follow_interval_s=1,
        )  # fmt: skip
        nothing: Any = None
        self.keeper = CatalogKeeper(settings, nothing, nothing, nothing, self.clock, lambda: None, lambda _: None)
        self.follower = SimpleNamespace(refresh=lambda: False, follow=self._followed)
        monkeypatch.setattr(self.keeper, "_follower", self.follower)

    def run(self) -> list[float]:
        """Moments of the syncs of markets after the first, in seconds."""
        self.keeper.load(self.stop)
        self.at.clear()
        self.keeper.run(self.stop)
        return self.at

    def _followed(self) -> bool:
        if self.clock.monotonic() >= self._until_s:
            self.stop.set()
        return False

    def _sync_of(self, what: str) -> Any:
        def sync(_rest: object, _store: object, clock: Clock, full: bool, *_listed: object) -> SyncReport:
            if what == "markets":
                self.at.append(clock.monotonic())
            return SyncReport(what, "full" if full else "incremental", 0, 0, clock.now(), clock.now())

        return sync


def test_the_lists_are_read_again_soon_after_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Watched(monkeypatch, tmp_path, 700).run() == pytest.approx([5, 305, 605], abs=0.1)


def test_they_are_read_twice_after_announcements_were_missed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    watched = Watched(monkeypatch, tmp_path, 500)
    followed = watched.follower.follow

    def follow() -> bool:
        if 99.5 < watched.clock.monotonic() < 100.5:
            watched.keeper.hurry()
        return bool(followed())

    watched.follower.follow = follow
    first, at_once, again, *later = watched.run()
    assert first == pytest.approx(5, abs=0.1)
    assert at_once == pytest.approx(100, abs=2)
    assert again - at_once == pytest.approx(5, abs=0.1)
    assert later == pytest.approx([again + EVERY_S], abs=0.1)
