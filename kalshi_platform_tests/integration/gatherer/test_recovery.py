"""Frames lost, connections cut, stalled and refused: the ledger tells, and the books come back."""

from __future__ import annotations

from pathlib import Path

from kalshi_platform.lab.proof.faults.stepped_clock import SteppedClock
from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform.monitoring.settings import AlertSettings
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.gatherer_service import RunningGatherer, running_gatherer
from kalshi_platform_tests.fixtures.webhook import running_receiver


def delta(exchange: ServerThread, ticker: str, size: int = 100) -> int:
    """Publish one delta; return its exchange time in µs."""
    return exchange.publish({"kind": "delta", "ticker": ticker, "side": "yes", "price_e4": 1500, "delta_e2": size})[0]


def lose_one(exchange: ServerThread, gatherer: RunningGatherer, ticker: str) -> None:
    """Lose the next delta of the connection that follows `ticker`, and send one more, which shows the gap."""
    exchange.fault("drop_frame", channel="orderbook_delta", type="orderbook_delta", user_agent="books-0")
    delta(exchange, ticker)
    delta(exchange, ticker)
    eventually(lambda: gatherer.value("SELECT count(*) FROM sequence_gaps") > 0, what="the gap in the ledger")


def test_after_a_lost_frame_the_snapshot_requested_starts_a_new_book_subscription(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with running_exchange(tmp_path, markets=3, rate=0) as exchange:
        with running_gatherer(gatherer_settings(connections=1), exchange) as gatherer:
            gatherer.follows(3)
            ticker = exchange.tickers()[0]
            lose_one(exchange, gatherer, ticker)
            query = f"SELECT end_reason FROM book_subscriptions WHERE ticker = '{ticker}' ORDER BY seq_from"
            eventually(lambda: gatherer.rows(query) == [("gap",), (None,)], what="a second book_subscription")
            gatherer.follows(3)
        assert gatherer.value("SELECT count(*) FROM sequence_gaps") == 1
        assert gatherer.value("SELECT count(*) FROM sessions") == 2
        assert gatherer.value("SELECT count(*) FROM orderbook_snapshots WHERE source = 'rest_recovery'") == 0
        # The numbers before and after the loss are separate stretches.
        (gap,) = gatherer.rows("SELECT stream_id, seq_expected, seq_seen FROM sequence_gaps")
        inside = (
            f"SELECT count(*) FROM stream_segments WHERE stream_id = {gap[0]} AND {gap[1]} BETWEEN seq_from AND seq_to"
        )
        assert gatherer.value(inside) == 0


def test_when_the_snapshot_does_not_come_rest_and_a_fresh_subscription_help(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with running_exchange(tmp_path, markets=3, rate=0) as exchange:
        settings = gatherer_settings(connections=1, snapshot_deadline_s=0.6)
        with running_gatherer(settings, exchange) as gatherer:
            gatherer.follows(3)
            ticker = exchange.tickers()[0]
            exchange.fault("ignore_get_snapshot", seconds=60)
            lose_one(exchange, gatherer, ticker)
            recovery = "SELECT count(DISTINCT ticker) FROM orderbook_snapshots WHERE source = 'rest_recovery'"
            eventually(lambda: gatherer.value(recovery) == 3, what="a recovery book for each suspect market")
            gatherer.follows(3)
            query = f"SELECT count(*) FROM book_subscriptions WHERE ticker = '{ticker}' AND seq_to IS NULL"
            eventually(lambda: gatherer.value(query) == 1, what="a new book_subscription")
            assert gatherer.value("SELECT count(*) FROM sessions") == 2
        book = exchange.book(ticker)
        stored = gatherer.rows(
            "SELECT yes_price_e4, yes_count_e2 FROM orderbook_snapshots"
            f" WHERE source = 'rest_recovery' AND ticker = '{ticker}'"
        )
        assert stored[0] == ([price for price, _ in book["yes"]], [size for _, size in book["yes"]])


def test_a_wall_clock_that_is_set_cuts_no_connection_and_holds_up_no_work(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    file = tmp_path / "clock"
    clock = SteppedClock(file)
    with (
        running_exchange(tmp_path, markets=3, rate=0) as exchange,
        running_gatherer(gatherer_settings(connections=1), exchange, clock) as gatherer,
    ):
        gatherer.follows(3)
        # Ten minutes ahead, back to the right time, ten minutes behind: always far more than the silence limit.
        for count, offset_s in enumerate((600, 0, -600), start=4):
            file.write_text(f"{offset_s}", encoding="utf-8")
            clock.look()
            exchange.market("create", visible_in_s=0.0, close_in_s=90_000)
            gatherer.follows(count)
            delta(exchange, exchange.tickers()[0])
        assert gatherer.value("SELECT count(*) FROM sessions") == 2
        assert gatherer.status.health != "not recording", gatherer.status.reasons


def test_a_cut_connection_comes_back_with_new_streams(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    with running_exchange(tmp_path, markets=4, rate=50) as exchange:
        with running_gatherer(gatherer_settings(connections=2), exchange) as gatherer:
            gatherer.follows(4)
            exchange.fault("cut")
            eventually(lambda: gatherer.value("SELECT count(*) FROM sessions") == 6, what="three new sessions")
            gatherer.follows(4)
            lost = gatherer.rows("SELECT close_reason FROM sessions WHERE closed_at IS NOT NULL")
            assert lost == [("connection lost",)] * 3
        assert gatherer.value("SELECT count(*) FROM streams") == 10
        assert gatherer.value("SELECT count(*) FROM streams WHERE ended_at IS NULL") == 0
        assert gatherer.value("SELECT count(*) FROM book_subscriptions WHERE seq_to IS NULL") == 0
        occurrences = gatherer.value("SELECT count(*) FROM orderbook_deltas")
        assert occurrences > 0


def test_a_stalled_connection_is_given_up_although_its_pings_go_on(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with running_exchange(tmp_path, markets=3, rate=50, ping_interval_s=0.3) as exchange:
        settings = gatherer_settings(connections=1, silence_limit_s=1.0)
        with running_gatherer(settings, exchange) as gatherer:
            gatherer.follows(3)
            exchange.fault("stall", user_agent="books-0", seconds=2.5)
            eventually(lambda: gatherer.status.connections["books-0"].sessions >= 2, what="a second session")
            assert "no data" in str(gatherer.status.connections["books-0"].last_error)
            gatherer.follows(3)


def test_a_quiet_connection_is_probed_and_kept(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    with (
        running_exchange(tmp_path, markets=3, rate=0) as exchange,
        running_gatherer(gatherer_settings(connections=1, silence_limit_s=0.8), exchange) as gatherer,
    ):
        gatherer.follows(3)
        frames = gatherer.status.connections["books-0"].frames
        eventually(lambda: gatherer.status.connections["books-0"].frames >= frames + 2, what="two answers")
        assert gatherer.status.connections["books-0"].sessions == 1
        assert gatherer.ingest.dead_letters == 0


def test_refused_handshakes_are_waited_out_and_a_wrong_key_does_not_hammer(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with running_exchange(tmp_path, markets=3, rate=0) as exchange:
        exchange.fault("refuse_handshake", status=503, count=3)
        exchange.fault("refuse_handshake", status=401, user_agent="books-0", count=1)
        settings = gatherer_settings(connections=1, refused_backoff_s=1.5)
        with running_gatherer(settings, exchange) as gatherer:
            eventually(lambda: gatherer.status.connections["books-0"].refused == 1, what="the refusal")
            assert "clock" in str(gatherer.status.connections["books-0"].last_error)
            gatherer.follows(3)
            assert gatherer.status.connections["books-0"].refused == 1


def test_an_unknown_shape_is_buried_with_its_bytes_and_its_markets_recover(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with running_exchange(tmp_path, markets=2, rate=0) as exchange:
        settings = gatherer_settings(connections=1, snapshot_deadline_s=0.6)
        with running_gatherer(settings, exchange) as gatherer:
            gatherer.follows(2)
            exchange.fault("unknown_frame", variant="shape", user_agent="books-0")
            eventually(lambda: gatherer.value("SELECT count(*) FROM dead_letters") == 1, what="the dead letter")
            ended = "SELECT count(*) FROM book_subscriptions WHERE end_reason = 'dead_letter'"
            eventually(lambda: gatherer.value(ended) == 2, what="the claims' end")
            gatherer.follows(2)
        (payload,) = gatherer.rows("SELECT payload FROM dead_letters")[0]
        assert b"unheard_of" in bytes(payload)


def test_books_on_another_price_scale_raise_an_alarm_on_the_heartbeat_and_end_nothing(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with (
        running_exchange(tmp_path, markets=4, rate=0) as exchange,
        running_receiver() as receiver,
        running_gatherer(
            gatherer_settings(connections=1, alerts=AlertSettings(webhook_url=receiver.url)), exchange
        ) as gatherer,
    ):
        gatherer.follows(4)
        for ticker in exchange.tickers()[:3]:
            book = {
                "market_ticker": ticker,
                "yes_dollars_fp": [["0.4000", "5.00"]],
                "no_dollars_fp": [["0.6500", "1.00"]],
            }
            exchange.publish(
                {
                    "kind": "raw",
                    "channel": "orderbook_delta",
                    "type": "orderbook_snapshot",
                    "ticker": ticker,
                    "msg": book,
                }
            )
        eventually(lambda: gatherer.status.alarms.get("price_scale") == 1, what="the alarm")
        query = "SELECT details->'alarms'->>'price_scale' FROM heartbeats"
        eventually(lambda: gatherer.rows(query) == [("1",)], what="the alarm on the heartbeat")
        receiver.wait_for(messages=1)
        [message] = receiver.messages
        assert message["text"].startswith(f":rotating_light: *price_scale* {gatherer.settings.service}\nno-side ")
        gatherer.follows(4)


def test_a_connection_asks_what_is_open_and_keeps_what_is(gatherer_settings: SettingsFactory, tmp_path: Path) -> None:
    with (
        running_exchange(tmp_path, markets=2, rate=100) as exchange,
        running_gatherer(gatherer_settings(silence_limit_s=0.6), exchange) as gatherer,
    ):
        gatherer.follows(2)
        frames = gatherer.status.connections["feed"].frames
        eventually(lambda: gatherer.status.connections["feed"].frames > frames + 60, what="frames for some seconds")
        assert gatherer.status.alarms == {}
        assert gatherer.value("SELECT count(*) FROM streams WHERE end_reason = 'not_served'") == 0
