"""What a connection does in its session, without a socket of its own."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import ConnectionLost
from kalshi_platform.exchange.session import Session
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.gatherer.connections import Connection
from kalshi_platform.gatherer.ids import IdSource
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.market.records import MembershipEnded, Record
from kalshi_platform_tests.fixtures.keys import private_key_pem
from kalshi_platform_tests.unit.exchange.frames_of import delta, snapshot, subscribed


def connection_of(tmp_path: Path, put: Callable[..., None] = lambda _: None) -> Connection:
    settings = GathererSettings(name="g1", timeseries_url="", catalog_url="", state_dir=tmp_path)
    exchange = ExchangeSettings(key_id="3c1f0a52-7d0e-4a33-9a9e-0f4a1b2c3d4e", private_key_pem=private_key_pem())
    ids = IdSource("g1", SYSTEM_CLOCK)
    return Connection("books-0", settings, exchange, SYSTEM_CLOCK, ids, threading.Event(), put, lambda *_: None)


def ended(records: list[Record]) -> list[tuple[str, str]]:
    return [(record.ticker, record.reason) for record in records if isinstance(record, MembershipEnded)]


def test_what_begins_while_the_feed_is_watched_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = connection_of(tmp_path)
    connection.want_books({"A": 0, "B": 0})
    # Two frames are missing before the last delta: both markets need another snapshot.
    frames = [subscribed(), snapshot(1, "A"), snapshot(2, "B"), delta(3, "A"), delta(6, "A"), snapshot(7, "A")]
    begun: list[frozenset[str]] = []

    def receive() -> tuple[bytes, int] | None:
        begun.append(connection.begun())
        if len(begun) == 3:
            connection.watch_feed()
        if frames:
            return frames.pop(0), SYSTEM_CLOCK.now_ns()
        connection.retire("the end")
        return None

    monkeypatch.setattr(connection._socket, "send", lambda _: None)
    monkeypatch.setattr(connection._socket, "receive", receive)
    monkeypatch.setattr(connection._socket, "receive_ready", list)
    monkeypatch.setattr(connection._socket, "close", lambda: None)
    connection._live()
    assert begun == [frozenset()] * 3 + [frozenset("B")] * 3 + [frozenset("AB")]
    assert connection.begun() == {"A", "B"}
    connection.watch_feed()
    connection._followed = frozenset("A")
    connection._live()
    assert connection.begun() == {"A"}


def test_only_markets_that_are_not_followed_are_restored_but_any_is_renewed(tmp_path: Path) -> None:
    session = Session(1, itertools.count(1).__next__)
    session.tick(1)
    connection = connection_of(tmp_path)
    connection.want_books({"A": 0, "B": 0})
    connection._apply_wishes(session)
    session.take_commands()
    session.receive_all([(subscribed(), 2), (snapshot(1, "A"), 3)])
    connection.restore(["A", "B", "C"])
    connection._apply_wishes(session)
    assert session.followed() == {"A"}
    assert ended(session.take_records()) == []
    (delete,) = [json.loads(command) for command in session.take_commands()]
    assert (delete["params"]["action"], delete["params"]["market_tickers"]) == ("delete_markets", ["B"])
    connection.renew(["A"])
    connection._apply_wishes(session)
    assert ended(session.take_records()) == [("A", "unsubscribed")]


def test_the_end_of_a_membership_is_put_when_sending_its_delete_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[Record] = []
    connection = connection_of(tmp_path, records.extend)
    connection.want_books({"A": 0})
    frames = [subscribed(), snapshot(1, "A")]

    def send(command: bytes) -> None:
        if json.loads(command).get("params", {}).get("action") == "delete_markets":
            raise ConnectionLost("gone")

    def receive() -> tuple[bytes, int] | None:
        if frames:
            return frames.pop(0), SYSTEM_CLOCK.now_ns()
        connection.want_books({})
        return None

    monkeypatch.setattr(connection._socket, "send", send)
    monkeypatch.setattr(connection._socket, "receive", receive)
    monkeypatch.setattr(connection._socket, "receive_ready", list)
    monkeypatch.setattr(connection._socket, "close", lambda: None)
    connection._live()
    assert ended(records) == [("A", "unsubscribed")]
