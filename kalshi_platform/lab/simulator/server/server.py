"""The exchange as a process: HTTP and WebSocket on one port, the publishing pulse, and a thread to host it."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import gc
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import WSMsgType, web

from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.errors import PermanentError
from kalshi_platform.lab.simulator.engine.core import Exchange
from kalshi_platform.lab.simulator.engine.subscriptions import Session
from kalshi_platform.lab.simulator.replay.replay import Playback
from kalshi_platform.lab.simulator.replay.sources import source_of
from kalshi_platform.lab.simulator.server.connection import Connection
from kalshi_platform.lab.simulator.server.control import Control
from kalshi_platform.lab.simulator.server.injector import FaultInjector
from kalshi_platform.lab.simulator.server.keys import TokenBucket, Verifier
from kalshi_platform.lab.simulator.server.rest import RestApi, answer, error
from kalshi_platform.lab.simulator.server.sent_record import SentRecord
from kalshi_platform.lab.simulator.settings import SCENARIO_OFF, ReplaySettings, SimulatorSettings

_log = logging.getLogger(__name__)

T = TypeVar("T")
WS_PATH = "/trade-api/ws/v2"
REST_PATH = "/trade-api/v2"
LARGEST_COMMAND = 64 * 1024 * 1024
GOODBYE_S = 0.5  # for readers to take what is queued
COMFORTABLE_BYTES = 4 * 1024 * 1024


class PublishingFailed(PermanentError):
    """The exchange stopped publishing before it was asked to: its ledger is whole up to there."""


class Server:
    """One exchange on one port. `start`, then `stop`; both on the same event loop."""

    def __init__(
        self, settings: SimulatorSettings, *, replay: ReplaySettings | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        if replay is not None:  # a recording has its own course: no market comes or goes beside it
            settings = replace(settings, rate=0.0, scenario=SCENARIO_OFF)
        self.settings = settings
        self.exchange = Exchange(settings, clock, empty=replay is not None)
        self.connections: list[Connection] = []
        self.injector = FaultInjector(self.exchange, self.connections)
        self.control = Control(self.exchange, self.connections, self.injector, self.flush)
        self.playback = Playback(self.exchange, replay, source_of(replay)) if replay is not None else None
        if self.playback is not None:
            self.control.extra = self.playback.state
        self.sent: SentRecord | None = None
        if settings.record_sent is not None:
            self.sent = SentRecord(settings.record_sent, settings.record_sent_bytes, clock)
        self.control.sent = self.sent
        self._verifier = Verifier(settings.key_file, settings.key_id, settings.timestamp_tolerance_s)
        self._connected = 0
        self.failures: list[Exception] = []
        """What stopped publishing before it was asked to; known after `stop`."""
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def rest_url(self) -> str:
        """Base of REST, with path."""
        return f"http://{self.settings.host}:{self.port}{REST_PATH}"

    @property
    def ws_url(self) -> str:
        """WebSocket address, with path."""
        return f"ws://{self.settings.host}:{self.port}{WS_PATH}"

    @property
    def control_url(self) -> str:
        """Base of the control channel."""
        return f"http://{self.settings.host}:{self.port}/control"

    async def start(self) -> None:
        """Listen and begin to publish. Raises OSError when the port is taken."""
        app = web.Application(middlewares=[_json_errors], client_max_size=LARGEST_COMMAND)
        app.on_response_prepare.append(self._date)
        app.add_routes([web.get(WS_PATH, self._websocket)])
        app.add_routes(RestApi(self.exchange, self._verifier, self.injector.shapes.answer, self.sent).routes())
        app.add_routes(self.control.routes())
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.settings.host, self.settings.port, backlog=512)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._tasks = [asyncio.create_task(self._pulse()), asyncio.create_task(self._heartbeat())]
        if self.playback is not None:
            self._tasks.append(asyncio.create_task(self.playback.run(self._flush_and_wait)))
        for task in self._tasks:
            task.add_done_callback(_log_failure)

    async def stop(self) -> None:
        """Stop publishing, say goodbye to every connection, and finish the ledger."""
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        self.failures = [each for each in ended if isinstance(each, Exception)]
        for connection in self.connections:
            connection.say_goodbye()
        deadline = self.exchange.clock.monotonic() + GOODBYE_S
        while self.connections and self.exchange.clock.monotonic() < deadline:  # noqa: ASYNC110 - bounded
            await asyncio.sleep(0.01)
        for connection in self.connections:
            connection.abort()
        if self._runner is not None:
            await self._runner.cleanup()
        if self.sent is not None:
            self.sent.close()
        await asyncio.to_thread(self.exchange.close)

    async def _date(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Say the time of the exchange's clock, which a fault may have moved."""
        response.headers["Date"] = email.utils.formatdate(self.exchange.handshake_ms() // 1_000, usegmt=True)

    # --- publishing ----------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what is queued to every socket.

        A reader that lets too much pile up loses its subscriptions with error 25.
        """
        self.injector.tick()
        for connection in self.connections:
            if connection.waiting_bytes > self.settings.overflow_bytes:
                for subscription in list(connection.session.subscriptions.values()):
                    connection.session.fail(subscription, 25)
            connection.flush()

    def _readers_lag(self) -> bool:
        return any(connection.waiting_bytes > COMFORTABLE_BYTES for connection in self.connections)

    async def _flush_and_wait(self) -> None:
        self.flush()
        await asyncio.sleep(0)
        while self._readers_lag():  # noqa: ASYNC110 - the transport tells nobody when it drained
            await asyncio.sleep(0.001)

    async def _pulse(self) -> None:
        while True:
            more = self.exchange.advance(hold=self.exchange.backpressure and self._readers_lag())
            self.flush()
            await asyncio.sleep(0 if more else self.settings.tick_s)

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self.settings.ping_interval_s)
            for connection in self.connections:
                connection.ping()

    # --- WebSocket -----------------------------------------------------------------------------------------------

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        user_agent = request.headers.get("User-Agent", "")
        status = self.injector.refused_handshake(user_agent)
        if status is not None:
            return error(status, "unauthorized" if status == 401 else "refused", "injected")
        problem = self._verifier.problem(
            request.headers, "GET", request.path, self.exchange.handshake_ms(), self.exchange.clock.pace()
        )
        if problem is not None:
            return error(401, "unauthorized", problem)
        if len(self.connections) >= self.settings.connection_limit:
            return answer({"error": "too many requests"}, 429)
        # Frames are written to the transport directly, so the library must neither compress nor limit.
        socket = web.WebSocketResponse(compress=False, max_msg_size=LARGEST_COMMAND, autoping=False)
        await socket.prepare(request)
        connection = self._admit(request, user_agent)
        try:
            async for message in socket:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    self.exchange.catch_up()
                    connection.session.command(message.data)
                    self.injector.tick()
                    connection.flush()
                elif message.type is WSMsgType.PING:
                    connection.pong(message.data)
        finally:
            connection.session.close()
            self.connections.remove(connection)
            if self.sent is not None and connection.record is not None:
                self.sent.end(connection.record)
        return socket

    def _admit(self, request: web.Request, user_agent: str) -> Connection:
        self._connected += 1
        settings = self.settings
        session = Session(self.exchange, self.exchange.router, market_limit=settings.max_markets_per_subscription)
        rate = settings.commands_per_second
        bucket = TokenBucket(rate, max(1.0, rate), self.exchange.clock.monotonic())
        key = request.headers.get("Sec-WebSocket-Key", "")
        record = None if self.sent is None else self.sent.open(f"c{self._connected}", user_agent, key)
        connection = Connection(self._connected, user_agent, session, bucket, record)
        publisher = self.exchange.publisher
        session.on_snapshot = lambda ticker: publisher.note_served(ticker, connection.id, user_agent)
        connection.attach(request)
        self.connections.append(connection)
        self.injector.admit(connection)
        return connection


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.critical("publishing_stopped", exc_info=task.exception())


@web.middleware
async def _json_errors(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except web.HTTPException as failure:
        return error(failure.status, "not_found" if failure.status == 404 else "rejected", failure.reason.lower())
    return response


class ServerThread:
    """An exchange in a thread of its own, as a context manager. Control calls run on its loop and return when done."""

    def __init__(
        self, settings: SimulatorSettings, *, replay: ReplaySettings | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.settings = settings
        self._server = Server(settings, replay=replay, clock=clock)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulated-exchange", daemon=True)
        self.key_file = settings.key_file
        self.key_id = settings.key_id

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(30)
        self.rest_url = self._server.rest_url
        self.ws_url = self._server.ws_url
        self.control_url = self._server.control_url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the exchange and finish its ledger; a second call does nothing."""
        if self._loop.is_closed():
            return
        try:
            asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result(30)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    def call(self, function: Callable[[Server], T]) -> T:
        """Run `function(server)` on the exchange's loop and return its result."""

        async def run() -> T:
            return function(self._server)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def state(self) -> dict[str, Any]:
        """Return what GET /control/state answers."""
        return self.call(lambda server: server.control.state())

    def fault(self, kind: str, **params: Any) -> dict[str, Any]:
        """Arm a fault."""
        return self.call(lambda server: server.control.arm(kind, **params))

    def faults(self) -> list[dict[str, Any]]:
        """Return every fault with its effects."""
        found: list[dict[str, Any]] = self.call(lambda server: server.control.faults())["faults"]
        return found

    def clear_faults(self, kind: str | None = None) -> None:
        """End faults."""
        self.call(lambda server: server.control.clear(kind))

    def rate(self, rate: float, *, backpressure: bool | None = None) -> None:
        """Change the rate in messages per second; 0 pauses generation."""
        self.call(lambda server: server.control.rate(rate, backpressure=backpressure))

    def market(self, action: str, **params: Any) -> dict[str, Any]:
        """Drive one market by hand."""
        return self.call(lambda server: server.control.market(action, **params))

    def book(self, ticker: str) -> dict[str, Any]:
        """Return a market's state and exact book."""
        return self.call(lambda server: server.control.book(ticker))

    def publish(self, *items: dict[str, Any]) -> list[int]:
        """Publish given messages; returns their exchange times in µs."""
        times: list[int] = self.call(lambda server: server.control.publish(list(items)))["exchange_ts_us"]
        return times

    def tickers(self) -> list[str]:
        """Return the tickers of all quoting markets."""
        return self.call(lambda server: [market.ticker for market in server.exchange.venue.quoting])

    def flush_truth(self) -> None:
        """Write the ledger so far."""
        asyncio.run_coroutine_threadsafe(self._server.control.flush_truth(), self._loop).result(60)


async def serve(
    settings: SimulatorSettings,
    *,
    replay: ReplaySettings | None = None,
    on_start: Callable[[Server], None] = lambda _: None,
    seconds: float | None = None,
    stop: asyncio.Event | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> None:
    """Run an exchange until `stop` is set or `seconds` passed. Raises PublishingFailed."""
    server = Server(settings, replay=replay, clock=clock)
    await server.start()
    gc.collect()
    gc.freeze()  # tens of thousands of markets need not be looked through again and again
    try:
        on_start(server)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for((stop or asyncio.Event()).wait(), seconds)
    finally:
        await server.stop()
    if server.failures:
        failure = server.failures[0]
        raise PublishingFailed(f"publishing had stopped: {type(failure).__name__}: {failure}") from failure
