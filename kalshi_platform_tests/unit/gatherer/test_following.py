"""No failure while connections are told their markets ends a gatherer."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.gatherer import service as service_module
from kalshi_platform.gatherer.service import GathererService
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.keys import private_key_pem


def test_a_failure_to_follow_is_logged_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://nobody@127.0.0.1:1/none"
    service = GathererService(
        GathererSettings(name="g1", timeseries_url=url, catalog_url=url, state_dir=tmp_path, follow_books=False),
        ExchangeSettings(key_id="3c1f0a52-7d0e-4a33-9a9e-0f4a1b2c3d4e", private_key_pem=private_key_pem()),
        FakeClock(), PartitionBounds(),
    )  # fmt: skip
    calls: list[threading.Event] = []

    def follow(stop: threading.Event) -> None:
        calls.append(stop)
        if len(calls) < 3:
            raise RuntimeError("can't start new thread")

    parts = service.parts
    monkeypatch.setattr(service_module, "wait_until_active", lambda *_: True)
    monkeypatch.setattr(service._threads, "start", lambda *_: None)
    monkeypatch.setattr(parts.fleet, "start_feed", lambda: None)
    monkeypatch.setattr(parts.fleet, "start_books", lambda: None)
    monkeypatch.setattr(parts.router, "follow", follow)
    try:
        service._record()
    finally:
        parts.dispose()
    assert len(calls) == 3
