"""What a connection does in its session, without a socket of its own."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.errors import ConnectionLost
from kalshi_platform.exchange.protocol.session import Session
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.gatherer.capture.connections import Connection
from kalshi_platform.gatherer.ids import IdSource
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.market.frames import FrameBatch
from kalshi_platform.market.records import BookSubscriptionEnded, SessionClosed, SessionOpened
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.keys import private_key_pem
from kalshi_platform_tests.unit.exchange.frames_of import delta, snapshot, subscribed


def connection_of(
    tmp_path: Path, put: Callable[..., None] = lambda *_: None, clock: Clock = SYSTEM_CLOCK
) -> Connection:
    settings = GathererSettings(name="g1", timeseries_url="", catalog_url="", state_dir=tmp_path)
    exchange = ExchangeSettings(key_id="3c1f0a52-7d0e-4a33-9a9e-0f4a1b2c3d4e", private_key_pem=private_key_pem())
    ids = IdSource("g1", SYSTEM_CLOCK)
    return Connection("books-0", settings, exchange, clock, ids, threading.Event(), put, lambda *_: None)


def ended(batch: FrameBatch) -> list[tuple[str, str]]:
    return [(mark.ticker, mark.reason) for _, mark in batch.marks if isinstance(mark, BookSubscriptionEnded)]


def test_book_subscriptions_started_during_overlap_tracking_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connection_of(tmp_path)
    connection.set_markets({"A": 0, "B": 0})
    # Two frames are missing before the last delta: both markets need another snapshot.
    frames = [subscribed(), snapshot(1, "A"), snapshot(2, "B"), delta(3, "A"), delta(6, "A"), snapshot(7, "A")]
    resubscribed: list[frozenset[str]] = []

    def receive() -> tuple[bytes, int] | None:
        resubscribed.append(connection.resubscribed())
        if len(resubscribed) == 3:
            connection.start_overlap_tracking()
        if frames:
            return frames.pop(0), SYSTEM_CLOCK.now_ns()
        connection.close_after_handover("the end")
        return None

    monkeypatch.setattr(connection._socket, "send", lambda _: None)
    monkeypatch.setattr(connection._socket, "receive", receive)
    monkeypatch.setattr(connection._socket, "receive_ready", list)
    monkeypatch.setattr(connection._socket, "close", lambda: None)
    connection._run_session()
    assert resubscribed == [frozenset()] * 3 + [frozenset("B")] * 3 + [frozenset("AB")]
    assert connection.resubscribed() == {"A", "B"}
    connection.start_overlap_tracking()
    connection._followed = frozenset("A")
    connection._run_session()
    assert connection.resubscribed() == {"A"}


def test_resubscribe_missing_skips_followed_markets_and_resubscribe_does_not(tmp_path: Path) -> None:
    session = Session(1, itertools.count(1).__next__)
    session.tick(1)
    connection = connection_of(tmp_path)
    connection.set_markets({"A": 0, "B": 0})
    connection._apply_desired_state(session)
    session.pop_commands()
    session.receive_all([(subscribed(), 2), (snapshot(1, "A"), 3)], 3)
    connection.resubscribe_missing(["A", "B", "C"])
    connection._apply_desired_state(session)
    assert session.followed() == {"A"}
    assert ended(session.pop_batch()) == []
    (delete,) = [json.loads(command) for command in session.pop_commands()]
    assert (delete["params"]["action"], delete["params"]["market_tickers"]) == ("delete_markets", ["B"])
    connection.resubscribe(["A"])
    connection._apply_desired_state(session)
    assert ended(session.pop_batch()) == [("A", "unsubscribed")]


def test_lost_books_get_a_new_snapshot_in_the_session_that_lost_them_only(tmp_path: Path) -> None:
    session = Session(1, itertools.count(1).__next__)
    session.tick(1)
    connection = connection_of(tmp_path)
    connection.set_markets({"A": 0, "B": 0})
    connection._apply_desired_state(session)
    session.receive_all([(subscribed(), 2), (snapshot(1, "A"), 3), (snapshot(2, "B"), 3)], 3)
    connection.books_lost(1, ["B"])
    assert connection._lost_books == []
    connection.counters.state = "open"
    connection.books_lost(2, ["B"])
    connection.books_lost(1, ["A"])
    connection._apply_desired_state(session)
    (request,) = [json.loads(command) for command in session.pop_commands()]
    assert (request["params"]["action"], request["params"]["market_tickers"]) == ("get_snapshot", ["A"])
    assert session.followed() == {"B"}


def test_the_end_of_a_book_subscription_is_put_when_sending_its_delete_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[FrameBatch] = []
    connection = connection_of(tmp_path, lambda _session_id, batch: batches.append(batch))
    connection.set_markets({"A": 0})
    frames = [subscribed(), snapshot(1, "A")]

    def send(command: bytes) -> None:
        if json.loads(command).get("params", {}).get("action") == "delete_markets":
            raise ConnectionLost("gone")

    def receive() -> tuple[bytes, int] | None:
        if frames:
            return frames.pop(0), SYSTEM_CLOCK.now_ns()
        connection.set_markets({})
        return None

    monkeypatch.setattr(connection._socket, "send", send)
    monkeypatch.setattr(connection._socket, "receive", receive)
    monkeypatch.setattr(connection._socket, "receive_ready", list)
    monkeypatch.setattr(connection._socket, "close", lambda: None)
    connection._run_session()
    assert [each for batch in batches for each in ended(batch)] == [("A", "unsubscribed")]
    assert isinstance(batches[0].marks[0][1], SessionOpened)
    assert isinstance(batches[-1].marks[-1][1], SessionClosed)


def test_a_session_whose_end_the_journal_cannot_hold_is_closed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[FrameBatch] = []
    closed: list[str] = []

    def put(_: int, batch: FrameBatch) -> None:
        if ended(batch):
            raise ValueError("a batch that no block can hold")
        batches.append(batch)

    connection = connection_of(tmp_path, put)
    connection.set_markets({"A": 0})
    frames = [subscribed(), snapshot(1, "A")]

    def receive() -> tuple[bytes, int]:
        if frames:
            return frames.pop(0), SYSTEM_CLOCK.now_ns()
        raise ConnectionLost("gone")

    monkeypatch.setattr(connection._socket, "send", lambda _: None)
    monkeypatch.setattr(connection._socket, "receive", receive)
    monkeypatch.setattr(connection._socket, "receive_ready", list)
    monkeypatch.setattr(connection._socket, "close", lambda: closed.append("socket"))
    with pytest.raises(ValueError, match="no block can hold"):
        connection._run_session()
    assert closed == ["socket"]
    assert connection._ids.sessions == frozenset()
    assert connection.counters.state == "waiting"
    ((_, mark),) = batches[-1].marks
    assert isinstance(mark, SessionClosed)


def test_markets_that_lose_their_claim_soon_again_are_resubscribed_ever_more_rarely(tmp_path: Path) -> None:
    clock = FakeClock()
    session = Session(1, itertools.count(1).__next__)
    session.tick(1)
    connection = connection_of(tmp_path, clock=clock)
    books = {f"M{number}": 0 for number in range(136)}
    connection.set_markets(books)
    connection._apply_desired_state(session)
    session.pop_commands()
    session.receive_all([(subscribed(), 1)], 1)
    waves: list[float] = []

    def commands() -> bool:
        """Whether some were made; all are answered: what was taken away is gone, what was added has its place."""
        nonlocal session
        connection._apply_desired_state(session)
        made = bool(session.pop_commands())
        if made:
            waves.append(clock.monotonic())
            session = Session(1, itertools.count(1).__next__)
            session.subscribe_books(books)
            session.receive_all([(subscribed(), 1)], 1)
            session.pop_commands()
        return made

    # Every commit tells that the exchange's clock leapt.
    for _ in range(600 * 4):
        connection.resubscribe(list(books))
        commands()
        clock.step(0.25)
    assert len(waves) <= 25
    assert all(32 <= later - earlier <= 64.25 for earlier, later in itertools.pairwise(waves[12:]))
    (alarm,) = connection._count_resubscribed_rarely(session, clock.monotonic())
    assert (alarm.kind, connection.counters.resubscribed_rarely) == ("asked_rarely", 136)
    assert connection._count_resubscribed_rarely(session, clock.monotonic()) == []
    # What comes back and stays is renewed at once again.
    clock.step(100.0)
    assert commands()
    clock.step(31.0)
    connection.resubscribe(["M1"])
    assert commands()
    connection._count_resubscribed_rarely(session, clock.monotonic())
    assert connection.counters.resubscribed_rarely == 0
