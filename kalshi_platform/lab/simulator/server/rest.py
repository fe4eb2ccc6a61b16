"""The REST side: routes under /trade-api/v2. Handlers read the query, ask the pure modules and shape the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from kalshi_platform.lab.simulator.engine import candles, universe
from kalshi_platform.lab.simulator.engine.core import Exchange
from kalshi_platform.lab.simulator.engine.payloads import encode, time_text
from kalshi_platform.lab.simulator.engine.universe import Market
from kalshi_platform.lab.simulator.server import queries, rest_shapes
from kalshi_platform.lab.simulator.server.keys import TokenBucket, Verifier
from kalshi_platform.lab.simulator.server.queries import BadQuery
from kalshi_platform.lab.simulator.server.sent_record import SentRecord

PREFIX = "/trade-api/v2"
MOST_BOOKS = 100
MOST_CANDLES = {"one": 5_000, "batch": 10_000}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answer(body: object, status: int = 200) -> web.Response:
    """Return a JSON response."""
    return web.Response(body=encode(body), status=status, content_type="application/json")


def error(status: int, code: str, message: str) -> web.Response:
    """Return the documented error model."""
    return answer({"code": code, "message": message, "details": ""}, status)


class NotFound(Exception):
    """A ticker that REST does not show."""


class RestApi:
    """Market data, exchange status and account limits. `reshape` may change the shape of answers (a fault).

    `sent` keeps answers with books.
    """

    def __init__(
        self, exchange: Exchange, verifier: Verifier, reshape: Callable[[Any], Any], sent: SentRecord | None
    ) -> None:
        self._exchange = exchange
        self._venue = exchange.venue
        self._verifier = verifier
        self._reshape = reshape
        self._sent = sent
        settings = exchange.settings
        self._bucket = TokenBucket(settings.read_refill_rate, settings.read_bucket_capacity, exchange.clock.monotonic())
        self.requests = 0

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        table: dict[str, Callable[[web.Request], Any]] = {
            "/exchange/status": self._status,
            "/exchange/schedule": lambda _: rest_shapes.schedule(),
            "/exchange/user_data_timestamp": lambda _: {"as_of_time": time_text(self._exchange.now_us())},
            "/series": self._series_list,
            "/series/fee_changes": lambda _: {"series_fee_change_arr": []},
            "/series/{ticker}": self._series,
            "/series/{series}/markets/{ticker}/candlesticks": self._candles,
            "/series/{series}/events/{event}/candlesticks": self._candles_event,
            "/events": self._events,
            "/events/fee_changes": self._fee_changes,
            "/events/multivariate": self._combo_events,
            "/events/{ticker}": self._event,
            "/markets": self._markets,
            "/markets/orderbooks": self._orderbooks,
            "/markets/trades": self._trades,
            "/markets/candlesticks": self._candles_batch,
            "/markets/{ticker}": self._market,
            "/markets/{ticker}/orderbook": self._orderbook,
            "/historical/cutoff": self._cutoff,
            "/historical/markets": self._historical_markets,
            "/historical/markets/{ticker}": self._historical_market,
            "/historical/markets/{ticker}/candlesticks": self._historical_candles,
            "/historical/trades": self._historical_trades,
            "/account/limits": self._limits,
            "/account/endpoint_costs": lambda _: {
                "default_cost": _plain(self._exchange.settings.request_cost),
                "endpoint_costs": [],
            },
        }
        return [web.get(PREFIX + path, self._guarded(handler)) for path, handler in table.items()]

    def _guarded(self, handler: Callable[[web.Request], Any]) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            self.requests += 1
            refusal = await self._injected(request) or self._admit(request)
            if refusal is not None:
                return refusal
            self._exchange.catch_up()
            try:
                body = handler(request)
            except BadQuery as bad:
                return error(400, "invalid_parameters", str(bad))
            except NotFound:
                return error(404, "not_found", "not found")
            response = body if isinstance(body, web.Response) else answer(self._reshape(body))
            if self._sent is not None and "/orderbook" in request.path and isinstance(response.body, bytes):
                self._sent.append_books(request.headers.get("User-Agent", ""), response.body)
            return response

        return guarded

    async def _injected(self, request: web.Request) -> web.Response | None:
        board, path = self._exchange.board, request.path
        if not board.faults:
            return None
        slow = board.rest("slow_rest", path, self._exchange.clock.monotonic())
        if slow is not None:
            delay_s = float(slow.params.get("delay_s", 5.0))
            slow.hit({"path": path, "delay_s": delay_s})
            await asyncio.sleep(delay_s)
        fault = board.rest("rest_status", path, self._exchange.clock.monotonic())
        if fault is None:
            return None
        status = int(fault.params.get("status", 503))
        fault.hit({"path": path, "status": status})
        if status == 429:
            return self._too_many()
        return error(status, "service_unavailable" if status >= 500 else "rejected", "injected")

    @staticmethod
    def _too_many() -> web.Response:
        return answer({"error": "too many requests"}, 429)

    def _admit(self, request: web.Request) -> web.Response | None:
        """Check a signature where there is one (or must be) and draw the account's bucket for it.

        Unsigned reads draw nothing.
        """
        is_signed = any(name.upper().startswith("KALSHI-ACCESS-") for name in request.headers)
        if not is_signed and request.path != PREFIX + "/account/limits":
            return None
        problem = self._verifier.problem(
            request.headers, request.method, request.path, self._exchange.handshake_ms(), self._exchange.clock.pace()
        )
        if problem is not None:
            return error(401, "unauthorized", problem)
        if not self._bucket.take(self._exchange.settings.request_cost, self._exchange.clock.monotonic()):
            return self._too_many()
        return None

    # --- exchange and account ------------------------------------------------------------------------------------

    def _status(self, _: web.Request) -> Any:
        exchange = self._exchange
        active, trading = exchange.exchange_active, exchange.trading_active
        resume, code = None, 200
        if not active:
            now = exchange.clock.monotonic()
            closures = exchange.board.active("exchange_inactive", now)
            code = int(closures[0].params.get("status", 200)) if closures else 200
            ends = [fault.until for fault in closures if fault.until is not None]
            if ends:
                resume = time_text(exchange.now_us() + round((max(ends) - now) * exchange.clock.pace() * 1_000_000))
        shared = {"exchange_active": active, "trading_active": trading, "intra_exchange_transfers_active": active}
        shards = {market.exchange_index for market in self._venue.market_list} | {0}
        names = {0: "Default", 1: "Combos", 2: "Crypto", 3: "Sports"}
        body = {
            **shared,
            "exchange_estimated_resume_time": resume,
            "exchange_index_statuses": [
                {"exchange_index": shard, "description": names.get(shard, f"Shard {shard}"), **shared}
                for shard in sorted(shards)
            ],
        }
        return answer(body, code)

    def _limits(self, _: web.Request) -> Any:
        settings = self._exchange.settings
        return {
            "usage_tier": settings.usage_tier,
            "read": {
                "refill_rate": _plain(settings.read_refill_rate),
                "bucket_capacity": _plain(settings.read_bucket_capacity),
            },
            "write": {
                "refill_rate": _plain(settings.write_refill_rate),
                "bucket_capacity": _plain(settings.write_bucket_capacity),
            },
            "grants": [{"exchange_instance": "event_contract", "level": settings.usage_tier, "source": "manual"}],
        }

    # --- series and events ---------------------------------------------------------------------------------------

    def _series_list(self, request: web.Request) -> Any:
        query = request.query
        category = query.get("category")
        tags = {tag for tag in query.get("tags", "").split(",") if tag}
        updated_us = queries.number(query, "min_updated_ts", default=0) * 1_000_000
        with_metadata = queries.flag(query, "include_product_metadata")
        volumes = self._series_volumes() if queries.flag(query, "include_volume") else {}
        found = [
            rest_shapes.series(each, volume_e2=volumes.get(each.ticker), with_metadata=with_metadata)
            for each in self._venue.series.values()
            if (not category or each.category == category)
            and (not tags or tags & set(each.tags or ()))
            and each.updated_us >= updated_us
        ]
        return {"series": found}

    def _series_volumes(self) -> dict[str, int]:
        volumes = dict.fromkeys(self._venue.series, 0)
        for market in self._venue.market_list:
            volumes[market.series_ticker] += market.volume_e2
        return volumes

    def _series(self, request: web.Request) -> Any:
        found = self._venue.series.get(request.match_info["ticker"])
        if found is None:
            raise NotFound
        return {"series": rest_shapes.series(found)}

    def _events(self, request: web.Request) -> Any:
        return self._event_page(request, combos=False, default=200)

    def _combo_events(self, request: web.Request) -> Any:
        return self._event_page(request, combos=True, default=100)

    def _event_page(self, request: web.Request, *, combos: bool, default: int) -> Any:
        query, now_us = request.query, self._exchange.now_us()
        limit = queries.number(query, "limit", default=default, low=1, high=200)
        with_markets = queries.flag(query, "with_nested_markets")
        wanted = queries.event_filter(self._venue, query, now_us, combos=combos)
        events, cursor = queries.page(list(self._venue.events.values()), wanted, query, limit=limit)
        shaped = [
            rest_shapes.event(each, queries.nested(self._venue, each, now_us) if with_markets else None, now_us=now_us)
            for each in events
        ]
        return {"events": shaped, "milestones": [], "cursor": cursor}

    def _event(self, request: web.Request) -> Any:
        event = self._venue.events.get(request.match_info["ticker"])
        if event is None:
            raise NotFound
        now_us = self._exchange.now_us()
        markets = queries.nested(self._venue, event, now_us)
        inside = markets if queries.flag(request.query, "with_nested_markets") else None
        # The outer list is deprecated and still always there.
        return {
            "event": rest_shapes.event(event, inside, now_us=now_us),
            "markets": [rest_shapes.market(each, now_us) for each in markets],
        }

    def _fee_changes(self, request: web.Request) -> Any:
        changes = self._venue.fee_changes
        positions, cursor = queries.fee_change_page(changes, request.query)
        events = self._venue.events
        return {
            "event_fee_changes": [
                rest_shapes.fee_change(number, *changes[number], events[changes[number][1]].series_ticker)
                for number in positions
            ],
            "cursor": cursor,
        }

    # --- markets and books ---------------------------------------------------------------------------------------

    def _visible(self, ticker: str) -> Market:
        market = self._venue.visible(ticker, self._exchange.now_us())
        if market is None:
            raise NotFound
        return market

    def _markets(self, request: web.Request) -> Any:
        now_us = self._exchange.now_us()
        limit = queries.number(request.query, "limit", default=100, low=0, high=1_000) or 100
        wanted = queries.market_filter(request.query, now_us)
        markets, cursor = queries.page(self._venue.market_list, wanted, request.query, limit=limit)
        return {"markets": [rest_shapes.market(each, now_us) for each in markets], "cursor": cursor}

    def _market(self, request: web.Request) -> Any:
        return {"market": rest_shapes.market(self._visible(request.match_info["ticker"]), self._exchange.now_us())}

    def _orderbook(self, request: web.Request) -> Any:
        depth = queries.number(request.query, "depth", default=0, low=0, high=100)
        return rest_shapes.orderbook(self._visible(request.match_info["ticker"]).book, depth)

    def _orderbooks(self, request: web.Request) -> Any:
        tickers = request.query.getall("tickers", [])
        if not 1 <= len(tickers) <= MOST_BOOKS or any(not 0 < len(ticker) <= 200 for ticker in tickers):
            raise BadQuery("tickers must be given 1 to 100 times")
        found = []
        for ticker in tickers:
            market = self._venue.visible(ticker, self._exchange.now_us())
            if market is not None:  # one market that is gone does not spoil the answer for the other 99
                found.append({"ticker": ticker, **rest_shapes.orderbook(market.book)})
        return {"orderbooks": found}

    # --- trades and candles --------------------------------------------------------------------------------------

    def _trades(self, request: web.Request) -> Any:
        ticker = request.query.get("ticker")
        trades = self._venue.trades
        if ticker:
            market = self._venue.markets.get(ticker)
            trades = market.trades if market is not None else []
        found, cursor = queries.trade_page(trades, request.query)
        return {"trades": [rest_shapes.trade(each) for each in found], "cursor": cursor}

    def _period(self, request: web.Request) -> tuple[int, int, int]:
        period = queries.number(request.query, "period_interval", default=-1)
        if period not in candles.PERIODS:
            raise BadQuery("period_interval must be 1, 60 or 1440")
        start = queries.number(request.query, "start_ts", default=-1)
        end = queries.number(request.query, "end_ts", default=-1)
        if start < 0 or end < start:
            raise BadQuery("start_ts and end_ts are needed, in this order")
        return start, end, period

    def _candles(self, request: web.Request) -> Any:
        start, end, period = self._period(request)
        market = self._visible(request.match_info["ticker"])
        if market.series_ticker != request.match_info["series"]:
            raise NotFound
        count = (end - start) // (60 * period)
        if count > MOST_CANDLES["one"]:
            raise BadQuery(f"requested time range with candlesticks: {count}, max candlesticks: {MOST_CANDLES['one']}")
        before = queries.flag(request.query, "include_latest_before_start")
        found = candles.candles(market, start_s=start, end_s=end, period_min=period, with_latest_before=before)
        return {"ticker": market.ticker, "candlesticks": found}

    def _candles_event(self, request: web.Request) -> Any:
        start, end, period = self._period(request)
        event = self._venue.events.get(request.match_info["event"])
        if event is None or event.series_ticker != request.match_info["series"]:
            raise NotFound
        markets = queries.nested(self._venue, event, self._exchange.now_us())
        # As many periods as all markets together may have; the next request begins where this one was cut.
        span = MOST_CANDLES["one"] // max(1, len(markets)) * 60 * period
        adjusted = start + span if end - start > span else end
        if adjusted < end:
            end = adjusted - 1
        return {
            "market_tickers": [market.ticker for market in markets],
            "market_candlesticks": [
                candles.candles(market, start_s=start, end_s=end, period_min=period) for market in markets
            ],
            "adjusted_end_ts": adjusted,
        }

    def _candles_batch(self, request: web.Request) -> Any:
        start, end, period = self._period(request)
        tickers = [ticker for ticker in request.query.get("market_tickers", "").split(",") if ticker]
        if not 1 <= len(tickers) <= MOST_BOOKS:
            raise BadQuery("market_tickers must name 1 to 100 markets, joined by commas")
        count = len(tickers) * ((end - start) // (60 * period))
        if count > MOST_CANDLES["batch"]:
            most = MOST_CANDLES["batch"]
            raise BadQuery(f"requested candlesticks across all markets: {count}, max candlesticks: {most}")
        visible = (self._venue.visible(ticker, self._exchange.now_us()) for ticker in tickers)
        markets = [market for market in visible if market is not None]
        before = queries.flag(request.query, "include_latest_before_start")
        return {
            "markets": [
                {
                    "market_ticker": m.ticker,
                    "candlesticks": candles.candles(
                        m, start_s=start, end_s=end, period_min=period, with_latest_before=before
                    ),
                }
                for m in markets
            ]
        }

    # --- historical tier -----------------------------------------------------------------------------------------

    def _cutoff(self, _: web.Request) -> Any:
        text = time_text(self._venue.cutoff_us)
        return {"market_settled_ts": text, "trades_created_ts": text, "orders_updated_ts": text}

    def _historical_markets(self, request: web.Request) -> Any:
        now_us = self._exchange.now_us()
        limit = queries.number(request.query, "limit", default=100, low=0, high=1_000) or 100
        wanted = queries.historical_filter(request.query, now_us)
        markets, cursor = queries.page(self._venue.historical, wanted, request.query, limit=limit)
        return {"markets": [rest_shapes.market(each, now_us) for each in markets], "cursor": cursor}

    def _historical_market(self, request: web.Request) -> Any:
        return {"market": rest_shapes.market(self._archived(request), self._exchange.now_us())}

    def _archived(self, request: web.Request) -> Market:
        for market in self._venue.historical:
            if market.ticker == request.match_info["ticker"]:
                return market
        raise NotFound

    def _historical_candles(self, request: web.Request) -> Any:
        start, end, period = self._period(request)
        market = self._archived(request)
        found = candles.candles(market, start_s=start, end_s=end, period_min=period)
        return {"ticker": market.ticker, "candlesticks": [candles.historical(candle) for candle in found]}

    def _historical_trades(self, request: web.Request) -> Any:
        ticker = request.query.get("ticker")
        trades = [each for each in self._venue.historical_trades if not ticker or each.ticker == ticker]
        found, cursor = queries.trade_page(trades, request.query)
        return {"trades": [rest_shapes.trade(each) for each in found], "cursor": cursor}


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) else value


def market_state(market: Market) -> dict[str, Any]:
    """Return a market as the control channel shows it."""

    def text(us: int) -> str:
        return datetime.fromtimestamp(us / 1_000_000, UTC).isoformat()

    return {
        "ticker": market.ticker,
        "event_ticker": market.event_ticker,
        "market_id": market.market_id,
        "status": market.status,
        "result": market.result,
        "open_time": text(market.open_us),
        "close_time": text(market.close_us),
        "is_settled": market.status == universe.FINALIZED,
    }
