from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.lab.simulator.engine import universe
from kalshi_platform.lab.simulator.engine.publish import Publisher
from kalshi_platform.lab.simulator.engine.subscriptions import Router, Session
from kalshi_platform.lab.simulator.engine.truth import TruthLedger
from kalshi_platform_tests.unit.lab.simulator.helpers import START_US, VenueFeed, small_venue


class Line:
    """One session on a small venue, with its frames decoded."""

    def __init__(self, markets: int = 6, **options: Any) -> None:
        self.router = Router()
        publisher = Publisher(self.router, TruthLedger(None), lambda *_: False)
        self.venue, self.activity, _ = small_venue(markets, sink=publisher)
        self.session = Session(VenueFeed(self.venue), self.router, **options)
        self.tickers = [market.ticker for market in self.venue.quoting]
        self._id = 0

    def frames(self) -> list[dict[str, Any]]:
        taken, self.session.frames = self.session.frames, []
        return [json.loads(frame) for frame in taken]

    def send(self, cmd: str, **params: Any) -> list[dict[str, Any]]:
        self._id += 1
        self.session.command(json.dumps({"id": self._id, "cmd": cmd, "params": params}))
        return self.frames()

    def books(self, tickers: list[str], **params: Any) -> list[dict[str, Any]]:
        return self.send("subscribe", channels=["orderbook_delta"], market_tickers=tickers, **params)


def test_subscribe_answers_subscribed_with_nested_sid_then_numbered_snapshots() -> None:
    line = Line()
    reply, *snapshots = line.books(line.tickers[:2])
    assert reply == {"id": 1, "type": "subscribed", "msg": {"channel": "orderbook_delta", "sid": 1}}
    assert [(frame["type"], frame["sid"], frame["seq"]) for frame in snapshots] == [
        ("orderbook_snapshot", 1, 1),
        ("orderbook_snapshot", 1, 2),
    ]
    assert all("id" not in frame for frame in snapshots)


def test_a_second_subscribe_merges_with_ok_and_sends_only_the_new_snapshots() -> None:
    line = Line()
    line.books(line.tickers[:2])
    ok, *snapshots = line.books(line.tickers[1:3])
    assert ok == {"id": 2, "type": "ok", "sid": 1, "seq": 3, "msg": {"market_tickers": line.tickers[:3]}}
    assert [frame["msg"]["market_ticker"] for frame in snapshots] == [line.tickers[2]]


def test_skip_ticker_ack_omits_the_list_but_consumes_the_number() -> None:
    line = Line()
    line.books(line.tickers[:2], skip_ticker_ack=True)
    ok = line.send("update_subscription", sids=[1], action="add_markets", market_tickers=[line.tickers[2]])[0]
    assert ok["msg"] == {}
    assert ok["seq"] == 3


def test_each_channel_has_its_own_sid_and_ticker_has_no_seq() -> None:
    line = Line()
    replies = line.send("subscribe", channels=["trade", "ticker", "market_lifecycle_v2"])
    assert [(each["msg"]["channel"], each["msg"]["sid"]) for each in replies] == [
        ("trade", 1),
        ("ticker", 2),
        ("market_lifecycle_v2", 3),
    ]
    line.activity.run(START_US, START_US + 1_000_000, 500)
    frames = line.frames()
    assert {"trade", "ticker"} == {frame["type"] for frame in frames}
    assert all(("seq" in frame) == (frame["type"] == "trade") for frame in frames)


def test_get_snapshot_carries_the_command_id_and_continues_the_counter() -> None:
    line = Line()
    line.books(line.tickers[:1])
    frames = line.send("update_subscription", sid=1, action="get_snapshot", market_tickers=line.tickers[:1])
    assert [(each["type"], each["id"], each["seq"]) for each in frames] == [("orderbook_snapshot", 2, 2)]


def test_the_books_that_were_sent_are_reported_and_a_lost_one_is_not() -> None:
    line = Line()
    told: list[str] = []
    line.session.on_snapshot = told.append
    line.books(line.tickers[:2])
    assert told == line.tickers[:2]
    line.session.gate = lambda _subscription, kind, frame: line.tickers[0].encode() in frame
    line.send("update_subscription", sid=1, action="get_snapshot", market_tickers=line.tickers[:2])
    assert told == [*line.tickers[:2], line.tickers[1]]


def test_unsubscribe_is_numbered_and_the_sid_is_not_used_again() -> None:
    line = Line()
    line.books(line.tickers[:1])
    assert line.send("unsubscribe", sids=[1]) == [{"id": 2, "type": "unsubscribed", "sid": 1, "seq": 2}]
    assert line.books(line.tickers[:1])[0]["msg"]["sid"] == 2
    assert not line.router.targets("orderbook_delta", line.tickers[1])


def test_deleted_markets_fall_silent_and_the_others_go_on() -> None:
    line = Line()
    line.books(line.tickers)
    line.send("update_subscription", sids=[1], action="delete_markets", market_tickers=line.tickers[1:])
    line.activity.run(START_US, START_US + 1_000_000, 400)
    seen = {frame["msg"]["market_ticker"] for frame in line.frames()}
    assert seen == {line.tickers[0]}


def test_unknown_and_settled_tickers_subscribe_silently() -> None:
    line = Line()
    line.venue.markets[line.tickers[0]].status = universe.FINALIZED
    frames = line.books(["KXNONE-T1", line.tickers[0]])
    assert [frame["type"] for frame in frames] == ["subscribed"]


def test_list_subscriptions_answers_an_array() -> None:
    line = Line()
    line.books(line.tickers[:1])
    line.session.command('{"id": 9, "cmd": "list_subscriptions"}')
    assert line.frames() == [{"id": 9, "type": "ok", "msg": [{"channel": "orderbook_delta", "sid": 1}]}]


def test_id_zero_means_no_id() -> None:
    line = Line()
    line.session.command(json.dumps({"id": 0, "cmd": "subscribe", "params": {"channels": ["trade"]}}))
    assert line.frames() == [{"type": "subscribed", "msg": {"channel": "trade", "sid": 1}}]


def test_ticker_takes_market_ids_and_initial_snapshots() -> None:
    line = Line()
    market = line.venue.quoting[0]
    frames = line.send("subscribe", channels=["ticker"], market_ids=[market.market_id], send_initial_snapshot=True)
    assert [frame["type"] for frame in frames] == ["subscribed", "ticker"]
    assert frames[1]["msg"]["market_ticker"] == market.ticker


def test_an_unknown_market_id_does_not_mean_all_markets() -> None:
    line = Line()
    line.send("subscribe", channels=["ticker"], market_ids=["0"])
    line.activity.run(START_US, START_US + 1_000_000, 300)
    assert line.frames() == []


def test_use_yes_price_holds_for_snapshot_and_deltas() -> None:
    line, plain = Line(), Line()
    flipped = line.books(line.tickers, use_yes_price=True)[1:]
    straight = plain.books(plain.tickers)[1:]
    line.activity.run(START_US, START_US + 1_000_000, 200)
    plain.activity.run(START_US, START_US + 1_000_000, 200)
    for one, other in zip([*flipped, *line.frames()], [*straight, *plain.frames()], strict=True):
        msg = other["msg"]
        if "price_dollars" in msg and msg["side"] == "no":
            total = int(msg["price_dollars"].replace(".", "")) + int(one["msg"]["price_dollars"].replace(".", ""))
            assert total == 10_000
        elif "price_dollars" in msg:
            assert msg == one["msg"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", 1),
        ("[]", 1),
        ('{"id": 1, "cmd": "subscribe"}', 2),
        ('{"id": 1, "cmd": "subscribe", "params": {"market_ticker": "A"}}', 3),
        ('{"id": 1, "cmd": "unsubscribe", "params": {"sid": 1}}', 4),
        ('{"id": 1, "cmd": "dance", "params": {"a": 1}}', 5),
        ('{"id": 1, "cmd": "unsubscribe", "params": {"sids": [7]}}', 7),
        ('{"id": 1, "cmd": "update_subscription", "params": {"sids": [7], "action": "add_markets"}}', 7),
        ('{"id": 1, "cmd": "subscribe", "params": {"channels": ["ticker_v2"]}}', 8),
        ('{"id": 1, "cmd": "subscribe", "params": {"channels": [["trade"]]}}', 8),
        ('{"id": 1, "cmd": "subscribe", "params": {"channels": ["pyth_value"]}}', 9),
        ('{"id": 1, "cmd": "subscribe", "params": {"channels": ["trade"], "market_tickers": [1]}}', 11),
        ('{"id": 1, "cmd": "update_subscription", "params": {"sids": [1, 2], "action": "add_markets"}}', 12),
        ('{"id": 1, "cmd": "update_subscription", "params": {"action": "add_markets"}}', 12),
        ('{"id": 1, "cmd": "subscribe", "params": {"channels": ["orderbook_delta"]}}', 14),
    ],
)
def test_errors_without_a_subscription_have_no_sid(text: str, code: int) -> None:
    line = Line()
    line.session.command(text)
    (frame,) = line.frames()
    assert frame["type"] == "error"
    assert frame["msg"]["code"] == code
    assert "sid" not in frame
    assert "seq" not in frame


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"action": "explode", "market_tickers": ["A"]}, 13),
        ({"market_tickers": ["A"]}, 15),
        ({"action": "add_markets"}, 14),
        ({"action": "add_markets", "market_tickers": [f"T{n}" for n in range(9)]}, 26),
    ],
)
def test_errors_of_a_subscription_consume_its_number(params: dict[str, Any], code: int) -> None:
    line = Line(market_limit=5)
    line.books(line.tickers[:1])
    (frame,) = line.send("update_subscription", sids=[1], **params)
    assert (frame["msg"]["code"], frame["sid"], frame["seq"]) == (code, 1, 2)


def test_get_snapshot_on_another_channel_is_refused() -> None:
    line = Line()
    line.send("subscribe", channels=["trade"])
    (frame,) = line.send("update_subscription", sids=[1], action="get_snapshot", market_tickers=line.tickers[:1])
    assert frame["msg"]["code"] == 13


def test_a_terminal_error_ends_the_subscription() -> None:
    line = Line()
    line.books(line.tickers)
    subscription = line.session.by_channel("orderbook_delta")
    assert subscription is not None
    line.session.fail(subscription, 25)
    (frame,) = line.frames()
    assert (frame["type"], frame["msg"]["code"], frame["sid"]) == ("error", 25, 1)
    line.activity.run(START_US, START_US + 1_000_000, 100)
    assert line.frames() == []


COMMANDS = st.lists(
    st.one_of(
        st.tuples(st.just("add_markets"), st.lists(st.integers(0, 7), min_size=1, max_size=3)),
        st.tuples(st.just("delete_markets"), st.lists(st.integers(0, 7), min_size=1, max_size=3)),
        st.tuples(st.just("get_snapshot"), st.lists(st.integers(0, 7), min_size=1, max_size=3)),
        st.tuples(st.just("subscribe"), st.lists(st.integers(0, 7), min_size=1, max_size=3)),
        st.tuples(st.just("nonsense"), st.just([0])),
        st.tuples(st.just("run"), st.lists(st.integers(1, 40), min_size=1, max_size=1)),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(COMMANDS)
def test_seq_is_contiguous_and_snapshots_with_deltas_give_the_book(steps: list[tuple[str, list[int]]]) -> None:
    line = Line(8)
    now = START_US
    frames = line.books(line.tickers[:3])
    for name, numbers in steps:
        if name == "run":
            line.activity.run(now, now + 100_000, numbers[0])
            now += 100_000
            frames += line.frames()
        elif name == "subscribe":
            frames += line.books([line.tickers[number] for number in numbers])
        else:
            tickers = [line.tickers[number] for number in numbers]
            frames += line.send("update_subscription", sids=[1], action=name, market_tickers=tickers)
    numbered = [frame["seq"] for frame in frames if "seq" in frame]
    assert numbered == list(range(1, len(numbered) + 1))
    books: dict[str, dict[tuple[str, str], int]] = {}
    for frame in frames:
        msg = frame.get("msg", {})
        if frame["type"] == "orderbook_snapshot":
            books[msg["market_ticker"]] = {
                (side, price): int(size.replace(".", ""))
                for side in ("yes", "no")
                for price, size in msg.get(f"{side}_dollars_fp", [])
            }
        elif frame["type"] == "orderbook_delta":
            book = books[msg["market_ticker"]]
            key = (msg["side"], msg["price_dollars"])
            book[key] = book.get(key, 0) + int(msg["delta_fp"].replace(".", ""))
            assert book[key] >= 0
    subscription = line.session.by_channel("orderbook_delta")
    assert subscription is not None
    for ticker in subscription.tickers:
        market = line.venue.markets[ticker]
        held = {key: size for key, size in books[ticker].items() if size}
        assert held == {
            (name, f"{price / 10_000:.4f}"): size
            for side, name in enumerate(("yes", "no"))
            for price, size in market.book.levels[side].items()
        }
