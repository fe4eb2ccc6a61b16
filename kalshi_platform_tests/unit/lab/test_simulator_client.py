"""Who holds which books, by what a simulated exchange tells of itself."""

from __future__ import annotations

from typing import Any

import pytest

from kalshi_platform.lab.simulator_client import BOOK_CHANNEL, FEED_CHANNELS, SimulatorClient


def connection(agent: str, *books: tuple[int, int], feeds: bool = False, stalled: bool = False) -> dict[str, Any]:
    subscriptions: list[dict[str, Any]] = [
        {"channel": BOOK_CHANNEL, "markets": markets, "snapshots": snapshots} for markets, snapshots in books
    ]
    if feeds:
        subscriptions += [{"channel": name, "markets": None, "snapshots": 0} for name in FEED_CHANNELS]
    return {"user_agent": f"platform ({agent})", "stalled": stalled, "subscriptions": subscriptions}


FEED = connection("g1 feed", feeds=True)


@pytest.mark.parametrize(
    ("connections", "following", "holding_all"),
    [
        ([FEED, connection("g1 books", (10, 10))], True, True),
        ([FEED, connection("g1 books", (4, 4)), connection("g1 books", (6, 7))], True, True),
        ([FEED, connection("g1 books", (9, 9))], True, False),
        ([FEED, connection("g1 books", (10, 9))], False, False),
        ([FEED, connection("g1 books", (5, 5)), connection("g1 books", (5, 4))], False, False),
        ([FEED], False, False),
        ([connection("g1 books", (10, 10))], False, False),
        ([FEED, connection("g1 books", (10, 10), stalled=True)], False, False),
        ([FEED, connection("g2 books", (10, 10))], False, False),
    ],
)
def test_a_gatherer_follows_when_it_was_sent_every_book_and_hears_the_feeds(
    monkeypatch: pytest.MonkeyPatch, connections: list[dict[str, Any]], following: bool, holding_all: bool
) -> None:
    venue = SimulatorClient("http://127.0.0.1:1")
    state = {"connections": connections, "quoting": 8, "markets": {"active": 11, "initialized": 2}}
    monkeypatch.setattr(venue, "state", lambda: state)
    assert (venue.following("g1"), venue.holding_all("g1")) == (following, holding_all)
