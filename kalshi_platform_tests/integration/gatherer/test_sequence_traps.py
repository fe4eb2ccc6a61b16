"""What catches clients that count wrongly, each trap on real sockets: the project's client against the exchange."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import ConnectionLost
from kalshi_platform.exchange.protocol.session import SessionConfig
from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform.market.records import (
    BookDelta,
    BookSnapshot,
    BookSubscriptionEnded,
    BookSubscriptionStarted,
    DeadLetter,
    SequenceConsumed,
    SequenceGap,
    StreamEnded,
    StreamOpened,
    TickerUpdate,
)
from kalshi_platform_tests.fixtures.exchange import RawClient, running_exchange
from kalshi_platform_tests.fixtures.recording_session import RecordingSession
from kalshi_platform_tests.integration.exchange.test_websocket import Client, nudge, truth_of


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[ServerThread]:
    with running_exchange(tmp_path, markets=12, rate=0) as running:
        yield running


def assert_right_books(exchange: ServerThread, client: Client, tickers: list[str]) -> None:
    books = client.books()
    assert {ticker: (books[ticker].yes, books[ticker].no) for ticker in tickers} == {
        ticker: truth_of(exchange, ticker) for ticker in tickers
    }


def empty(exchange: ServerThread, ticker: str, *sides: str) -> None:
    """Take every order out of some sides of a book."""
    book = exchange.book(ticker)
    exchange.publish(
        *(
            {"kind": "delta", "ticker": ticker, "side": side, "price_e4": price, "delta_e2": -size}
            for side in sides
            for price, size in book[side]
        )
    )


def test_acks_consume_numbers(exchange: ServerThread) -> None:
    """One market, then one added, one deleted: both acks take a number, and neither is a gap."""
    one, other = exchange.tickers()[:2]
    with Client(exchange).follow([one]) as client:
        client.follow([one, other])
        client.session.unsubscribe_books([other])
        client.until(lambda: len(client.of(SequenceConsumed)) == 2)
        exchange.publish(nudge(one))
        client.until(lambda: client.of(BookDelta))
        # snapshot 1, ok 2, snapshot 3, ok 4, delta 5
        assert [record.seq for record in client.of(SequenceConsumed)] == [2, 4]
        assert client.of(BookDelta)[0].seq == 5
        assert client.of(SequenceGap) == []


def test_all_markets_of_a_subscription_share_one_counter(exchange: ServerThread) -> None:
    """Numbers of one market have holes that are no gaps, and a real gap makes the markets suspect that lost nothing."""
    one, other = exchange.tickers()[:2]
    with Client(exchange).follow([one, other]) as client:
        exchange.publish(nudge(one), nudge(other), nudge(one), nudge(other))
        client.until(lambda: len(client.of(BookDelta)) == 4)
        assert [row.seq for row in client.of(BookDelta) if row.ticker == one] == [3, 5]
        assert client.of(SequenceGap) == []
        exchange.fault("drop_frame", type="orderbook_delta")
        exchange.publish(nudge(one), nudge(other))
        client.until(lambda: len(client.of(BookSubscriptionStarted)) == 4)
        [gap] = client.of(SequenceGap)
        assert (gap.seq_expected, gap.seq_seen) == (7, 8)
        assert {end.ticker for end in client.of(BookSubscriptionEnded)} == {one, other}
        assert_right_books(exchange, client, [one, other])


def test_two_connections_number_one_delta_differently_and_name_it_alike(exchange: ServerThread) -> None:
    """Even with equal subscriptions the numbers part as soon as one of the two has asked for a snapshot."""
    tickers = exchange.tickers()[:3]
    with Client(exchange).follow(tickers) as one, Client(exchange).follow(tickers) as two:
        two.session.unsubscribe_books(tickers[:1])
        two.session.subscribe_books({tickers[0]: 0})
        two.until(lambda: len(two.of(BookSubscriptionStarted)) == 4)
        exchange.publish(nudge(tickers[0]), nudge(tickers[0], same_time=True))
        one.until(lambda: len(one.of(BookDelta)) == 2)
        two.until(lambda: len(two.of(BookDelta)) == 2)
        ours, theirs = one.of(BookDelta), two.of(BookDelta)
        assert [row.seq for row in ours] != [row.seq for row in theirs]
        names = [
            [(row.exchange_ts_us, row.ticker, row.side, row.price_e4, row.delta_e2, row.occurrence) for row in rows]
            for rows in (ours, theirs)
        ]
        assert names[0] == names[1]
        assert names[0][0] != names[0][1]


@pytest.mark.parametrize("kept", ["yes", "no"])
def test_a_one_sided_snapshot_has_no_key_for_the_empty_side(exchange: ServerThread, kept: str) -> None:
    ticker = exchange.tickers()[0]
    gone = "no" if kept == "yes" else "yes"
    empty(exchange, ticker, gone)
    with RawClient(exchange) as raw:
        raw.subscribe_books([ticker])
        assert set(raw.frames[-1]["msg"]) == {"market_ticker", "market_id", f"{kept}_dollars_fp"}
    with Client(exchange).follow([ticker]) as client:
        [snapshot] = client.of(BookSnapshot)
        assert getattr(snapshot, gone) == ()
        assert getattr(snapshot, kept) != ()
        exchange.publish({"kind": "delta", "ticker": ticker, "side": gone, "price_e4": 100, "delta_e2": 313})
        client.until(lambda: client.of(BookDelta))
        assert_right_books(exchange, client, [ticker])


def test_an_empty_book_is_a_snapshot_like_any_other(exchange: ServerThread) -> None:
    ticker = exchange.tickers()[0]
    empty(exchange, ticker, "yes", "no")
    with RawClient(exchange) as raw:
        raw.subscribe_books([ticker])
        assert set(raw.frames[-1]["msg"]) == {"market_ticker", "market_id"}
    with Client(exchange).follow([ticker]) as client:
        assert (client.of(BookSnapshot)[0].yes, client.of(BookSnapshot)[0].no) == ((), ())
        assert client.session.followed() == {ticker}
        exchange.publish(nudge(ticker))
        client.until(lambda: client.of(BookDelta))
        assert client.books()[ticker].yes == ((100, 100),)


def test_a_second_subscribe_merges_and_is_answered_by_ok(exchange: ServerThread) -> None:
    """The sid stays, the ok takes a number, known markets get no second snapshot, and no delta comes twice."""
    tickers = exchange.tickers()[:2]
    with Client(exchange).follow(tickers) as client:
        params = {"channels": ["orderbook_delta"], "market_tickers": tickers, "use_yes_price": False}
        client.connection.send(json.dumps({"id": 900, "cmd": "subscribe", "params": params}).encode())
        client.until(lambda: client.of(SequenceConsumed))
        exchange.publish(nudge(tickers[0]))
        client.until(lambda: client.of(BookDelta))
        assert len(client.of(BookSnapshot)) == 2
        assert [record.seq for record in client.of(SequenceConsumed)] == [3]
        assert [row.seq for row in client.of(BookDelta)] == [4]
        assert len(client.of(StreamOpened)) == 1
        assert client.of(SequenceGap) == []


def test_deltas_of_a_just_added_market_may_come_before_its_snapshot(exchange: ServerThread) -> None:
    """The snapshot holds them already: only later deltas count, and the market is claimed from the snapshot on."""
    known, added = exchange.tickers()[:2]
    with Client(exchange).follow([known]) as client:
        late = exchange.fault("late_snapshot", delay_s=0.3)
        client.session.subscribe_books({added: 0})
        client.until(lambda: client.of(SequenceConsumed))
        exchange.publish(nudge(added, 100), nudge(added, 200))
        client.until(lambda: len(client.of(BookDelta)) == 2)
        assert client.session.followed() == {known}
        client.until(lambda: client.session.followed() == {known, added})
        exchange.publish(nudge(added, 400))
        client.until(lambda: len(client.of(BookDelta)) == 3)
        early = [row.seq for row in client.of(BookDelta)[:2]]
        start = next(each for each in client.of(BookSubscriptionStarted) if each.ticker == added)
        assert max(early) < start.seq_from < client.of(BookDelta)[2].seq
        snapshot = client.of(BookSnapshot)[-1]
        assert dict(snapshot.yes)[100] >= 300
        assert dict(truth_of(exchange, added)[0])[100] == dict(snapshot.yes)[100] + 400
        assert client.of(SequenceGap) == []
        assert exchange.faults()[late["id"] - 1]["hits"] == 1


@pytest.mark.parametrize("code", [25, 10])
def test_a_terminal_error_is_the_end_of_its_sid_and_a_fresh_one_begins(exchange: ServerThread, code: int) -> None:
    tickers = exchange.tickers()[:3]
    with Client(exchange).follow(tickers) as client:
        exchange.publish(nudge(tickers[0]))
        client.until(lambda: client.of(BookDelta))
        exchange.fault("error_25", code=code)
        client.until(lambda: len(client.of(StreamOpened)) == 2)
        client.until(lambda: client.session.followed() == set(tickers))
        first, second = client.of(StreamOpened)
        assert second.sid == first.sid + 1
        assert [end.stream_id for end in client.of(StreamEnded)] == [first.stream_id]
        assert {end.ticker for end in client.of(BookSubscriptionEnded)} == set(tickers)
        exchange.publish(nudge(tickers[0]))
        client.until(lambda: len(client.of(BookDelta)) == 2)
        # A counter of its own: three snapshots, then the delta.
        assert (client.of(BookDelta)[1].stream_id, client.of(BookDelta)[1].seq) == (second.stream_id, 4)
        assert_right_books(exchange, client, tickers)


def test_a_sid_that_the_exchange_has_forgotten_is_error_7_and_subscribed_afresh(exchange: ServerThread) -> None:
    known, added = exchange.tickers()[:2]
    with Client(exchange).follow([known]) as client:
        exchange.fault("forget_subscription")
        client.session.subscribe_books({added: 0})  # answered by: unknown sid
        client.until(lambda: client.session.followed() == {known, added})
        assert len(client.of(StreamOpened)) == 2
        exchange.publish(nudge(known), nudge(added))
        client.until(lambda: len(client.of(BookDelta)) == 2)
        assert_right_books(exchange, client, [known, added])


def test_frames_of_a_sid_that_is_not_acknowledged_yet_are_held(exchange: ServerThread) -> None:
    tickers = exchange.tickers()[:3]
    early = exchange.fault("early_data")
    with Client(exchange).follow(tickers) as client:
        assert exchange.faults()[early["id"] - 1]["hits"] == 1
        exchange.publish(nudge(tickers[0]))
        client.until(lambda: client.of(BookDelta))
        assert [record.seq for record in client.of(BookSnapshot)] == [1, 2, 3]
        assert client.of(SequenceGap) == []
        assert client.of(DeadLetter) == []
        assert_right_books(exchange, client, tickers)


def test_a_stale_ticker_subscribes_silently_and_stays_mute(exchange: ServerThread) -> None:
    """No error names it: only the snapshot that never comes. The living market beside it is not disturbed."""
    living, settled = exchange.tickers()[:2]
    for action in ("close", "determine", "settle"):
        exchange.market(action, ticker=settled)
    config = SessionConfig(snapshot_deadline_s=0.2)
    with Client(exchange, config) as client:
        client.session.subscribe_books({living: 0, settled: 0, "KXNOSUCH-26NOV23-T1.00": 0})
        mute = {settled, "KXNOSUCH-26NOV23-T1.00"}
        client.until(lambda: client.session._subscriptions.pending.unanswered == mute)
        assert client.session.followed() == {living}
        exchange.publish(nudge(living))
        client.until(lambda: client.of(BookDelta))
        assert client.of(SequenceGap) == []
        assert len(client.of(StreamOpened)) == 1
        assert_right_books(exchange, client, [living])


def test_tickers_carry_no_number_and_their_loss_is_no_gap(exchange: ServerThread) -> None:
    one, other = exchange.tickers()[:2]
    with Client(exchange) as client:
        client.session.subscribe_channels(["ticker"])
        client.until(lambda: client.of(StreamOpened))
        exchange.fault("drop_frame", channel="ticker")
        for ticker in (one, other):
            exchange.publish({"kind": "ticker", "ticker": ticker})
        client.until(lambda: client.of(TickerUpdate))
        assert [update.ticker for update in client.of(TickerUpdate)] == [other]
        assert client.of(SequenceGap) == []


def test_a_reconnection_starts_at_one_with_everything_subscribed_again(exchange: ServerThread) -> None:
    tickers = exchange.tickers()[:3]
    numbers = itertools.count(100)
    with Client(exchange).follow(tickers) as client:
        exchange.publish(*(nudge(tickers[0]) for _ in range(20)))
        client.until(lambda: len(client.of(BookDelta)) == 20)
        exchange.fault("cut")
        with pytest.raises(ConnectionLost):
            client.until(lambda: False)
        before = client.session.close(SYSTEM_CLOCK.now_ns(), "cut")
        assert {record.ticker for record in before if isinstance(record, BookSubscriptionEnded)} == set(tickers)
        exchange.publish(nudge(tickers[0]))  # lost on this connection for good
        client.connection.open()
        client.session = RecordingSession(2, lambda: next(numbers))
        client.records.clear()
        client.follow(tickers)
        exchange.publish(nudge(tickers[1]))
        client.until(lambda: client.of(BookDelta))
        [opened] = client.of(StreamOpened)
        assert (opened.sid, opened.stream_id) == (1, 100)
        assert [record.seq for record in client.of(BookSnapshot)] == [1, 2, 3]
        assert client.of(BookDelta)[0].seq == 4
        assert client.of(SequenceGap) == []
        assert_right_books(exchange, client, tickers)
