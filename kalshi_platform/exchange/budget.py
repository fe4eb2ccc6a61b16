"""Shares one read budget of an account among all clients of a process that use the same key.

Costs are in Kalshi's tokens: a usual request costs 10 (docs.kalshi.com, getting_started/rate_limits, read 2026-11-22).
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Mapping

from kalshi_platform.clock import Clock
from kalshi_platform.exchange.pacing import TokenBucket
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.market.catalog import AccountLimits, EndpointCosts

REQUEST_TOKENS = 10.0
"""Tokens of a usual request, until `/account/endpoint_costs` was read."""


class ReadBudget:
    """Limits the requests of many threads by one token bucket.

    The bucket starts with the configured rate; `resize` applies the account's own.
    """

    def __init__(self, settings: ExchangeSettings, clock: Clock) -> None:
        self._clock = clock
        self._share = settings.rest_share
        self._lock = threading.Lock()
        self._default_cost = REQUEST_TOKENS
        self._costs: list[tuple[re.Pattern[str], float]] = []
        refill = settings.reads_per_second * REQUEST_TOKENS * self._share
        self._bucket = TokenBucket(refill, max(refill, REQUEST_TOKENS), clock.monotonic())

    def spend(self, path: str) -> float:
        """Spend the tokens of a GET of `path` (below the base path); return the seconds to wait before sending it."""
        with self._lock:
            return self._bucket.spend(self._cost(path), self._clock.monotonic())

    def drain(self) -> None:
        """Empty the budget, because the exchange answered that it is spent."""
        with self._lock:
            self._bucket.drain(self._clock.monotonic())

    def requests_left(self) -> float:
        """Return how many usual requests could be sent now without waiting."""
        with self._lock:
            return self._bucket.available(self._clock.monotonic()) / self._default_cost

    def resize(self, limits: AccountLimits) -> None:
        """Apply the account's limits, of which this process spends its share."""
        capacity = max(limits.read_bucket_capacity * self._share, REQUEST_TOKENS)
        with self._lock:
            self._bucket.resize(limits.read_refill_per_s * self._share, capacity, self._clock.monotonic())

    def apply_costs(self, costs: EndpointCosts) -> None:
        """Apply the costs of requests that differ from the usual one."""
        with self._lock:
            self._default_cost = costs.default_cost
            self._costs = [(_pattern(path), cost) for path, cost in _reads(costs).items()]

    def _cost(self, path: str) -> float:
        return next((cost for pattern, cost in self._costs if pattern.fullmatch(path)), self._default_cost)


_shared: weakref.WeakValueDictionary[tuple[object, ...], ReadBudget] = weakref.WeakValueDictionary()
_shared_lock = threading.Lock()


def shared_budget(settings: ExchangeSettings, clock: Clock) -> ReadBudget:
    """Return the budget of this exchange, key and share; clients with equal settings get the same one."""
    key = (settings.rest_url, settings.key_id, settings.rest_share, settings.reads_per_second, clock)
    with _shared_lock:
        budget = _shared.get(key)
        if budget is None:
            budget = _shared[key] = ReadBudget(settings, clock)
        return budget


def _reads(costs: EndpointCosts) -> Mapping[str, float]:
    return {path: cost for (method, path), cost in costs.by_endpoint.items() if method == "GET"}


def _pattern(path: str) -> re.Pattern[str]:
    """Return the pattern of `/markets/{ticker}`, each variable one path segment, without the base path."""
    below = re.sub(r"^/trade-api/v\d+", "", path)
    return re.compile("".join("[^/]+" if part.startswith("{") else re.escape(part) for part in _parts(below)))


def _parts(path: str) -> list[str]:
    return re.split(r"(\{[^/}]*\})", path)
