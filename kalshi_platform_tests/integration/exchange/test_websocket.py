"""Connection and session against the simulated exchange, over real sockets."""

from __future__ import annotations

import collections
import fcntl
import itertools
import json
import os
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectionLost,
    ExchangeUnavailable,
    RateLimited,
)
from kalshi_platform.exchange.protocol.session import Alarm, SessionConfig
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.exchange.websocket import WebSocketConnection
from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform.market.records import (
    BookDelta,
    BookSnapshot,
    BookSubscriptionEnded,
    BookSubscriptionStarted,
    DeadLetter,
    LifecycleEvent,
    Record,
    SequenceConsumed,
    SequenceGap,
    StreamEnded,
    StreamOpened,
    TickerUpdate,
    Trade,
)
from kalshi_platform_tests.fixtures.exchange import RawClient, eventually, running_exchange
from kalshi_platform_tests.fixtures.recording_session import RecordingSession
from kalshi_platform_tests.fixtures.reference_book import Book

R = TypeVar("R", bound=Record)


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[ServerThread]:
    with running_exchange(tmp_path, markets=12, rate=0) as running:
        yield running


def settings_of(exchange: ServerThread, **changes: Any) -> ExchangeSettings:
    settings = ExchangeSettings(
        rest_url=exchange.rest_url,
        ws_url=exchange.ws_url,
        key_id=exchange.key_id,
        private_key_pem=exchange.key_file.read_bytes(),
        connect_timeout_s=5,
    )
    return replace(settings, **changes)


def other_key() -> bytes:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Client:
    """A connection and its session, driven by the test."""

    def __init__(self, exchange: ServerThread, config: SessionConfig | None = None, **changes: Any) -> None:
        self.connection = WebSocketConnection(settings_of(exchange, **changes), SYSTEM_CLOCK, "test")
        numbers = itertools.count(1)
        self.session = RecordingSession(1, lambda: next(numbers), config)
        self.records: list[Record] = []
        self.alarms: list[Alarm] = []
        self.connection.open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def follow(self, tickers: list[str]) -> Client:
        self.session.subscribe_books(dict.fromkeys(tickers, 0))
        self.until(lambda: self.session.followed() == set(self.session.wanted()))
        return self

    def step(self) -> None:
        for command in self.session.pop_commands():
            self.connection.send(command)
        got = self.connection.receive()
        result = self.session.tick(SYSTEM_CLOCK.now_ns()) if got is None else self.session.receive(*got)
        self.records += result.records
        self.alarms += result.alarms
        for command in result.commands:
            self.connection.send(command)

    def until(self, condition: Callable[[], Any], within_s: float = 45.0) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"not reached; alarms {self.alarms}"
            self.step()

    def of(self, kind: type[R]) -> list[R]:
        return [record for record in self.records if isinstance(record, kind)]

    def books(self) -> dict[str, Book]:
        """Each market's book from its last snapshot and the deltas after it."""
        books: dict[str, Book] = {}
        for record in self.records:
            if isinstance(record, BookSnapshot):
                books[record.ticker] = Book(record.yes, record.no)
            elif isinstance(record, BookDelta):
                books[record.ticker].apply(record.side, record.price_e4, record.delta_e2)
        return books


def truth_of(exchange: ServerThread, ticker: str) -> tuple[Any, Any]:
    book = exchange.book(ticker)
    return tuple(map(tuple, book["yes"])), tuple(map(tuple, book["no"]))


def nudge(ticker: str, size: int = 100, **more: Any) -> dict[str, Any]:
    return {"kind": "delta", "ticker": ticker, "side": "yes", "price_e4": 100, "delta_e2": size, **more}


def test_a_signed_handshake_snapshots_and_deltas_make_the_exchanges_books(exchange: ServerThread) -> None:
    tickers = exchange.tickers()
    with Client(exchange).follow(tickers) as client:
        exchange.publish(*(nudge(ticker, 100 + n) for n, ticker in enumerate(tickers)))
        client.until(lambda: len(client.of(BookDelta)) == len(tickers))
        books = client.books()
        assert {ticker: (books[ticker].yes, books[ticker].no) for ticker in tickers} == {
            ticker: truth_of(exchange, ticker) for ticker in tickers
        }
        assert client.of(SequenceGap) == []
        assert client.alarms == []
        first = client.of(BookDelta)[0]
        assert 0 <= first.received_at_ns - first.exchange_ts_us * 1_000 < 10_000_000_000


def test_equal_deltas_of_one_moment_are_distinguished(exchange: ServerThread) -> None:
    ticker = exchange.tickers()[0]
    with Client(exchange).follow([ticker]) as client:
        exchange.publish(nudge(ticker), nudge(ticker, same_time=True), nudge(ticker, same_time=True))
        client.until(lambda: len(client.of(BookDelta)) == 3)
        assert [row.occurrence for row in client.of(BookDelta)] == [0, 1, 2]


def test_acks_take_numbers_and_all_markets_share_one_counter(exchange: ServerThread) -> None:
    tickers = exchange.tickers()
    with Client(exchange, SessionConfig(batch_size=2)).follow(tickers) as client:
        exchange.publish(*(nudge(ticker) for ticker in tickers))
        client.until(lambda: len(client.of(BookDelta)) == len(tickers))
        assert len(client.of(SequenceConsumed)) == len(tickers) // 2 - 1
        numbers = sorted(
            record.seq for record in client.records if isinstance(record, SequenceConsumed | BookSnapshot | BookDelta)
        )
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(client.of(StreamOpened)) == 1
        assert client.of(SequenceGap) == []


def test_a_lost_frame_is_a_gap_that_get_snapshot_heals(exchange: ServerThread) -> None:
    tickers = exchange.tickers()[:4]
    with Client(exchange).follow(tickers) as client:
        exchange.fault("drop_frame", type="orderbook_delta")
        exchange.publish(nudge(tickers[0]), nudge(tickers[1]))
        client.until(lambda: len(client.of(BookSubscriptionStarted)) == 8)
        [gap] = client.of(SequenceGap)
        assert gap.seq_seen == gap.seq_expected + 1
        assert {(end.ticker, end.seq_to, end.reason) for end in client.of(BookSubscriptionEnded)} == {
            (ticker, gap.seq_expected - 1, "gap") for ticker in tickers
        }
        assert client.session.out_of_sync() == set()
        assert client.books()[tickers[0]].yes == truth_of(exchange, tickers[0])[0]


def test_markets_that_stay_without_snapshot_are_reported(exchange: ServerThread) -> None:
    tickers = exchange.tickers()[:2]
    config = SessionConfig(snapshot_deadline_s=0.2)
    with Client(exchange, config).follow(tickers) as client:
        exchange.fault("ignore_get_snapshot", seconds=60)
        exchange.fault("drop_frame", type="orderbook_delta")
        exchange.publish(nudge(tickers[0]), nudge(tickers[1]))
        client.until(lambda: client.session._subscriptions.pending.unanswered == set(tickers))
        exchange.clear_faults()
        client.session.unsubscribe_books(tickers)
        client.session.subscribe_books(dict.fromkeys(tickers, 0))
        client.until(lambda: client.session.followed() == set(tickers))
        assert client.session._subscriptions.pending.unanswered == set()


def test_one_sided_and_empty_snapshots(exchange: ServerThread) -> None:
    empty, one_sided = exchange.tickers()[:2]

    def clear(ticker: str, sides: tuple[str, ...]) -> None:
        book = exchange.book(ticker)
        exchange.publish(
            *(
                {"kind": "delta", "ticker": ticker, "side": side, "price_e4": price, "delta_e2": -size}
                for side in sides
                for price, size in book[side]
            )
        )

    clear(empty, ("yes", "no"))
    clear(one_sided, ("yes",))
    with Client(exchange).follow([empty, one_sided]) as client:
        snapshots = {snapshot.ticker: snapshot for snapshot in client.of(BookSnapshot)}
        assert (snapshots[empty].yes, snapshots[empty].no) == ((), ())
        assert snapshots[one_sided].yes == ()
        assert snapshots[one_sided].no == truth_of(exchange, one_sided)[1] != ()


def test_a_repeated_subscribe_merges_and_the_stream_goes_on(exchange: ServerThread) -> None:
    tickers = exchange.tickers()[:3]
    with Client(exchange, SessionConfig(snapshot_deadline_s=0.2)).follow(tickers[:1]) as client:
        params = {"channels": ["orderbook_delta"], "market_tickers": tickers[1:], "use_yes_price": False}
        client.connection.send(json.dumps({"id": 900, "cmd": "subscribe", "params": params}).encode())
        client.until(lambda: len(client.of(BookSnapshot)) == 3)
        assert client.session.followed() == set(tickers[:1])  # the others were never wanted
        # The server subscribed them already and greets them with no second snapshot: they are asked for.
        client.follow(tickers)
        assert client.of(SequenceGap) == []
        assert len(client.of(StreamOpened)) == 1


def test_a_market_unsubscribed_and_wanted_again(exchange: ServerThread) -> None:
    one, other = exchange.tickers()[:2]
    with Client(exchange).follow([one, other]) as client:
        client.session.unsubscribe_books([one])
        client.session.subscribe_books({one: 0})
        client.until(lambda: client.session.followed() == {one, other})
        [end] = client.of(BookSubscriptionEnded)
        starts = [start for start in client.of(BookSubscriptionStarted) if start.ticker == one]
        assert (end.ticker, end.reason, end.seq_to) == (one, "unsubscribed", 2)
        assert starts[1].seq_from > end.seq_to
        exchange.publish(nudge(one), nudge(other))
        client.until(lambda: len(client.of(BookDelta)) == 2)
        assert client.of(SequenceGap) == []


def test_trades_tickers_and_lifecycle_of_all_markets(exchange: ServerThread) -> None:
    ticker = exchange.tickers()[0]
    with Client(exchange) as client:
        client.session.subscribe_channels(["trade", "ticker", "market_lifecycle_v2"])
        client.until(lambda: len(client.of(StreamOpened)) == 3)
        exchange.publish(
            {"kind": "trade", "ticker": ticker, "yes_price_e4": 4_200, "count_e2": 150},
            {"kind": "ticker", "ticker": ticker},
        )
        exchange.market("create")
        exchange.market("close", ticker=ticker)
        exchange.market("determine", ticker=ticker)
        client.until(lambda: {"determined", "created"} <= {event.event_type for event in client.of(LifecycleEvent)})
        client.until(lambda: client.of(Trade) and client.of(TickerUpdate))
        trade = client.of(Trade)[0]
        assert (trade.ticker, trade.yes_price_e4, trade.no_price_e4, trade.count_e2) == (ticker, 4_200, 5_800, 150)
        assert all(update.seq < 0 for update in client.of(TickerUpdate))
        determined = next(event for event in client.of(LifecycleEvent) if event.event_type == "determined")
        assert determined.ticker == ticker
        assert determined.exchange_ts_us
        assert client.of(SequenceGap) == []


@pytest.mark.parametrize("variant", ["type", "shape", "json"])
def test_an_unknown_frame_becomes_a_dead_letter_and_the_stream_goes_on(exchange: ServerThread, variant: str) -> None:
    tickers = exchange.tickers()[:2]
    with Client(exchange).follow(tickers) as client:
        exchange.fault("unknown_frame", variant=variant)
        exchange.publish(nudge(tickers[0]))
        client.until(lambda: client.of(BookDelta) and client.of(DeadLetter))
        client.until(lambda: client.session.followed() == set(tickers))
        assert client.of(SequenceGap) == []
        assert client.of(DeadLetter)[0].payload
        assert {end.reason for end in client.of(BookSubscriptionEnded)} == (
            {"dead_letter"} if variant == "shape" else set()
        )


def test_error_25_begins_a_new_stream(exchange: ServerThread) -> None:
    tickers = exchange.tickers()[:3]
    with Client(exchange).follow(tickers) as client:
        exchange.fault("error_25")
        client.until(lambda: len(client.of(StreamOpened)) == 2)
        client.until(lambda: client.session.followed() == set(tickers))
        assert [end.reason for end in client.of(StreamEnded)] == ["error_25"]
        exchange.publish(nudge(tickers[0]))
        client.until(lambda: bool(client.of(BookDelta)))
        assert client.of(BookDelta)[0].stream_id == client.of(StreamOpened)[1].stream_id


def test_error_26_splits_the_batch(tmp_path: Path) -> None:
    with running_exchange(tmp_path, markets=12, rate=0, max_markets_per_subscription=7) as exchange:
        tickers = exchange.tickers()
        with Client(exchange, SessionConfig(batch_size=6)) as client:
            client.session.subscribe_books(dict.fromkeys(tickers, 0))
            client.until(lambda: len(client.session._subscriptions.pending.unanswered) == len(tickers) - 7)
            assert len(client.session.followed()) == 7


def test_a_wrong_key_and_a_wrong_clock_fail_as_such(exchange: ServerThread) -> None:
    connection = WebSocketConnection(settings_of(exchange, private_key_pem=other_key()), SYSTEM_CLOCK, "books-1")
    with pytest.raises(AuthenticationFailed, match=r"Suspects: the key .*clock agrees") as caught:
        connection.open()
    assert caught.value.status == 401
    assert exchange.key_id not in str(caught.value)
    exchange.fault("clock_skew", offset_s=120, scope="handshake", seconds=60)
    with pytest.raises(AuthenticationFailed, match="clock is 120 s behind the exchange's: set it right"):
        WebSocketConnection(settings_of(exchange), SYSTEM_CLOCK, "books-1").open()
    with pytest.raises(ConfigurationError, match="key_id"):
        WebSocketConnection(settings_of(exchange, key_id=None), SYSTEM_CLOCK, "books-1")


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, RateLimited), (503, ExchangeUnavailable), (403, AuthenticationFailed), (404, ConnectionLost)],
)
def test_refused_handshakes_and_the_next_attempt(exchange: ServerThread, status: int, error: type[Exception]) -> None:
    connection = WebSocketConnection(settings_of(exchange), SYSTEM_CLOCK, "books-1")
    exchange.fault("refuse_handshake", status=status)
    with pytest.raises(error):
        connection.open()
    connection.open()
    connection.close()


def test_a_connection_can_be_opened_again_after_a_cut(exchange: ServerThread) -> None:
    ticker = exchange.tickers()[0]
    with Client(exchange).follow([ticker]) as client:
        exchange.fault("cut")
        with pytest.raises(ConnectionLost):
            client.until(lambda: False)
        with pytest.raises(ConnectionLost):  # it stays lost until it is opened
            client.connection.receive()
        with pytest.raises(ConnectionLost):
            client.connection.send(b"{}")
        records = client.session.close(SYSTEM_CLOCK.now_ns(), "cut")
        assert [type(record) for record in records] == [BookSubscriptionEnded, StreamEnded]
        client.connection.open()
        assert client.connection.receive() is None


def test_a_refused_connection_is_a_lost_connection(exchange: ServerThread) -> None:
    settings = settings_of(exchange, ws_url="ws://127.0.0.1:9/trade-api/ws/v2")
    with pytest.raises(ConnectionLost):
        WebSocketConnection(settings, SYSTEM_CLOCK, "books-1").open()


def test_the_servers_goodbye_is_reported_with_its_code(tmp_path: Path) -> None:
    with running_exchange(tmp_path, markets=3, rate=0) as exchange:
        client = Client(exchange)
        exchange.stop()
        with pytest.raises(ConnectionLost) as caught:
            client.until(lambda: False)
        assert caught.value.close_code in (1000, 1001)
        client.connection.close()


def test_pings_are_answered_and_count_as_life_while_silence_is_death(tmp_path: Path) -> None:
    with running_exchange(tmp_path, markets=3, rate=0, ping_interval_s=0.1) as exchange:
        connection = WebSocketConnection(settings_of(exchange, ping_timeout_s=1.0), SYSTEM_CLOCK, "test")
        connection.open()
        opened_ns = connection.last_received_ns
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            assert connection.receive() is None
        assert connection.last_received_ns > opened_ns
        assert connection.last_data_ns == 0
        exchange.fault("stall", pings=False, seconds=60)
        with pytest.raises(ConnectionLost, match="neither ping nor frame"):
            collections.deque((connection.receive() for _ in range(40)), maxlen=0)


def test_large_frames_come_whole_and_too_large_ones_end_the_connection(exchange: ServerThread) -> None:
    ticker = exchange.tickers()[0]
    message = {"market_ticker": ticker, "event_type": "metadata_updated", "note": "x" * 3_000_000}
    item = {"kind": "raw", "channel": "market_lifecycle_v2", "ticker": ticker, "msg": message}
    with Client(exchange) as client:
        client.session.subscribe_channels(["market_lifecycle_v2"])
        client.until(lambda: client.of(StreamOpened))
        exchange.publish(item)
        client.until(lambda: client.of(LifecycleEvent))
        assert json.loads(client.of(LifecycleEvent)[0].content) == message
    with Client(exchange, max_frame_bytes=1_000_000) as client:
        client.session.subscribe_channels(["market_lifecycle_v2"])
        client.until(lambda: client.of(StreamOpened))
        exchange.publish(item)
        with pytest.raises(ConnectionLost, match="allowed"):
            client.until(lambda: False)


def test_another_thread_may_send_and_close_while_one_receives(exchange: ServerThread) -> None:
    tickers = exchange.tickers()
    connection = WebSocketConnection(settings_of(exchange), SYSTEM_CLOCK, "test")
    connection.open()
    frames: list[bytes] = []
    ended: list[ConnectionLost] = []

    def read() -> None:
        try:
            while True:
                got = connection.receive()
                frames.extend([got[0]] if got else [])
                frames.extend(payload for payload, _ in connection.receive_ready())
        except ConnectionLost as error:
            ended.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    params = {"channels": ["orderbook_delta"], "market_tickers": tickers}
    for number in range(1, 51):
        connection.send(json.dumps({"id": number, "cmd": "subscribe", "params": params}).encode())
    eventually(lambda: len(frames) == 50 + len(tickers), what="all answers")
    connection.close()
    reader.join(10)
    assert len(ended) == 1


def unread_bytes(connection: WebSocketConnection) -> int:
    """How many bytes the kernel holds for the connection."""
    assert connection._socket is not None
    answer = fcntl.ioctl(connection._socket.fileno(), termios.FIONREAD, b"\0\0\0\0")
    return int(struct.unpack("i", answer)[0])


def next_frame(connection: WebSocketConnection) -> bytes:
    return next(got for got in iter(connection.receive, b"never") if got is not None)[0]


def test_a_frame_stays_in_the_kernel_until_it_is_confirmed(exchange: ServerThread) -> None:
    ticker = exchange.tickers()[0]
    with Client(exchange).follow([ticker]) as client:
        connection = client.connection
        connection.confirm()
        exchange.publish(nudge(ticker))
        frame = next_frame(connection)
        assert connection._socket is not None
        # What another holder of the socket reads is what is left when this process dies here.
        survivor = socket.socket(fileno=os.dup(connection._socket.fileno()))
        try:
            assert frame in survivor.recv(64 * 1024, socket.MSG_PEEK)
        finally:
            survivor.close()
        connection.confirm()
        assert unread_bytes(connection) == 0
        connection.confirm()
        exchange.publish(nudge(ticker), nudge(ticker, 101))
        # Without `confirm` the next read takes what was handed out, and no frame comes twice.
        numbers = [json.loads(each)["seq"] for each in (frame, next_frame(connection), next_frame(connection))]
        assert numbers == list(range(numbers[0], numbers[0] + 3))


def test_frames_before_the_end_of_a_connection_are_handed_out_while_the_kernel_has_them(tmp_path: Path) -> None:
    with running_exchange(tmp_path, markets=3, rate=0) as exchange:
        client = Client(exchange).follow(exchange.tickers())
        connection = client.connection
        connection.confirm()
        exchange.publish(nudge(exchange.tickers()[0]))
        exchange.stop()
        next_frame(connection)
        assert unread_bytes(connection) > 0
        with pytest.raises(ConnectionLost):
            collections.deque(iter(connection.receive, b"never"), maxlen=0)
        assert connection._socket is None
        connection.confirm()


def test_two_connections_number_the_same_deltas_differently_and_name_them_alike(exchange: ServerThread) -> None:
    tickers = exchange.tickers()
    with Client(exchange).follow(tickers) as one, Client(exchange).follow(tickers[:2]) as other:
        exchange.publish(*(nudge(ticker, 100 + n) for ticker in tickers[:2] for n in range(3)))
        one.until(lambda: len(one.of(BookDelta)) == 6)
        other.until(lambda: len(other.of(BookDelta)) == 6)

        def identity(row: BookDelta) -> tuple[Any, ...]:
            return (row.exchange_ts_us, row.ticker, row.side, row.price_e4, row.delta_e2, row.occurrence)

        assert [identity(row) for row in one.of(BookDelta)] == [identity(row) for row in other.of(BookDelta)]
        assert {row.seq for row in one.of(BookDelta)}.isdisjoint({row.seq for row in other.of(BookDelta)})


def test_the_records_agree_with_a_client_of_another_make(exchange: ServerThread) -> None:
    tickers = exchange.tickers()[:3]
    with RawClient(exchange) as raw, Client(exchange).follow(tickers) as client:
        raw.subscribe_books(tickers)
        exchange.rate(2_000)
        client.until(lambda: len(client.of(BookDelta)) >= 200)
        exchange.rate(0)
        seen: list[tuple[Any, ...]] = []
        while len(seen) < 200:
            frame = raw.until_type("orderbook_delta")["msg"]
            seen.append((frame["market_ticker"], frame["side"], frame["price_dollars"], frame["delta_fp"]))
        ours = [
            (row.ticker, row.side, f"{row.price_e4 / 10_000:.4f}", f"{row.delta_e2 / 100:.2f}")
            for row in client.of(BookDelta)[:200]
        ]
        assert ours == seen
