"""REST of the simulated exchange, seen by plain requests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange, signed_headers

MARKET_MEMBERS = {
    "ticker", "event_ticker", "market_type", "yes_sub_title", "no_sub_title", "created_time", "updated_time",
    "open_time", "close_time", "latest_expiration_time", "settlement_timer_seconds", "status", "yes_bid_dollars",
    "yes_ask_dollars", "no_bid_dollars", "no_ask_dollars", "last_price_dollars", "yes_bid_size_fp", "yes_ask_size_fp",
    "volume_fp", "volume_24h_fp", "open_interest_fp", "result", "can_close_early", "notional_value_dollars",
    "rules_primary", "previous_yes_bid_dollars", "previous_yes_ask_dollars", "previous_price_dollars",
    "settlement_bounds_type", "expiration_value", "rules_secondary", "price_level_structure", "price_ranges",
    "exchange_index",
}  # fmt: skip
GONE = {
    "yes_bid",
    "yes_ask",
    "no_bid",
    "no_ask",
    "last_price",
    "volume",
    "open_interest",
    "tick_size",
    "liquidity",
    "category",
}


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    folder = tmp_path_factory.mktemp("exchange")
    with running_exchange(folder, rate=2_000, markets=60, read_bucket_capacity=50.0, read_refill_rate=0.001) as running:
        eventually(lambda: running.state()["published"]["trade"] > 60)
        running.rate(0)
        yield running


def get(exchange: ServerThread, path: str, **query: Any) -> requests.Response:
    return requests.get(exchange.rest_url + path, params=query, timeout=10)


def paged(exchange: ServerThread, path: str, member: str, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        body = get(exchange, path, **query, **({"cursor": cursor} if cursor else {})).json()
        found += body[member]
        cursor = body["cursor"]
        if not cursor:
            return found


def test_paging_lists_every_market_once_in_the_current_shape(exchange: ServerThread) -> None:
    markets = paged(exchange, "/markets", "markets", limit=7, status="open", mve_filter="exclude")
    assert sorted(market["ticker"] for market in markets) == sorted(exchange.tickers())
    for market in markets:
        assert set(market) >= MARKET_MEMBERS
        assert not GONE & set(market)
        assert market["status"] == "active"
    assert get(exchange, "/markets", limit=1_001).status_code == 400


def test_single_market_and_the_error_model(exchange: ServerThread) -> None:
    ticker = exchange.tickers()[0]
    assert get(exchange, f"/markets/{ticker}").json()["market"]["ticker"] == ticker
    missing = get(exchange, "/markets/NOPE")
    assert missing.status_code == 404
    assert set(missing.json()) == {"code", "message", "details"}
    assert get(exchange, "/nowhere").status_code == 404


def test_a_newborn_market_is_404_for_a_while(exchange: ServerThread) -> None:
    born = exchange.market("create", visible_in_s=0.3)
    assert get(exchange, f"/markets/{born['ticker']}").status_code == 404
    found = eventually(lambda: get(exchange, f"/markets/{born['ticker']}").status_code == 200)
    assert found
    exchange.market("close", ticker=born["ticker"])


def test_books_single_and_batch_agree_with_the_exact_book(exchange: ServerThread) -> None:
    tickers = exchange.tickers()[:50]
    body = get(exchange, "/markets/orderbooks", tickers=tickers).json()["orderbooks"]
    assert [each["ticker"] for each in body] == tickers
    for each in body:
        exact = exchange.book(each["ticker"])
        for side in ("yes", "no"):
            printed = each["orderbook_fp"][f"{side}_dollars"]
            assert [[int(p.replace(".", "")), int(s.replace(".", ""))] for p, s in printed] == [
                list(x) for x in exact[side]
            ]
    single = get(exchange, f"/markets/{tickers[0]}/orderbook").json()
    assert single["orderbook_fp"] == body[0]["orderbook_fp"]
    deep = next(each for each in body if len(each["orderbook_fp"]["yes_dollars"]) > 2)
    top = get(exchange, f"/markets/{deep['ticker']}/orderbook", depth=2).json()["orderbook_fp"]["yes_dollars"]
    assert top == deep["orderbook_fp"]["yes_dollars"][-2:]


@pytest.mark.parametrize("count", [0, 101])
def test_batch_books_take_1_to_100_tickers(exchange: ServerThread, count: int) -> None:
    assert get(exchange, "/markets/orderbooks", tickers=["A"] * count).status_code == 400


def test_trades_page_newest_first_without_loss(exchange: ServerThread) -> None:
    trades = paged(exchange, "/markets/trades", "trades", limit=9)
    assert len(trades) == exchange.state()["published"]["trade"]
    assert len({trade["trade_id"] for trade in trades}) == len(trades)
    times = exchange.call(lambda server: [trade.us for trade in reversed(server.exchange.venue.trades)])
    assert times == sorted(times, reverse=True)
    ticker = trades[0]["ticker"]
    own = paged(exchange, "/markets/trades", "trades", ticker=ticker)
    assert [trade["trade_id"] for trade in own] == [t["trade_id"] for t in trades if t["ticker"] == ticker]


def test_series_events_and_nested_markets(exchange: ServerThread) -> None:
    series = get(exchange, "/series").json()["series"]
    assert get(exchange, f"/series/{series[0]['ticker']}").json()["series"] == series[0]
    events = paged(exchange, "/events", "events", limit=5, with_nested_markets="true", status="open")
    nested = [market["ticker"] for event in events for market in event["markets"]]
    assert set(exchange.tickers()) <= set(nested)
    assert not any(ticker.startswith("KXMVE") for ticker in nested)
    combos = get(exchange, "/events/multivariate").json()["events"]
    assert [event["series_ticker"] for event in combos] == ["KXMVESIM"]
    one = get(exchange, f"/events/{events[0]['event_ticker']}").json()
    assert {market["ticker"] for market in one["markets"]} == {market["ticker"] for market in events[0]["markets"]}


def test_status_and_schedule(exchange: ServerThread) -> None:
    status = get(exchange, "/exchange/status").json()
    assert status["exchange_active"] is True
    assert {each["exchange_index"] for each in status["exchange_index_statuses"]} >= {0, 1}
    hours = get(exchange, "/exchange/schedule").json()["schedule"]["standard_hours"][0]
    assert [each["close_time"] for each in hours["thursday"]] == ["03:00", "00:00"]


def test_candles_sum_to_the_traded_volume(exchange: ServerThread) -> None:
    trade = get(exchange, "/markets/trades", limit=1).json()["trades"][0]
    market = get(exchange, f"/markets/{trade['ticker']}").json()["market"]
    series = trade["ticker"].split("-")[0]
    period = {"start_ts": 0, "end_ts": 4_000_000_000}
    assert get(exchange, f"/series/{series}/markets/{trade['ticker']}/candlesticks", **period).status_code == 400
    now = exchange.state()["clock_us"] // 1_000_000
    window = {"start_ts": now - 7_200, "end_ts": now + 7_200, "period_interval": 1}
    body = get(exchange, f"/series/{series}/markets/{trade['ticker']}/candlesticks", **window).json()
    volume = sum(int(candle["volume_fp"].replace(".", "")) for candle in body["candlesticks"])
    assert volume == int(market["volume_fp"].replace(".", "")) > 0
    batch = get(exchange, "/markets/candlesticks", market_tickers=trade["ticker"], **window).json()["markets"]
    assert batch == [{"market_ticker": trade["ticker"], "candlesticks": body["candlesticks"]}]


def test_the_latest_candle_before_the_start_carries_quotes_and_price(exchange: ServerThread) -> None:
    ticker = get(exchange, "/markets/trades", limit=1).json()["trades"][0]["ticker"]
    path = f"/series/{ticker.split('-')[0]}/markets/{ticker}/candlesticks"
    now = exchange.state()["clock_us"] // 1_000_000
    window = {"start_ts": now + 600, "end_ts": now + 660, "period_interval": 1}
    assert get(exchange, path, **window).json()["candlesticks"] == []
    [before] = get(exchange, path, **window, include_latest_before_start="true").json()["candlesticks"]
    market = get(exchange, f"/markets/{ticker}").json()["market"]
    assert before["price"]["previous_dollars"] == market["last_price_dollars"]
    assert "close_dollars" not in before["price"]
    assert before["volume_fp"] == "0.00"
    assert 0 < before["end_period_ts"] - window["start_ts"] <= 60


def test_too_many_candles_are_refused_with_the_number_asked_for(exchange: ServerThread) -> None:
    ticker = get(exchange, "/markets/trades", limit=1).json()["trades"][0]["ticker"]
    series, event = ticker.split("-")[0], ticker.rsplit("-", 1)[0]
    window = {"start_ts": 0, "end_ts": 5_001 * 60, "period_interval": 1}
    one = get(exchange, f"/series/{series}/markets/{ticker}/candlesticks", **window)
    assert one.status_code == 400
    assert "requested time range with candlesticks: 5001, max candlesticks: 5000" in one.text
    batch = get(exchange, "/markets/candlesticks", market_tickers=f"{ticker},KXNONE-26-A", **window)
    assert batch.status_code == 400
    assert "requested candlesticks across all markets: 10002, max candlesticks: 10000" in batch.text
    cut = get(exchange, f"/series/{series}/events/{event}/candlesticks", **window).json()
    assert cut["adjusted_end_ts"] == 5_000 // len(cut["market_tickers"]) * 60


def test_a_batch_of_candles_leaves_unknown_markets_out(exchange: ServerThread) -> None:
    ticker = get(exchange, "/markets/trades", limit=1).json()["trades"][0]["ticker"]
    window = {"start_ts": 0, "end_ts": 60, "period_interval": 1}
    batch = get(exchange, "/markets/candlesticks", market_tickers=f"KXNONE-26-A,{ticker}", **window).json()
    assert batch == {"markets": [{"market_ticker": ticker, "candlesticks": []}]}


def test_candles_of_an_event_are_those_of_its_markets(exchange: ServerThread) -> None:
    ticker = get(exchange, "/markets/trades", limit=1).json()["trades"][0]["ticker"]
    series, event = ticker.split("-")[0], ticker.rsplit("-", 1)[0]
    now = exchange.state()["clock_us"] // 1_000_000
    window = {"start_ts": now - 3_600, "end_ts": now + 3_600, "period_interval": 60}
    body = get(exchange, f"/series/{series}/events/{event}/candlesticks", **window).json()
    one = get(exchange, f"/series/{series}/markets/{ticker}/candlesticks", **window).json()["candlesticks"]
    assert dict(zip(body["market_tickers"], body["market_candlesticks"], strict=True))[ticker] == one
    assert get(exchange, f"/series/KXOTHER/events/{event}/candlesticks", **window).status_code == 404


def test_historical_candles_have_the_same_values_under_plain_names(exchange: ServerThread) -> None:
    ticker = get(exchange, "/historical/markets").json()["markets"][0]["ticker"]
    trades = get(exchange, "/historical/trades", ticker=ticker, limit=1_000).json()["trades"]
    first = int(datetime.fromisoformat(trades[-1]["created_time"]).timestamp())
    window = {"start_ts": first - 3_600, "end_ts": first + 7_200, "period_interval": 1_440}
    window["end_ts"] += 86_400
    [candle] = get(exchange, f"/historical/markets/{ticker}/candlesticks", **window).json()["candlesticks"]
    assert set(candle) == {"end_period_ts", "yes_bid", "yes_ask", "price", "volume", "open_interest"}
    assert set(candle["price"]) == {"open", "low", "high", "close", "mean"}
    assert candle["price"]["open"] == trades[-1]["yes_price_dollars"]
    total = sum(int(trade["count_fp"].replace(".", "")) for trade in trades)
    assert int(candle["volume"].replace(".", "")) == total


def test_historical_filters_go_alone(exchange: ServerThread) -> None:
    old = get(exchange, "/historical/markets").json()["markets"][0]
    assert get(exchange, "/historical/markets", tickers=old["ticker"]).json()["markets"] == [old]
    refused = get(exchange, "/historical/markets", tickers=old["ticker"], event_ticker=old["event_ticker"])
    assert refused.status_code == 400


def test_series_filters_and_what_comes_only_on_request(exchange: ServerThread) -> None:
    series = get(exchange, "/series").json()["series"]
    assert not any({"volume_fp", "product_metadata"} & set(each) for each in series)
    more = get(exchange, "/series", include_volume="true", include_product_metadata="true").json()["series"]
    assert all({"volume_fp", "product_metadata"} <= set(each) for each in more)
    assert {each["ticker"] for each in get(exchange, "/series", tags="Ball,Coins").json()["series"]} == {
        "KXSIMBALL", "KXSIMCOIN",
    }  # fmt: skip


def test_fee_changes_of_events_page(exchange: ServerThread) -> None:
    tickers = exchange.tickers()[:1] * 3
    for ticker in tickers:
        exchange.market("change_fees", ticker=ticker)
    changes = paged(exchange, "/events/fee_changes", "event_fee_changes", limit=2)
    assert [change["fee_type_override"] for change in changes] == ["flat", None, "flat"]
    assert {change["event_ticker"] for change in changes} == {tickers[0].rsplit("-", 1)[0]}


def test_a_provisional_market_is_404_after_its_determination(exchange: ServerThread) -> None:
    ticker = exchange.market("create", provisional=True, weight=0, visible_in_s=0)["ticker"]
    market = get(exchange, f"/markets/{ticker}").json()["market"]
    assert market["is_provisional"] is True
    exchange.market("close", ticker=ticker)
    assert get(exchange, f"/markets/{ticker}").status_code == 200
    exchange.market("determine", ticker=ticker)
    assert get(exchange, f"/markets/{ticker}").status_code == 404
    assert get(exchange, "/markets", tickers=ticker).json()["markets"] == []
    assert get(exchange, f"/events/{market['event_ticker']}").json()["markets"] == []


def test_a_disputed_scalar_market_shows_each_status(exchange: ServerThread) -> None:
    ticker = exchange.market("create", visible_in_s=0)["ticker"]
    shown = []

    def look(action: str, **more: object) -> None:
        exchange.market(action, ticker=ticker, **more)
        market = get(exchange, f"/markets/{ticker}").json()["market"]
        shown.append((market["status"], market["result"], market.get("settlement_value_dollars")))

    look("close")
    look("determine", result="no")
    look("dispute")
    look("determine", result="scalar", settlement_e4=3_700)
    look("settle")
    assert shown == [
        ("closed", "", None), ("determined", "no", "0.0000"), ("disputed", "no", "0.0000"),
        ("amended", "scalar", "0.3700"), ("finalized", "scalar", "0.3700"),
    ]  # fmt: skip


def test_historical_tier(exchange: ServerThread) -> None:
    cutoff = get(exchange, "/historical/cutoff").json()
    markets = get(exchange, "/historical/markets").json()["markets"]
    assert len(markets) == 3
    assert all(market["settlement_ts"] < cutoff["market_settled_ts"] for market in markets)
    assert get(exchange, f"/historical/markets/{markets[0]['ticker']}").json()["market"] == markets[0]
    trades = paged(exchange, "/historical/trades", "trades", limit=25)
    assert len(trades) == 60
    assert get(exchange, f"/markets/{markets[0]['ticker']}").status_code == 404


def test_account_limits_need_a_signature_and_signed_requests_draw_the_bucket(exchange: ServerThread) -> None:
    path = "/trade-api/v2/account/limits"
    url = exchange.rest_url + "/account/limits"
    assert requests.get(url, timeout=10).status_code == 401
    answers = [requests.get(url, headers=signed_headers(exchange, path=path), timeout=10) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert answers[0].json()["read"] == {"refill_rate": 0.001, "bucket_capacity": 50}
    assert answers[-1].json() == {"error": "too many requests"}
    assert "Retry-After" not in answers[-1].headers
    assert get(exchange, "/exchange/status").status_code == 200


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Host", "evil.example:8765", 421),
        ("Host", "127.0.0.1.evil.example", 421),
        ("Origin", "http://evil.example", 403),
        ("Origin", "null", 403),
        ("Host", "localhost:8765", 200),
        ("Host", "[::1]:8765", 200),
        ("Origin", "http://127.0.0.1:3000", 200),
    ],
)
def test_the_control_channel_obeys_no_foreign_page(
    exchange: ServerThread, header: str, value: str, status: int
) -> None:
    """A browser on this machine is a loopback caller, whatever page it shows."""
    answer = requests.post(exchange.control_url + "/rate", json={"rate": 0}, headers={header: value}, timeout=10)
    assert answer.status_code == status
    assert status == 200 or header in answer.json()["reason"]


def test_control_channel_answers_over_http(exchange: ServerThread) -> None:
    assert requests.get(exchange.control_url + "/state", timeout=10).json()["rate"] == 0
    assert requests.post(exchange.control_url + "/faults", json={"kind": "meteor"}, timeout=10).status_code == 400
    assert requests.post(exchange.control_url + "/markets", json={"action": "fly"}, timeout=10).status_code == 400
    assert requests.post(exchange.control_url + "/scenario", json={"wonders": 1}, timeout=10).status_code == 400
    assert requests.post(exchange.control_url + "/scenario", json={"life_s": 9}, timeout=10).json() == {"life_s": 9}
    ticker = exchange.tickers()[0]
    item = {"kind": "delta", "ticker": ticker, "side": "no", "price_e4": 100, "delta_e2": -(10**12)}
    refused = requests.post(exchange.control_url + "/publish", json={"items": [item]}, timeout=10)
    assert refused.status_code == 400
    assert "BookViolation" in refused.json()["error"]


def test_truth_ledger_folds_to_the_last_books(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    with running_exchange(tmp_path, rate=3_000, markets=30, truth=tmp_path / "truth") as exchange:
        eventually(lambda: exchange.state()["published"]["total"] > 1_000)
        exchange.flush_truth()
        eventually(lambda: exchange.state()["published"]["total"] > 2_000)
        exchange.rate(0)
        published = exchange.state()["published"]

    def rows(table: str) -> list[dict[str, Any]]:
        parts = sorted((tmp_path / "truth").glob(f"{table}-*.parquet"))
        return [row for part in parts for row in pq.read_table(part).to_pylist()]

    for table, kind in (("deltas", "delta"), ("trades", "trade"), ("tickers", "ticker")):
        assert len(rows(table)) == published[kind]
    levels: dict[tuple[str, str, int], int] = {}
    last: dict[tuple[str, str, int], int] = {}
    for row in rows("books"):
        target = levels if row["phase"] == "first" else last
        target[row["ticker"], row["side"], row["price_e4"]] = row["size_e2"]
    for row in sorted(rows("deltas"), key=lambda row: row["n"]):
        key = (row["ticker"], row["side"], row["price_e4"])
        levels[key] = levels.get(key, 0) + row["delta_e2"]
    assert {key: size for key, size in levels.items() if size} == last
    assert last
