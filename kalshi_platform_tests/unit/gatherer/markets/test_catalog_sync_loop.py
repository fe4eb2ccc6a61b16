"""When the lists of REST are read again."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kalshi_platform.catalog.store import SyncReport
from kalshi_platform.clock import Clock
from kalshi_platform.errors import ExchangeUnavailable
from kalshi_platform.gatherer.markets import catalog_sync_loop
from kalshi_platform.gatherer.markets.catalog_sync_loop import CatalogSyncLoop
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform_tests.fixtures.clocks import FakeClock

EVERY_S = 300.0


class RecordedSyncs:
    """A sync_loop whose syncs only note when they came; `until_s` of a clock that nobody waits for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, until_s: float) -> None:
        self.stop = threading.Event()
        self.at: list[float] = []
        self.clock = FakeClock()
        self._until_s = until_s
        for what in ("series", "events", "markets"):
            monkeypatch.setattr(catalog_sync_loop, f"sync_{what}", self._sync_of(what))
        settings = GathererSettings(
            name="g1", timeseries_url="", catalog_url="", state_dir=tmp_path, reconcile_interval_s=EVERY_S,
            events_interval_s=10_000, catalog_follow_interval_s=1,
        )  # fmt: skip
        nothing: Any = None
        self.sync_loop = CatalogSyncLoop(settings, nothing, nothing, nothing, self.clock, lambda: None, lambda _: None)
        self.poller = SimpleNamespace(refresh=lambda: False, poll=self._followed)
        monkeypatch.setattr(self.sync_loop, "_poller", self.poller)

    def run(self) -> list[float]:
        """Moments of the syncs of markets after the first, in seconds."""
        self.sync_loop.load(self.stop)
        self.at.clear()
        self.sync_loop.run(self.stop)
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
    assert RecordedSyncs(monkeypatch, tmp_path, 700).run() == pytest.approx([5, 305, 605], abs=0.1)


def test_they_are_read_twice_after_announcements_were_missed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    watched = RecordedSyncs(monkeypatch, tmp_path, 500)
    followed = watched.poller.poll

    def follow() -> bool:
        if 99.5 < watched.clock.monotonic() < 100.5:
            watched.sync_loop.request_sync()
        return bool(followed())

    watched.poller.poll = follow
    first, at_once, again, *later = watched.run()
    assert first == pytest.approx(5, abs=0.1)
    assert at_once == pytest.approx(100, abs=2)
    assert again - at_once == pytest.approx(5, abs=0.1)
    assert later == pytest.approx([again + EVERY_S], abs=0.1)


class Listings(RecordedSyncs):
    """A sync_loop of which some listings fail, or lack something; `done` has the syncs in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, until_s: float, **troubles: Any) -> None:
        self.done: list[tuple[str, str]] = []
        self._troubles = troubles
        super().__init__(monkeypatch, tmp_path, until_s)
        monkeypatch.setattr(self.sync_loop, "_registry", SimpleNamespace(counts=dict))

    def _sync_of(self, what: str) -> Any:
        whole = super()._sync_of(what)

        def sync(*args: Any) -> SyncReport:
            report: SyncReport = whole(*args)
            self.done.append((what, report.scope))
            trouble = self._troubles.get(what)
            if isinstance(trouble, Exception):
                raise trouble
            return report._replace(left_out=trouble, lacks=f"{trouble} left out") if trouble else report

        return sync


def test_markets_are_synced_first_and_do_not_wait_for_series_and_events(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listings = Listings(monkeypatch, tmp_path, 400, series=ExchangeUnavailable("GET /series: HTTP 500", status=500))
    listings.sync_loop.load(listings.stop)
    assert [what for what, _ in listings.done] == ["markets", "series", "events"]
    assert list(listings.sync_loop.failing) == ["series"]
    listings.done.clear()
    listings.sync_loop.run(listings.stop)
    assert ("markets", "incremental") in listings.done
    assert "events" not in [what for what, _ in listings.done]  # it was whole, and is not due yet
    # Asked again by itself, ever more rarely: 5, 10, 20 … s after the one before.
    assert listings.done.count(("series", "full")) == 7
    assert "HTTP 500" in listings.sync_loop.failing["series"]


def test_a_listing_that_lacks_something_is_no_whole_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listings = Listings(monkeypatch, tmp_path, 30, markets=3)
    listings.sync_loop.load(listings.stop)
    assert (listings.sync_loop.failing, listings.sync_loop.left_out) == ({"markets": "3 left out"}, 3)
    assert "markets" not in listings.sync_loop.last_synced
    # 3 of 3: the exchange sends something else than it did.
    assert any("catalog_objects_left_out" in each.message and each.levelname == "ERROR" for each in caplog.records)
    listings.done.clear()
    listings.sync_loop.run(listings.stop)
    assert set(listings.done) == {("markets", "full")}


def test_a_start_without_any_market_keeps_trying(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listings = Listings(monkeypatch, tmp_path, 1e9, markets=ExchangeUnavailable("GET /markets: HTTP 500"))
    heal = iter(range(5))

    def refresh() -> bool:
        if next(heal) == 3:
            del listings._troubles["markets"]
        return False

    listings.poller.refresh = refresh
    listings.sync_loop.load(listings.stop)
    assert [what for what, _ in listings.done].count("markets") == 4
    assert [what for what, _ in listings.done].count("series") == 1
    assert listings.sync_loop.failing == {}
