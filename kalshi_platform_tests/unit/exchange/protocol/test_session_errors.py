"""What a session does about errors of the exchange and about books and numbers that cannot be right."""

from __future__ import annotations

import json

import pytest

from kalshi_platform.market.records import BookSubscriptionEnded, DeadLetter, StreamEnded
from kalshi_platform_tests.fixtures.recording_session import RecordingSession
from kalshi_platform_tests.unit.exchange.frames_of import delta, error, frame, ok, snapshot, subscribed
from kalshi_platform_tests.unit.exchange.protocol.test_session import commands, following, only, session_of


def test_a_broken_frame_that_shares_its_number_with_an_ack_consumes_it_once() -> None:
    session = following("A")
    session.receive(ok(2, seq=2), 3)
    records = session.receive(delta(2, side="maybe"), 4).records
    assert [type(record).__name__ for record in records] == ["DeadLetter", "BookSubscriptionEnded"]
    assert only(BookSubscriptionEnded, records)[0].seq_to == 1


def test_a_book_frame_in_a_stream_of_another_channel_becomes_a_dead_letter_and_starts_nothing() -> None:
    session = following("A", "B")
    session.subscribe_channels(["trade"])
    session.receive(subscribed(2, "trade", 2), 3)
    received = session.receive(snapshot(1, "B", sid=2), 4)
    assert [type(record).__name__ for record in received.records] == ["SequenceConsumed", "DeadLetter"]
    (letter,) = only(DeadLetter, received.records)
    assert letter.reason == "wrong_channel"
    assert "trade" in letter.detail


@pytest.mark.parametrize("members", [{"seq": 0}, {"sid": 2**31}, {"seq": 2**63}])
def test_numbers_beyond_the_ledgers_range_are_ignored(members: dict[str, int]) -> None:
    session = following("A")
    payload = frame("orderbook_delta", **({"sid": 1, "seq": 2} | members), msg=json.loads(delta(2))["msg"])
    records = session.receive(payload, 3).records
    records = [*records, *session.close(4, "end")]
    assert "BookDelta" not in {type(record).__name__ for record in records}
    assert [record.reason for record in records if isinstance(record, DeadLetter)] == ["shape"]
    assert session.counters.gaps == 0


def scale_books(session: RecordingSession, tickers: str, no: str) -> list[str]:
    """Alarms after one more snapshot of each market, with no-side prices at `no` cents."""
    alarms: list[str] = []
    for ticker in tickers:
        seq = session.last_seqs()[next(iter(session.last_seqs()))] + 1
        book = snapshot(seq, ticker, yes=[["0.5600", "1.00"]], no=[[no, "1.00"]])
        alarms += [alarm.kind for alarm in session.receive(book, 9).alarms]
    return alarms


def test_books_on_the_other_price_scale_are_reported_once_and_not_after_one_crossed_book() -> None:
    session = following("A", "B", "C", "D")
    assert scale_books(session, "A", "0.4200") == []
    assert scale_books(session, "AAAA", "0.5800") == []
    assert scale_books(session, "B", "0.5800") == []
    assert scale_books(session, "CD", "0.5800") == ["price_scale"]
    assert session.counters.scale_contradictions == 7
    assert session.followed() == {"A", "B", "C", "D"}


def test_error_9_is_reported_and_retried_only_after_the_longest_delay() -> None:
    session = session_of(retry_cap_s=60.0)
    session.subscribe_channels(["trade"])
    session.pop_commands()
    received = session.receive(error(9, 1), 10**9)
    assert [alarm.kind for alarm in received.alarms] == ["not_authorised"]
    assert session.tick(30 * 10**9).commands == []
    assert commands(session.tick(62 * 10**9))[0]["params"] == {"channels": ["trade"]}


def test_a_refused_subscribe_of_several_channels_is_tried_one_by_one() -> None:
    session = session_of()
    session.subscribe_channels(["trade", "ticker"])
    session.pop_commands()
    sent = commands(session.receive(error(8, 1), 1))
    assert [command["params"]["channels"] for command in sent] == [["ticker"], ["trade"]]
    session.receive(subscribed(1, "ticker", 2), 2)
    assert commands(session.receive(error(8, 3), 3)) == []


def listing(command_id: int, *open_sids: tuple[str, int]) -> bytes:
    return frame("ok", id=command_id, msg=[{"channel": channel, "sid": sid} for channel, sid in open_sids])


def test_a_subscription_that_the_exchange_no_longer_serves_is_opened_again() -> None:
    session = following("A")
    session.subscribe_channels(["trade"])
    session.receive(subscribed(2, "trade", 2), 3)
    session.list_subscriptions()
    (question,) = commands(session.pop_commands())
    assert question == {"id": 3, "cmd": "list_subscriptions"}
    received = session.receive(listing(3, ("orderbook_delta", 1)), 4)
    assert [alarm.kind for alarm in received.alarms] == ["stream_ended"]
    assert [record.reason for record in only(StreamEnded, received.records)] == ["not_served"]
    assert [command["params"] for command in commands(received)] == [{"channels": ["trade"]}]
    assert session.followed() == {"A"}


def test_a_stream_opened_after_the_request_may_be_missing_in_the_answer() -> None:
    session = following("A")
    session.list_subscriptions()
    session.subscribe_channels(["trade"])
    session.receive(subscribed(2, "trade", 3), 3)
    received = session.receive(listing(2, ("orderbook_delta", 1)), 4)
    assert (received.alarms, received.records) == ([], [])
    assert session.receive(listing(2), 5).records == [], "a second answer to one question says nothing"


def test_an_unreadable_or_refused_listing_ends_nothing() -> None:
    session = following("A")
    session.list_subscriptions()
    session.receive(frame("ok", id=2, msg=[{"channel": "orderbook_delta"}]), 3)
    session.list_subscriptions()
    assert [alarm.kind for alarm in session.receive(error(5, 3), 4).alarms] == ["error"]
    assert session.followed() == {"A"}
    assert session.last_seqs()


def test_refused_markets_are_unanswered_but_not_unresponsive() -> None:
    session = session_of(snapshot_deadline_s=10)
    session.subscribe_books({"A": 0})
    session.pop_commands()
    session.tick(10**9)
    received = session.receive(error(26, 1), 2 * 10**9)
    assert [(alarm.kind, alarm.tickers) for alarm in received.alarms] == [("market_limit", ("A",))]
    assert (session._subscriptions.pending.unanswered, session.unresponsive()) == ({"A"}, set())
    (again,) = commands(session.tick(70 * 10**9))
    session.receive(subscribed(1, command_id=again["id"]), 70 * 10**9)
    session.tick(81 * 10**9)
    session.tick(92 * 10**9)
    assert session._subscriptions.pending.unanswered == {"A"}
    session.receive(snapshot(1, "A"), 93 * 10**9)
    assert session._subscriptions.pending.unanswered == set()
    session.subscribe_books({"B": 0})
    (add,) = commands(session.pop_commands())
    session.receive(ok(add["id"], seq=2), 93 * 10**9)
    for seconds in range(94, 200, 11):
        session.tick(seconds * 10**9)
    assert session.unresponsive() == {"B"}
