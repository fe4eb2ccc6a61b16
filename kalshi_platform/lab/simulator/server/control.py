"""The control channel: JSON under /control/ on the same port, and the same calls in Python.

Only for callers from loopback addresses that ask for one, or for localhost.

Paths, and what they do::

    GET    /control/state              connections with their subscriptions, counts, markets by status, clock
    GET    /control/faults             every fault with its observed effects
    POST   /control/faults             arm a fault {"kind", …}; its parameters stand in `faults` and `injector`
    DELETE /control/faults[?kind=…]    end faults
    POST   /control/rate               {"rate", "backpressure"?}
    POST   /control/scenario           {"births_per_minute"?, …}: fields of `ScenarioSettings`
    POST   /control/markets            {"action", …}: create, open, close, reopen, determine, dispute, settle,
                                       deactivate, activate, move_close, change_metadata, change_grid,
                                       change_fees
    GET    /control/markets/{ticker}   status and exact book of one market
    POST   /control/publish            {"items": […]}: given deltas, trades, tickers or raw messages, in order
    POST   /control/truth              write the ledger so far (and what `record_sent` keeps); answers where it lies
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from kalshi_platform.errors import PermanentError
from kalshi_platform.lab.simulator.engine.book import ONE_DOLLAR_E4, SIDES
from kalshi_platform.lab.simulator.engine.core import Exchange
from kalshi_platform.lab.simulator.engine.faults import Fault
from kalshi_platform.lab.simulator.engine.payloads import encode
from kalshi_platform.lab.simulator.engine.universe import Market
from kalshi_platform.lab.simulator.server.connection import Connection
from kalshi_platform.lab.simulator.server.injector import FaultInjector
from kalshi_platform.lab.simulator.server.rest import answer, market_state
from kalshi_platform.lab.simulator.server.sent_record import SentRecord

Json = dict[str, Any]
_PLAIN_TRANSITIONS = ("open", "close", "dispute", "settle", "activate")
"""Actions on a market that take no parameters: methods of the scenario."""


class BadCommand(PermanentError):
    """A control call that makes no sense as it stands."""


class Control:
    """Commands of the control channel; all of them run on the server's event loop."""

    def __init__(
        self, exchange: Exchange, connections: list[Connection], injector: FaultInjector, flush: Callable[[], None]
    ) -> None:
        self._exchange = exchange
        self._connections = connections
        self._injector = injector
        self._flush = flush
        self.extra: Callable[[], Json] = dict
        self.sent: SentRecord | None = None

    # --- commands ------------------------------------------------------------------------------------------------

    def state(self) -> Json:
        """Return connections, counts, markets by status and the clock."""
        exchange = self._exchange
        venue = exchange.venue
        return {
            "connections": [each.describe(index) for index, each in enumerate(self._connections)],
            "published": {**venue.counts, "total": sum(venue.counts.values())},
            "rate": exchange.rate,
            "backpressure": exchange.backpressure,
            "markets": dict(Counter(market.status for market in venue.market_list)),
            "quoting": len(venue.quoting),
            "exchange_active": exchange.exchange_active,
            "trading_active": exchange.trading_active,
            "clock_us": exchange.now_us(),
            "last_exchange_ts_us": venue.last_us,
            "truth": str(exchange.settings.truth) if exchange.settings.truth is not None else None,
            **self.extra(),
        }

    def faults(self) -> Json:
        """Return every fault with its effects."""
        now = self._exchange.clock.monotonic()
        return {"faults": [fault.describe(now) for fault in self._exchange.board.faults]}

    def arm(self, kind: str, **params: Any) -> Json:
        """Arm a fault and return it."""
        fault: Fault = self._injector.arm(kind, params)
        return fault.describe(self._exchange.clock.monotonic())

    def clear(self, kind: str | None = None) -> Json:
        """End faults."""
        ended = self._injector.clear(kind)
        self._flush()
        return {"ended": ended}

    def rate(self, rate: float, *, backpressure: bool | None = None) -> Json:
        """Change the venue's rate in messages per second; 0 pauses generation."""
        self._exchange.set_rate(float(rate))
        if backpressure is not None:
            self._exchange.backpressure = backpressure
        return {"rate": self._exchange.rate, "backpressure": self._exchange.backpressure}

    def scenario(self, **values: float) -> Json:
        """Change how markets come and go from now on."""
        self._exchange.scenario.change(**values)
        return dict(values)

    def market(self, action: str, **params: Any) -> Json:
        """Drive one market by hand and return its state."""
        exchange, scenario = self._exchange, self._exchange.scenario
        now_us = exchange.now_us()
        if action == "create":
            event_ticker = params.pop("event_ticker", None)
            event = exchange.venue.events.get(event_ticker) if event_ticker else None
            if event_ticker and event is None:
                raise BadCommand(f"no event {event_ticker}")
            market = scenario.create(now_us, event=event, **params)
        else:
            market = self._find(params.pop("ticker", ""))
            if action in _PLAIN_TRANSITIONS:
                getattr(scenario, action)(market, now_us)
            elif action == "determine":
                scenario.determine(market, now_us, params.get("result", "yes"), params.get("settlement_e4"))
            elif action == "reopen":
                scenario.reopen(market, now_us, now_us + round(float(params["close_in_s"]) * 1_000_000))
            elif action == "change_fees":
                scenario.change_fees(exchange.venue.events[market.event_ticker], now_us)
            elif action == "deactivate":
                scenario.deactivate(market, now_us, for_s=params.get("for_s"))
            elif action == "move_close":
                scenario.move_close(market, now_us, now_us + round(float(params["close_in_s"]) * 1_000_000))
            elif action == "change_metadata":
                scenario.change_metadata(market, now_us, float(params["strike"]))
            elif action == "change_grid":
                scenario.change_grid(market, now_us, str(params["structure"]))
            else:
                raise BadCommand(f"unknown action {action!r}")
        self._flush()
        return market_state(market)

    def book(self, ticker: str) -> Json:
        """Return a market's state with its exact book: [[price_e4, size_e2], …] per side, ascending."""
        market = self._find(ticker)
        return {**market_state(market), "yes": market.book.sorted_levels(0), "no": market.book.sorted_levels(1)}

    def publish(self, items: list[Json]) -> Json:
        """Publish given messages in order and return their exchange times.

        An item is {"kind": "delta", "ticker", "side", "price_e4", "delta_e2"}, {"kind": "trade", "ticker",
        "yes_price_e4", "count_e2", "taker_side", "is_block_trade"?}, {"kind": "ticker", "ticker"} or {"kind": "raw",
        "channel", "type"?, "ticker", "msg"} (not in the ledger). `exchange_ts_us` sets its time, `same_time: true`
        takes that of the item before.
        """
        venue = self._exchange.venue
        times: list[int] = []
        for item in items:
            market = self._find(item.get("ticker", ""))
            if "exchange_ts_us" in item:
                us = int(item["exchange_ts_us"])
            elif item.get("same_time") and times:
                us = times[-1]
            else:
                us = venue.stamp(self._exchange.now_us())
            venue.last_us = max(venue.last_us, us)
            kind = item.get("kind")
            if kind == "delta":
                price = int(item["price_e4"])
                if not 0 < price < ONE_DOLLAR_E4:
                    raise BadCommand(f"price_e4 {price} is out of range")
                venue.change(market, us, SIDES.index(item["side"]), price, int(item["delta_e2"]))
            elif kind == "trade":
                venue.print_trade(
                    market, us,
                    yes_price_e4=int(item["yes_price_e4"]), count_e2=int(item["count_e2"]),
                    taker_side=SIDES.index(item.get("taker_side", "yes")),
                    block=bool(item.get("is_block_trade", False)),
                )  # fmt: skip
            elif kind == "ticker":
                venue.print_ticker(market, us)
            elif kind == "raw":
                channel = str(item["channel"])
                self._exchange.publisher.recorded(
                    channel, str(item.get("type", channel)), market.ticker, encode(item["msg"])
                )
            else:
                raise BadCommand(f"unknown kind {kind!r}")
            times.append(us)
        self._flush()
        return {"exchange_ts_us": times}

    async def flush_truth(self) -> Json:
        """Write the ledger so far."""
        self._exchange.truth.spill(everything=True)
        await asyncio.to_thread(self._exchange.truth.wait)
        if self.sent is not None:
            self.sent.flush()
        target = self._exchange.settings.truth
        return {"truth": str(target) if target is not None else None, "rows": self._exchange.truth.n}

    def _find(self, ticker: str) -> Market:
        market = self._exchange.venue.markets.get(ticker)
        if market is None:
            raise BadCommand(f"no market {ticker!r}")
        return market

    # --- HTTP ----------------------------------------------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the control channel."""

        async def get_state(_: web.Request) -> Any:
            return self.state()

        async def get_faults(_: web.Request) -> Any:
            return self.faults()

        async def post_faults(request: web.Request) -> Any:
            content = await _body(request)
            return self.arm(str(content.pop("kind", "")), **content)

        async def delete_faults(request: web.Request) -> Any:
            return self.clear(request.query.get("kind"))

        async def post_rate(request: web.Request) -> Any:
            return self.rate(**await _body(request))

        async def post_scenario(request: web.Request) -> Any:
            return self.scenario(**await _body(request))

        async def post_markets(request: web.Request) -> Any:
            content = await _body(request)
            return self.market(str(content.pop("action", "")), **content)

        async def get_market(request: web.Request) -> Any:
            return self.book(request.match_info["ticker"])

        async def post_publish(request: web.Request) -> Any:
            return self.publish((await _body(request)).get("items", []))

        async def post_truth(_: web.Request) -> Any:
            return await self.flush_truth()

        return [
            web.get("/control/state", _guarded(get_state)),
            web.get("/control/faults", _guarded(get_faults)),
            web.post("/control/faults", _guarded(post_faults)),
            web.delete("/control/faults", _guarded(delete_faults)),
            web.post("/control/rate", _guarded(post_rate)),
            web.post("/control/scenario", _guarded(post_scenario)),
            web.post("/control/markets", _guarded(post_markets)),
            web.get("/control/markets/{ticker}", _guarded(get_market)),
            web.post("/control/publish", _guarded(post_publish)),
            web.post("/control/truth", _guarded(post_truth)),
        ]


async def _body(request: web.Request) -> Json:
    content = await request.json() if request.can_read_body else {}
    if not isinstance(content, dict):
        raise BadCommand("the body must be a JSON object")
    return content


def _guarded(handler: Callable[[web.Request], Any]) -> Any:
    async def guarded(request: web.Request) -> web.StreamResponse:
        if not _is_loopback(request.remote):
            return answer({"error": "the control channel answers loopback callers only"}, 403)
        for header in ("Host", "Origin"):
            # A page of somebody else's in a browser of this machine is a loopback caller, too.
            if not all(_is_ours(value) for value in request.headers.getall(header, [])):
                reason = f"the control channel answers to localhost and loopback addresses, not to the {header} sent"
                return answer({"error": "misdirected request", "reason": reason}, 421 if header == "Host" else 403)
        try:
            return answer(await handler(request))
        except (PermanentError, TypeError, KeyError, ValueError, json.JSONDecodeError) as bad:
            return answer({"error": f"{type(bad).__name__}: {bad}"}, 400)

    return guarded


def _is_ours(value: str) -> bool:
    """Whether a Host or Origin header names this machine."""
    try:
        name = urlsplit(value if "//" in value else f"//{value}").hostname
    except ValueError:
        return False
    return name in {"localhost", "0.0.0.0"} or _is_loopback(name)  # noqa: S104 - a name, not a socket


def _is_loopback(remote: str | None) -> bool:
    try:
        return remote is not None and ipaddress.ip_address(remote).is_loopback
    except ValueError:
        return False
