"""Sends the requests of Kalshi's REST API over HTTP.

Every call waits for its share of the read budget, retries transient failures with jittered backoff, and ends in one of
the errors of `kalshi_platform.errors`. One client serves many threads; all clients of a process that use one key share
one budget. Market data is public; requests are signed only where Kalshi demands it, or with `sign_public_reads`.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from kalshi_platform.backoff import Backoff
from kalshi_platform.clock import Clock
from kalshi_platform.errors import (
    ConfigurationError,
    ConnectionLost,
    ExchangeUnavailable,
    RateLimited,
    TransientError,
    UnparsableMessage,
)
from kalshi_platform.exchange.budget import REQUEST_TOKENS, shared_budget
from kalshi_platform.exchange.endpoints import RawAnswer
from kalshi_platform.exchange.historical_endpoints import HistoricalEndpoints
from kalshi_platform.exchange.http import HttpClient
from kalshi_platform.exchange.parse.lenient_json import decode_json
from kalshi_platform.exchange.parse.rest import parse_account_limits, parse_endpoint_costs
from kalshi_platform.exchange.request_params import MAX_BOOKS, Params
from kalshi_platform.exchange.responses import error_from_response, retry_after_s
from kalshi_platform.exchange.server_clock import ServerClock
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.market.catalog import AccountLimits, EndpointCosts
from kalshi_platform.market.clock_offset import Offset
from kalshi_platform.monitoring.event_log import event_logger

__all__ = ["MAX_BOOKS", "REQUEST_TOKENS", "RestClient"]

_log = event_logger(__name__)


class RestClient(HistoricalEndpoints):
    """Reads Kalshi's REST API as typed values."""

    def __init__(
        self,
        settings: ExchangeSettings,
        clock: Clock,
        stop: threading.Event | None = None,
        on_answer: Callable[[object], None] | None = None,
    ) -> None:
        """Set up the client; setting `stop` interrupts every wait, and the call then ends in ConnectionLost.

        `on_answer` receives every decoded answer that is none of an error, before it is parsed.
        """
        self._settings = settings
        self._clock = clock
        self._stop = stop or threading.Event()
        self._on_answer = on_answer
        self._base = settings.rest_url.rstrip("/")
        self._base_path = urlsplit(self._base).path
        self._http = HttpClient(settings)
        self._server_clock = ServerClock()
        self._budget = shared_budget(settings, clock)
        self._signer = (
            Signer(settings.key_id, settings.private_key_pem) if settings.key_id and settings.private_key_pem else None
        )

    # -- the account

    def account_limits(self) -> AccountLimits:
        """Return the account's read budget (a signed request) and apply this process's share of it."""
        limits = parse_account_limits(self._get("/account/limits", signed=True))
        self._budget.resize(limits)
        return limits

    def endpoint_costs(self) -> EndpointCosts:
        """Return the costs of requests in tokens, and apply them."""
        costs = parse_endpoint_costs(self._get("/account/endpoint_costs"))
        self._budget.apply_costs(costs)
        return costs

    def read_budget(self) -> float:
        """Return how many usual requests could be sent now without waiting."""
        return self._budget.requests_left()

    def clock_offset(self) -> Offset | None:
        """Return this machine's clock against the exchange's, by the last answers; None before the first one."""
        return self._server_clock.offset()

    # -- one request

    def _get(
        self,
        path: str,
        params: Params | None = None,
        *,
        signed: bool = False,
        accept_down: bool = False,
        answers: list[RawAnswer] | None = None,
    ) -> Any:
        backoff = Backoff(self._settings.retry_base_s, self._settings.retry_cap_s, random.random)
        for attempt in range(1, self._settings.max_attempts + 1):
            try:
                return self._once(path, params or [], signed=signed, accept_down=accept_down, answers=answers)
            except _Stopping:
                raise
            except TransientError as error:
                if attempt == self._settings.max_attempts:
                    raise
                if isinstance(error, RateLimited):
                    self._budget.drain()
                # A Retry-After of the exchange wins where it is longer.
                delay = max(backoff.next(), error.retry_after_s or 0.0)
                _log.info("request_retried", path=path, attempt=attempt, wait_s=round(delay, 1), error=error)
                self._wait(delay)
        raise AssertionError("max_attempts must be at least 1")

    def _once(
        self, path: str, params: Params, *, signed: bool, accept_down: bool, answers: list[RawAnswer] | None
    ) -> Any:
        self._wait(self._budget.spend(path))
        headers = self._headers(path, signed=signed)
        requested_at_ns = self._clock.now_ns()
        answer = self._http.get(self._base + path, params, headers)
        answered_at_ns = self._clock.now_ns()
        self._server_clock.observe(answer.headers, requested_at_ns, answered_at_ns)
        if answers is not None:
            answers.append(RawAnswer(requested_at_ns, answered_at_ns, answer.content))
        try:
            body, changed = decode_json(answer.content)
        except UnparsableMessage as error:
            if answer.status == HTTPStatus.OK:
                raise ExchangeUnavailable(f"GET {path}: the answer is no JSON", status=answer.status) from error
            body, changed = None, 0
        if changed:
            self.faults.repaired += changed
            # Broken texts hold U+FFFD now, numbers out of range are texts.
            _log.warning("response_repaired", path=path, repaired_values=changed)
        if answer.status == HTTPStatus.OK:
            if self._on_answer is not None:
                self._on_answer(body)
            return body
        if accept_down and answer.status in (503, 504) and isinstance(body, dict) and "exchange_active" in body:
            return {**body, "exchange_active": False}
        wait_s = retry_after_s(answer.headers.get("Retry-After"), answered_at_ns / 1e9)
        raise error_from_response(path, answer.status, body, self._server_clock.offset(), wait_s)

    def _headers(self, path: str, *, signed: bool) -> Mapping[str, str]:
        if not signed and not self._settings.sign_public_reads:
            return {}
        if self._signer is None:
            raise ConfigurationError(
                [f"GET {path} must be signed: set key_id and private_key_pem of an API key with read scope"]
            )
        return self._signer.headers("GET", self._base_path + path, self._clock.now_ns() // 1_000_000)

    def _wait(self, seconds: float) -> None:
        if self._stop.is_set() or (seconds > 0 and self._clock.wait(self._stop, seconds)):
            raise _Stopping("the request was given up: the service is stopping")


class _Stopping(ConnectionLost):
    """Ends every wait once `stop` is set; a repeated attempt raises it at once again."""
