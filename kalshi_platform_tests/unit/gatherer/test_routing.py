"""Sessions that must end: nothing is received until none is open, then everything is."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kalshi_platform.gatherer.capture.exchange_clock import ExchangeClock
from kalshi_platform.gatherer.markets.registry import Registry
from kalshi_platform.gatherer.routing import MarketFollower, Router, SessionRequests
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.channel_counters import ChannelCounters
from kalshi_platform.market.clock_offset import Offset
from kalshi_platform.market.frames import FrameBatch, FrameKind
from kalshi_platform.market.records import LifecycleEvent, SessionOpened, StreamOpened
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.exchange import eventually
from kalshi_platform_tests.fixtures.journals import a_journal, frames_of, items_of

SETTINGS = GathererSettings(name="g1", timeseries_url="", catalog_url="", state_dir=Path(), follow_books=False)


class Pool:
    """Stands for the pool: connections that are open or not, and the calls it gets."""

    def __init__(self, connections: int = 0) -> None:
        self.connections = [SimpleNamespace(is_open=True) for _ in range(connections)]
        self.slots = [SimpleNamespace(connections=lambda each=each: iter([each])) for each in self.connections]
        self.steps = 0
        self.resubscribed: list[str] = []
        self.resubscribed_missing: list[str] = []
        self.lost: list[tuple[int, Sequence[str]]] = []
        self.fails = False

    def set_markets(self, _: Mapping[str, int]) -> None:
        self.steps += 1
        if self.fails:
            raise RuntimeError("can't start new thread")

    def resubscribe(self, tickers: Sequence[str]) -> None:
        self.resubscribed += tickers

    def resubscribe_missing(self, tickers: Sequence[str]) -> None:
        self.resubscribed_missing += tickers

    def books_lost(self, session_id: int, tickers: Sequence[str]) -> None:
        self.lost.append((session_id, tickers))


def follower_of(pool: Pool, requests: SessionRequests) -> MarketFollower:
    registry = Registry(SETTINGS.market_filter, 0.0)
    return MarketFollower(SETTINGS, FakeClock(), registry, cast(Any, None), cast(Any, pool), requests)


def router_of(requests: SessionRequests) -> Router:
    journal = SimpleNamespace(is_writable=lambda: True)
    others: Any = None
    return Router(SETTINGS, FakeClock(), cast(Any, journal), others, others, others, others, others, requests)


def test_every_session_ends_before_the_first_one_may_begin() -> None:
    requests, pool = SessionRequests("g1"), Pool(connections=3)
    router, stop = router_of(requests), threading.Event()
    following = threading.Thread(target=follower_of(pool, requests).run, args=(stop,))
    following.start()
    try:

        def two_more_steps() -> None:
            enough = pool.steps + 2

            def are_done() -> bool:
                requests.changed.set()
                return pool.steps >= enough

            eventually(are_done, what="two more steps")

        assert router.may_receive()
        requests.restart_sessions()
        assert not router.may_receive()
        for connection in pool.connections:
            two_more_steps()
            assert not router.may_receive()
            connection.is_open = False
        requests.changed.set()
        eventually(router.may_receive)
    finally:
        stop.set()
        requests.changed.set()
        following.join(10)
    assert not following.is_alive()


def test_sessions_begin_again_and_requests_are_done_although_markets_cannot_be_followed() -> None:
    requests, pool = SessionRequests("g1"), Pool()
    pool.fails = True
    requests.restart_sessions()
    requests.resubscribe(["A"])
    requests.resubscribe(["A"])
    requests.resubscribe_missing(["B"])
    requests.books_lost(7, ["C"])
    with pytest.raises(RuntimeError):
        follower_of(pool, requests).run(threading.Event())
    assert router_of(requests).may_receive()
    assert (pool.resubscribed, pool.resubscribed_missing) == (["A"], ["B"])
    assert pool.lost == [(7, ["C"])]
    assert (requests.pop(), requests.pop_lost_books()) == (([], []), [])


def test_a_batch_is_in_the_journal_before_it_is_counted_and_lifecycle_goes_on_to_the_catalog(tmp_path: Path) -> None:
    journal = a_journal(tmp_path)
    events: list[LifecycleEvent] = []
    syncs: list[int] = []
    router = Router(
        SETTINGS, FakeClock(), journal, cast(Any, None), cast(Any, SimpleNamespace(on_lifecycle_event=events.append)),
        cast(Any, SimpleNamespace(request_sync=lambda: syncs.append(1))), cast(Any, None), cast(Any, None),
        SessionRequests("g1"),
    )  # fmt: skip
    counters = ChannelCounters()
    for session_id in (1, 2):
        batch = FrameBatch()
        batch.mark(SessionOpened(session_id, "feed", "ws://x", False, 1))
        batch.mark(StreamOpened(10 + session_id, session_id, 1, "market_lifecycle_v2", 1))
        batch.mark(StreamOpened(20 + session_id, session_id, 2, "trade", 1))
        event = b'{"type":"market_lifecycle_v2","sid":1,"seq":1,"msg":{"market_ticker":"A","event_type":"created"}}'
        batch.payloads += [event, b'{"type":"market_lifecycle_v2"', b'{"type":"trade"}', b"{}"]
        batch.received_at_ns += [5, 5, 5, 5]
        batch.stream_ids += [10 + session_id, 10 + session_id, 20 + session_id, 20 + session_id]
        batch.numbers += [1, 2, 1, 2]
        batch.kinds += [0, 0, 0, int(FrameKind.CONTROL)]
        router.on_feed_batch(counters, session_id, batch)
    journal.close()
    assert len(frames_of(items_of(tmp_path))) == 8
    assert [(event.ticker, event.stream_id) for event in events] == [("A", 11), ("A", 12)]
    # What was announced between the two is not repeated.
    assert syncs == [1]
    counted = ChannelCounters.sum([counters], 0.0)
    assert (counted["market_lifecycle_v2"].messages, counted["trade"].messages) == (4, 2)


def test_a_journal_that_takes_nothing_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    writable = iter([True, False, False, True])
    journal = SimpleNamespace(is_writable=lambda: next(writable), blocked_reason="the disk is full: make room")
    others: Any = None
    router = Router(
        SETTINGS, FakeClock(), cast(Any, journal), others, others, others, others, others, SessionRequests("g1")
    )
    assert [router.may_receive() for _ in range(4)] == [True, False, False, True]
    said = [message.split()[0] for message in caplog.messages]
    assert said == ["recording_stalled", "recording_resumed"]
    assert "the disk is full" in caplog.text


@pytest.mark.parametrize("set_by_s", [90.0, -90.0])
def test_markets_open_and_close_by_the_clock_of_the_exchange(set_by_s: float) -> None:
    clock = FakeClock()
    begin_us, offset = clock.now_ns() // 1_000, Offset(-0.1, 0.1)
    exchange = ExchangeClock(clock, lambda: offset)

    def passed_s() -> float:
        return round((exchange.now_us() - begin_us) / 1e6, 3)

    clock.step(10.0)
    assert passed_s() == 10.0
    clock.set_wall(set_by_s)
    clock.step(1.0)
    assert passed_s() == 11.0, "the exchange was not read since"
    offset = Offset(set_by_s - 0.4, set_by_s + 0.4)
    assert passed_s() == 11.0
    clock.set_wall(-set_by_s)
    clock.step(1.0)
    assert passed_s() == 12.0
    offset = Offset(-0.3, 0.1)
    assert passed_s() == 12.0
    # A machine that was wrong from the beginning is right with the first answer.
    clock.set_wall(set_by_s)
    late = ExchangeClock(clock, lambda: Offset(set_by_s, set_by_s + 0.2))
    assert abs((late.now_us() - begin_us) / 1e6 - 12.0) < 0.2
