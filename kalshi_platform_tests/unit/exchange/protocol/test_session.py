"""One connection's state machine, case by case."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any, TypeVar

import pytest

from kalshi_platform.exchange.protocol.session import SessionConfig
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
    UnknownFrame,
)
from kalshi_platform_tests.fixtures.recording_session import Recorded, RecordingSession
from kalshi_platform_tests.unit.exchange import frames_of
from kalshi_platform_tests.unit.exchange.frames_of import delta, error, frame, ok, snapshot, subscribed
from kalshi_platform_tests.unit.exchange.parse.test_messages import TICKER, TRADE

S = 1_000_000_000
T0 = 1_795_380_241 * S
R = TypeVar("R", bound=Record)


def session_of(**config: Any) -> RecordingSession:
    numbers = itertools.count(100)
    kept = config.pop("dead_letters_per_minute", 100)
    return RecordingSession(7, lambda: next(numbers), SessionConfig(**config), dead_letters_per_minute=kept)


def following(*tickers: str, **config: Any) -> RecordingSession:
    """A session whose markets have their snapshots, with seq 1, 2 and so on."""
    session = session_of(**config)
    session.subscribe_books(dict.fromkeys(tickers, 0))
    session.pop_commands()
    feed(session, subscribed(), *(snapshot(seq, ticker) for seq, ticker in enumerate(tickers, 1)))
    return session


def feed(session: RecordingSession, *payloads: bytes, at_ns: int = T0) -> list[Record]:
    return [record for payload in payloads for record in session.receive(payload, at_ns).records]


def only(kind: type[R], records: Iterable[Record]) -> list[R]:
    return [record for record in records if isinstance(record, kind)]


def commands(received: Recorded | list[bytes]) -> list[dict[str, Any]]:
    raw = received.commands if isinstance(received, Recorded) else received
    return [json.loads(command) for command in raw]


def test_the_first_command_subscribes_and_always_names_the_price_scale() -> None:
    session = session_of()
    session.subscribe_books({"A": 0, "B": 2})
    assert commands(session.pop_commands()) == [
        {
            "id": 1,
            "cmd": "subscribe",
            "params": {
                "channels": ["orderbook_delta"],
                "market_tickers": ["A", "B"],
                "use_yes_price": False,
                "skip_ticker_ack": True,
            },
        }
    ]
    assert session.pop_commands() == []


def test_large_sets_go_in_batches_once_the_sid_is_known() -> None:
    session = session_of(batch_size=2, adds_in_flight=1)
    session.subscribe_books(dict.fromkeys("ABCDE", 0))
    assert [c["params"]["market_tickers"] for c in commands(session.pop_commands())] == [["A", "B"]]
    session.subscribe_books({"F": 0, "A": 0})
    assert session.pop_commands() == []
    [second] = commands(session.receive(subscribed(sid=9), T0))
    assert second["params"] == {"sids": [9], "action": "add_markets", "market_tickers": ["C", "D"]}
    [third] = commands(session.receive(ok(second["id"], 9, 1), T0))
    assert third["params"]["market_tickers"] == ["E", "F"]
    assert commands(session.receive(ok(third["id"], 9, 2), T0)) == []


def test_a_snapshot_starts_a_book_subscription_and_deltas_are_numbered() -> None:
    session = session_of()
    session.subscribe_books({"A": 3})
    records = feed(session, subscribed(), snapshot(1, yes=[["0.5600", "120.00"]]), delta(2), delta(3))
    assert records == [
        StreamOpened(100, 7, 1, "orderbook_delta", T0),
        BookSnapshot("A", "ws", T0 // 1000, T0, ((5600, 12_000),), (), 100, 1),
        BookSubscriptionStarted(100, "A", 1, 3),
        BookDelta("A", "yes", 5600, -2000, frames_of.TS_US, T0, 100, 2, 0),
        BookDelta("A", "yes", 5600, -2000, frames_of.TS_US, T0, 100, 3, 1),
    ]
    assert session.followed() == {"A"}
    assert session.waiting() == set()


def test_acks_may_consume_numbers_or_carry_none() -> None:
    session = following("A")
    records = feed(session, ok(5, 1, 2), delta(3), ok(6, 1), ok(7, None), delta(4))
    assert only(SequenceGap, records) == []
    assert only(SequenceConsumed, records) == [SequenceConsumed(100, 2)]


def test_an_ack_that_shares_its_number_with_data_costs_no_delta() -> None:
    session = following("A")
    records = feed(session, ok(5, 1, 2), delta(2), delta(3), ok(6, 1, 3), delta(4), ok(7, 1, 4), ok(8, 1, 4), delta(4))
    assert [row.seq for row in only(BookDelta, records)] == [2, 3, 4]
    assert only(SequenceGap, records) == []
    assert session.counters.duplicates == 0 + 1  # the last delta(4) is byte for byte the one before


def test_a_gap_ends_all_book_subscriptions_keeps_recording_and_requests_snapshots() -> None:
    session = following("A", "B")
    received = session.receive(delta(5), T0)
    assert list(received.records) == [
        SequenceGap(100, 3, 5, T0),
        BookSubscriptionEnded(100, "A", 2, "gap"),
        BookSubscriptionEnded(100, "B", 2, "gap"),
        BookDelta("A", "yes", 5600, -2000, frames_of.TS_US, T0, 100, 5, 0),
    ]
    [request] = commands(received)
    assert request["params"] == {"sids": [1], "action": "get_snapshot", "market_tickers": ["A", "B"]}
    assert [alarm.kind for alarm in received.alarms] == ["gap"]
    assert session.out_of_sync() == {"A", "B"}
    records = feed(session, snapshot(6, "A", command_id=request["id"]), delta(7))
    assert only(BookSubscriptionStarted, records) == [BookSubscriptionStarted(100, "A", 6, 0)]
    assert session.out_of_sync() == {"B"}
    feed(session, snapshot(8, "B", command_id=request["id"]))
    assert session.out_of_sync() == set()
    assert session.followed() == {"A", "B"}


def test_snapshots_after_a_gap_are_requested_in_batches() -> None:
    session = following("A", "B", "C", batch_size=2)
    assert [c["params"]["market_tickers"] for c in commands(session.receive(delta(9), T0))] == [["A", "B"], ["C"]]


def test_the_first_frame_of_a_new_stream_must_be_number_one() -> None:
    session = session_of()
    session.subscribe_books({"A": 0})
    records = feed(session, subscribed(), snapshot(3))
    assert only(SequenceGap, records) == [SequenceGap(100, 1, 3, T0)]
    assert session.followed() == {"A"}


def test_the_same_frame_twice_is_counted_and_not_recorded() -> None:
    session = following("A")
    assert len(feed(session, delta(2), delta(2))) == 1
    assert session.counters.duplicates == 1


@pytest.mark.parametrize("again", [delta(1), delta(3, delta_fp="7.00")])
def test_a_number_that_goes_back_or_has_two_contents_begins_a_new_stream(again: bytes) -> None:
    session = following("A")
    feed(session, delta(2), delta(3))
    received = session.receive(again, T0)
    assert [type(record) for record in received.records] == [
        SequenceGap,
        BookSubscriptionEnded,
        StreamEnded,
        StreamOpened,
        BookDelta,
    ]
    [row] = only(BookDelta, received.records)
    assert (row.stream_id, row.occurrence) == (101, 0)
    assert only(BookSubscriptionEnded, received.records) == [BookSubscriptionEnded(100, "A", 3, "gap")]
    assert commands(received)[0]["params"]["action"] == "get_snapshot"
    assert feed(session, snapshot(row.seq + 1))[-1] == BookSubscriptionStarted(101, "A", row.seq + 1, 0)


def test_an_unsolicited_snapshot_ends_the_book_subscription_where_the_next_begins() -> None:
    session = following("A")
    records = feed(session, delta(2), snapshot(3))
    assert only(BookSubscriptionEnded, records) == [BookSubscriptionEnded(100, "A", 3, "snapshot")]
    assert only(BookSubscriptionStarted, records) == [BookSubscriptionStarted(100, "A", 3, 0)]


def test_deltas_before_the_snapshot_are_recorded_outside_a_book_subscription() -> None:
    session = following("A")
    session.subscribe_books({"B": 0})
    records = feed(session, delta(2, "B"), snapshot(3, "B"))
    assert [type(record) for record in records] == [BookDelta, BookSnapshot, BookSubscriptionStarted]


def test_frames_ahead_of_their_acknowledgement_open_their_stream_which_then_changes_nothing() -> None:
    session = session_of()
    session.subscribe_books({"A": 0})
    early = [*feed(session, snapshot(1), at_ns=T0 - 2), *feed(session, delta(2), at_ns=T0 - 1)]
    assert [type(record) for record in early] == [StreamOpened, BookSnapshot, BookSubscriptionStarted, BookDelta]
    assert (only(StreamOpened, early)[0].opened_at_ns, only(BookDelta, early)[0].received_at_ns) == (T0 - 2, T0 - 1)
    assert [type(record) for record in feed(session, subscribed(), delta(3))] == [BookDelta]
    assert session.counters.frames == 4
    # The acknowledgement says where commands go.
    session.unsubscribe_books(["A"])
    assert commands(session.pop_commands())[0]["params"]["sids"] == [1]


def test_frames_of_a_second_sid_of_a_channel_or_of_an_ended_one_are_dead_letters() -> None:
    session = following("A")
    [letter] = only(DeadLetter, feed(session, delta(1, sid=9)))
    assert (letter.reason, letter.seq, letter.stream_id, letter.payload) == ("unknown_sid", 1, 0, delta(1, sid=9))
    feed(session, error(25, sid=1, seq=2))
    assert [each.reason for each in only(DeadLetter, feed(session, delta(3)))] == ["unknown_sid"]
    records = feed(session, delta(7, sid=9), frame("news", sid=8, seq=1, msg={}))
    assert [type(record) for record in records] == [StreamOpened, BookDelta, DeadLetter]
    assert feed(session, subscribed(1))[0] == StreamEnded(101, T0, "replaced")
    assert only(BookDelta, feed(session, delta(1)))[0].stream_id == 102


def test_unsubscribing_ends_the_book_subscription_at_the_last_number_received() -> None:
    session = following("A", "B")
    feed(session, delta(3), delta(4, "B"))
    session.unsubscribe_books(["A"])
    [command] = commands(session.pop_commands())
    assert command["params"] == {"sids": [1], "action": "delete_markets", "market_tickers": ["A"]}
    records = feed(session, delta(5), snapshot(6, "A"), ok(command["id"], 1, 7))
    assert records[0] == BookSubscriptionEnded(100, "A", 4, "unsubscribed")
    assert only(BookSubscriptionStarted, records) == []
    assert [type(record) for record in records[1:3]] == [BookDelta, BookSnapshot]
    assert session.followed() == {"B"}


def test_records_of_an_unsubscribe_are_available_at_once() -> None:
    session = following("A")
    session.unsubscribe_books(["A", "never wanted"])
    assert session.pop_records() == [BookSubscriptionEnded(100, "A", 1, "unsubscribed")]
    assert session.pop_records() == []


def test_a_market_wanted_again_is_added_only_after_its_delete_is_acknowledged() -> None:
    session = following("A")
    feed(session, delta(5))  # a gap: get_snapshot is under way
    session.unsubscribe_books(["A"])
    session.subscribe_books({"A": 4})
    [delete] = commands(session.pop_commands())
    assert delete["params"]["action"] == "delete_markets"
    [add] = commands(session.receive(ok(delete["id"], 1, 6), T0))
    assert add["params"]["action"] == "add_markets"
    late_answer = snapshot(7, "A", command_id=delete["id"] - 1)
    assert only(BookSubscriptionStarted, feed(session, late_answer)) == []
    assert feed(session, ok(add["id"], 1, 8), snapshot(9))[-1] == BookSubscriptionStarted(100, "A", 9, 4)


def test_a_market_unsubscribed_before_it_was_added_is_never_requested() -> None:
    session = session_of(batch_size=1, adds_in_flight=1)
    session.subscribe_books({"A": 0, "B": 0, "C": 0})
    session.pop_commands()
    session.unsubscribe_books(["A", "C"])  # A is in the subscribe under way, C still waits
    sent = commands(session.receive(subscribed(), T0))
    assert [(c["params"]["action"], c["params"]["market_tickers"]) for c in sent] == [
        ("delete_markets", ["A"]),
        ("add_markets", ["B"]),
    ]
    assert only(BookSubscriptionStarted, feed(session, snapshot(1, "A"))) == []


def test_an_unanswered_subscribe_is_sent_again() -> None:
    session = session_of(ack_deadline_s=10)
    session.subscribe_books({"A": 0})
    session.pop_commands()
    assert commands(session.tick(T0)) == []
    received = session.tick(T0 + 10 * S)
    assert [alarm.kind for alarm in received.alarms] == ["command_unanswered"]
    [again] = commands(received)
    assert (again["id"], again["cmd"], again["params"]["market_tickers"]) == (2, "subscribe", ["A"])


def test_a_repeated_subscribe_that_merged_opens_the_stream_at_its_ok() -> None:
    session = session_of()
    session.subscribe_books({"A": 0})
    records = feed(session, delta(41), ok(1, 1, 42), snapshot(43))
    assert [type(record) for record in records] == [
        StreamOpened,
        BookDelta,
        SequenceConsumed,
        BookSnapshot,
        BookSubscriptionStarted,
    ]
    assert commands(session.tick(T0 + 60 * S)) == []


def test_a_missing_snapshot_is_requested_and_then_reported() -> None:
    session = session_of(snapshot_deadline_s=10)
    session.subscribe_books({"A": 0, "B": 0})
    session.pop_commands()
    session.tick(T0)
    feed(session, subscribed(), snapshot(1, "B"))
    assert commands(session.tick(T0 + 9 * S)) == []
    [request] = commands(session.tick(T0 + 10 * S))
    assert request["params"] == {"sids": [1], "action": "get_snapshot", "market_tickers": ["A"]}
    assert session._subscriptions.pending.unanswered == set()
    received = session.tick(T0 + 20 * S)
    assert session._subscriptions.pending.unanswered == {"A"}
    assert [(alarm.kind, alarm.tickers) for alarm in received.alarms] == [("snapshot_unanswered", ("A",))]
    assert session.out_of_sync() == set()
    assert session.tick(T0 + 30 * S).alarms == []
    feed(session, snapshot(2, "A"))
    assert session._subscriptions.pending.unanswered == set()


@pytest.mark.parametrize("code", [7, 10, 25])
def test_a_terminal_error_ends_the_stream_and_subscribes_again(code: int) -> None:
    session = following("A", "B")
    received = session.receive(error(code, sid=1, seq=3), T0)
    assert list(received.records) == [
        SequenceConsumed(100, 3),
        BookSubscriptionEnded(100, "A", 3, f"error_{code}"),
        BookSubscriptionEnded(100, "B", 3, f"error_{code}"),
        StreamEnded(100, T0, f"error_{code}"),
    ]
    [again] = commands(received)
    assert (again["cmd"], again["params"]["market_tickers"]) == ("subscribe", ["A", "B"])
    assert session.out_of_sync() == {"A", "B"}
    records = feed(session, subscribed(2), snapshot(1, "A", sid=2), snapshot(2, "B", sid=2))
    assert records[0] == StreamOpened(101, 7, 2, "orderbook_delta", T0)
    assert session.followed() == {"A", "B"}


def test_a_stream_that_keeps_ending_is_reopened_with_growing_delays() -> None:
    session = following("A", retry_base_s=1)
    assert len(commands(session.receive(error(25, sid=1, seq=2), T0))) == 1
    feed(session, subscribed(2))
    assert commands(session.receive(error(25, sid=2, seq=1), T0 + S)) == []
    assert commands(session.tick(T0 + 2 * S)) == []
    assert len(commands(session.tick(T0 + 3 * S))) == 1


def test_error_26_halves_the_batch_until_nothing_fits() -> None:
    session = session_of(batch_size=4, adds_in_flight=1)
    session.subscribe_books(dict.fromkeys("ABCDEFGH", 0))
    session.pop_commands()
    [add] = commands(session.receive(subscribed(), T0))
    assert len(add["params"]["market_tickers"]) == 4
    [smaller] = commands(session.receive(error(26, add["id"], 1, 1), T0))
    assert smaller["params"]["market_tickers"] == ["E", "F"]
    [single] = commands(session.receive(error(26, smaller["id"], 1, 2), T0))
    received = session.receive(error(26, single["id"], 1, 3), T0)
    [alarm] = received.alarms
    assert (alarm.kind, set(alarm.tickers)) == ("market_limit", set("EFGH"))
    assert commands(received) == []
    # Those that are taken away are forgotten without a word, the others are tried again.
    session.unsubscribe_books(["F", "G", "H"])
    assert commands(session.tick(T0 + 59 * S)) == []
    [again] = commands(session.tick(T0 + 60 * S))
    assert again["params"]["market_tickers"] == ["E"]


@pytest.mark.parametrize("code", [18, 27])
def test_error_27_is_tried_again_later(code: int) -> None:
    session = following("A", retry_base_s=2)
    session.subscribe_books({"B": 0})
    [add] = commands(session.pop_commands())
    assert commands(session.receive(error(code, add["id"], 1, 2), T0)) == []
    assert commands(session.tick(T0 + S)) == []
    [again] = commands(session.tick(T0 + 2 * S))
    assert again["params"]["market_tickers"] == ["B"]


def test_an_error_that_names_a_ticker_reports_it_and_tries_the_others() -> None:
    session = following("A")
    session.subscribe_books({"B": 0, "C": 0})
    [add] = commands(session.pop_commands())
    refused = frame("error", id=add["id"], msg={"code": 16, "msg": "no such market", "market_ticker": "C"})
    received = session.receive(refused, T0)
    assert [(alarm.kind, alarm.tickers) for alarm in received.alarms] == [("error", ("C",))]
    assert session._subscriptions.pending.unanswered == {"C"}
    assert [c["params"]["market_tickers"] for c in commands(received)] == [["B"]]


def test_error_7_without_sid_ends_the_book_stream_if_it_answers_a_command_to_it() -> None:
    session = following("A")
    session.subscribe_books({"B": 0})
    [add] = commands(session.pop_commands())
    received = session.receive(error(7, add["id"]), T0)
    assert only(StreamEnded, received.records) == [StreamEnded(100, T0, "error_7")]
    assert set(commands(received)[0]["params"]["market_tickers"]) == {"A", "B"}


def test_an_unparsable_delta_is_kept_and_ends_only_its_own_market() -> None:
    session = following("A", "B")
    broken = delta(3, ts=..., ts_ms=...)
    received = session.receive(broken, T0)
    consumed, letter, ended = received.records
    assert consumed == SequenceConsumed(100, 3)
    assert isinstance(letter, DeadLetter)
    assert (letter.reason, letter.payload, letter.ticker) == ("no_exchange_time", broken, "A")
    assert (letter.stream_id, letter.seq, letter.channel) == (100, 3, "orderbook_delta")
    assert ended == BookSubscriptionEnded(100, "A", 2, "dead_letter")
    assert commands(received)[0]["params"] == {"sids": [1], "action": "get_snapshot", "market_tickers": ["A"]}
    assert session.out_of_sync() == {"A"}
    assert only(SequenceGap, feed(session, delta(4))) == []


def test_an_unparsable_book_frame_of_no_market_ends_all_book_subscriptions() -> None:
    session = following("A", "B")
    received = session.receive(b'{"type":"orderbook_delta","sid":1,"seq":3,"msg":{"mark', T0)
    assert {record.ticker for record in only(BookSubscriptionEnded, received.records)} == {"A", "B"}
    feed(session, snapshot(4, "A"), snapshot(5, "B"))
    # A flood must not become a flood of snapshots.
    requests = 0
    for seq in range(6, 66, 3):
        flood = session.receive(b'{"type":"orderbook_delta","sid":1,"seq":%d,"msg":{"mark' % seq, T0 + S)
        requests += len(commands(flood))
        feed(session, snapshot(seq + 1, "A"), snapshot(seq + 2, "B"), at_ns=T0 + S)
    assert requests == 4


def test_an_unknown_type_ends_nothing_and_is_recorded_before_its_number() -> None:
    session = following("A", "B")
    received = session.receive(frame("news", sid=1, seq=3, msg={"text": "x"}), T0)
    assert [type(record) for record in received.records] == [UnknownFrame, SequenceConsumed, DeadLetter]
    assert received.records[0] == UnknownFrame(100, 3, "news", "")
    assert (commands(received), session.out_of_sync(), session.followed()) == ([], set(), {"A", "B"})
    # More of its type tell nothing new before the next snapshot; another type does.
    more = feed(session, frame("news", sid=1, seq=4, msg={}), frame("views", sid=1, seq=5, msg={}), delta(6))
    assert only(UnknownFrame, more) == [UnknownFrame(100, 5, "views", "")]
    [request] = commands(session.tick(T0 + S))
    assert request["params"] == {"sids": [1], "action": "get_snapshot", "market_tickers": ["A", "B"]}
    proofs = feed(session, snapshot(7, "A", command_id=request["id"]), frame("news", sid=1, seq=8, msg={}))
    assert only(BookSubscriptionEnded, proofs) == [BookSubscriptionEnded(100, "A", 7, "snapshot")]
    assert only(UnknownFrame, proofs) == [UnknownFrame(100, 8, "news", "")]
    assert session.followed() == {"A", "B"}


def test_an_unknown_type_that_names_a_market_concerns_no_other() -> None:
    session = following("A", "B")
    records = feed(
        session,
        frame("news", sid=1, seq=3, msg={"market_ticker": "B"}),
        frame("news", sid=1, seq=4, msg={"market_ticker": "C"}),
        frame("news", sid=1, seq=5, msg={"market_ticker": "T" * 3_503}),
    )
    assert only(UnknownFrame, records) == [UnknownFrame(100, 3, "news", "B")]
    [request] = commands(session.tick(T0 + S))
    assert request["params"]["market_tickers"] == ["B"]
    assert session.followed() == {"A", "B"}


def test_checking_snapshots_are_requested_a_few_at_a_time_and_each_market_rarely() -> None:
    session = following(*"ABCDE")
    session._subscriptions._batch = 2
    requested: list[tuple[int, list[str]]] = []
    for second in range(120):
        session.receive(frame("news", sid=1, seq=6 + second, msg={}), T0 + second * S)
        ticked = commands(session.tick(T0 + second * S))
        requested += [(second, command["params"]["market_tickers"]) for command in ticked]
    assert requested[:4] == [(0, ["A", "B"]), (10, ["C", "D"]), (20, ["E"]), (60, ["A", "B"])]
    assert len(requested) <= 7
    # A gap is more urgent, and ends the claims as ever.
    lost = session.receive(delta(500), T0 + 120 * S)
    assert len(only(BookSubscriptionEnded, lost.records)) == 5
    assert len(commands(lost)) == 3


def test_ever_new_unknown_types_are_not_remembered_one_by_one() -> None:
    session = following("A")
    records = feed(session, *(frame(f"news{number}", sid=1, seq=2 + number, msg={}) for number in range(3_000)))
    assert len(only(UnknownFrame, records)) == 1_001


def test_an_unparsable_snapshot_is_not_requested_in_a_loop() -> None:
    session = following("A")
    broken = snapshot(2, yes=[["9", "1"]])
    assert len(commands(session.receive(broken, T0))) == 1
    made = [len(commands(session.receive(snapshot(seq, yes=[["9", "1"]]), T0))) for seq in range(3, 40)]
    assert sum(made) == 4
    assert only(BookSubscriptionStarted, feed(session, snapshot(40))) == [BookSubscriptionStarted(100, "A", 40, 0)]


def test_a_market_with_an_invalid_name_does_not_affect_the_others() -> None:
    session = following("A", "B")
    received = session.receive(delta(3, "T" * 3_503), T0)
    consumed, letter = received.records
    assert consumed == SequenceConsumed(100, 3)
    assert isinstance(letter, DeadLetter)
    assert (letter.reason, letter.ticker) == ("name", "T" * 200)
    assert session.followed() == {"A", "B"}
    assert commands(received) == []


def test_broken_bytes_of_no_sid_are_kept() -> None:
    session = following("A")
    records = feed(session, b"\xff\x00 not json")
    assert [(r.reason, r.stream_id, r.payload) for r in only(DeadLetter, records)] == [
        ("json", 0, b"\xff\x00 not json")
    ]
    assert session.followed() == {"A"}


def test_an_unreadable_ack_ends_no_book_subscription() -> None:
    session = following("A")
    records = feed(session, frame("error", sid=1, seq=2, msg="odd"), delta(3))
    assert [type(record) for record in records] == [SequenceConsumed, DeadLetter, BookDelta]


def test_channels_without_markets_give_their_rows() -> None:
    session = session_of()
    session.subscribe_channels(["trade", "ticker", "market_lifecycle_v2", "trade"])
    session.subscribe_channels(["ticker"])
    [command] = commands(session.pop_commands())
    assert command == {"id": 1, "cmd": "subscribe", "params": {"channels": ["trade", "ticker", "market_lifecycle_v2"]}}
    feed(session, subscribed(1, "trade"), subscribed(2, "ticker"), subscribed(3, "market_lifecycle_v2"))
    life = {"market_ticker": "A", "event_type": "settled", "settled_ts": 5}
    trade, tick, tock, event = feed(
        session,
        frame("trade", sid=1, seq=1, msg=TRADE),
        frame("ticker", sid=2, msg=TICKER),
        frame("ticker", sid=2, msg={**TICKER, "yes_bid_dollars": ""}),
        frame("market_lifecycle_v2", sid=3, seq=1, msg=life),
    )
    assert isinstance(trade, Trade)
    assert (trade.trade_id, trade.source, trade.stream_id, trade.seq) == ("t-1", "ws", 100, 1)
    assert isinstance(tick, TickerUpdate)
    assert isinstance(tock, TickerUpdate)
    assert (tick.stream_id, tick.seq, tock.seq) == (101, -1, -2)
    assert isinstance(event, LifecycleEvent)
    assert (event.event_type, event.stream_id, event.seq) == ("settled", 102, 1)
    assert session.tick(T0 + 60 * S).commands == []


def test_a_gap_in_trades_touches_no_book() -> None:
    session = following("A")
    session.subscribe_channels(["trade"])
    feed(session, subscribed(2, "trade", 2), frame("trade", sid=2, seq=1, msg=TRADE))
    received = session.receive(frame("trade", sid=2, seq=5, msg=TRADE), T0)
    assert only(SequenceGap, received.records) == [SequenceGap(101, 2, 5, T0)]
    assert session.followed() == {"A"}
    assert session.out_of_sync() == set()


def test_a_channel_that_dies_is_opened_again() -> None:
    session = session_of()
    session.subscribe_channels(["trade", "ticker"])
    session.pop_commands()
    feed(session, subscribed(1, "trade"), subscribed(2, "ticker"))
    [again] = commands(session.receive(error(10, sid=1, seq=1), T0))
    assert again["params"] == {"channels": ["trade"]}
    assert feed(session, subscribed(3, "trade", again["id"])) == [StreamOpened(102, 7, 3, "trade", T0)]


def test_close_ends_everything() -> None:
    session = following("A", "B")
    feed(session, delta(3))
    assert session.close(T0 + 1, "closed by the server: 1001") == [
        BookSubscriptionEnded(100, "A", 3, "closed by the server: 1001"),
        BookSubscriptionEnded(100, "B", 3, "closed by the server: 1001"),
        StreamEnded(100, T0 + 1, "closed by the server: 1001"),
    ]
    assert session.followed() == set()


def test_a_market_that_loses_its_claim_with_every_message_is_requested_ever_more_rarely() -> None:
    session = following("A", "B")
    seq, requested = 2, list[float]()

    def bad_then_good(second: float) -> bool:
        """A delta of A that cannot be read; what is requested for is answered."""
        nonlocal seq
        at_ns, seq = T0 + int(second * S), seq + 1
        made = commands(session.receive(delta(seq, price_dollars="x"), at_ns)) + commands(session.tick(at_ns))
        for request in made:
            assert request["params"]["market_tickers"] == ["A"]
            seq += 1
            session.receive(snapshot(seq, "A", command_id=request["id"]), at_ns)
        return bool(made)

    for step in range(4 * 600):
        if bad_then_good(step / 4):
            requested.append(step / 4)
    assert len(requested) <= 25
    assert all(32 <= later - earlier <= 64.25 for earlier, later in itertools.pairwise(requested[12:]))
    assert session.resubscribed_rarely() == 1
    assert session.followed() == {"B"}
    # Every market is requested for in the end, and what went well for a while is requested for at once again.
    [request] = commands(session.tick(T0 + 700 * S))
    seq += 1
    session.receive(snapshot(seq, "A", command_id=request["id"]), T0 + 700 * S)
    assert session.followed() == {"A", "B"}
    assert bad_then_good(740.0)
    assert session.resubscribed_rarely() == 0


@pytest.mark.parametrize("set_by_s", [90, -90])
def test_a_wall_clock_that_is_set_moves_no_deadline(set_by_s: int) -> None:
    session = session_of(snapshot_deadline_s=10, ack_deadline_s=10)
    session.tick(5 * S)
    session.subscribe_books({"A": 0, "B": 0})
    session.pop_commands()
    early, late = T0, T0 + set_by_s * S
    session.receive_all([(subscribed(), early), (snapshot(1, "B"), early)], 5 * S)
    received = session.receive_all([(delta(2, "B"), late)], 6 * S)
    assert received.records[0].received_at_ns == late  # type: ignore[union-attr]
    ticked = session.tick(6 * S)
    assert (list(ticked.records), commands(ticked), list(ticked.alarms)) == ([], [], [])
    [request] = commands(session.tick(15 * S))
    assert (request["params"]["action"], request["params"]["market_tickers"]) == ("get_snapshot", ["A"])
