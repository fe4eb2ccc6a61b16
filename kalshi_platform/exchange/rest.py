"""Kalshi's REST API over HTTP. The only module that uses `requests`.

Every call waits for its share of the read budget, retries transient failures with jittered backoff, and ends in one of
the errors of `kalshi_platform.errors`. One client serves many threads. Market data is public; requests are signed only
where Kalshi demands it, or where `sign_public_reads` says so.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
import requests

from kalshi_platform.clock import Clock
from kalshi_platform.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectionLost,
    ExchangeUnavailable,
    KalshiPlatformError,
    MarketNotYetVisible,
    RateLimited,
    RequestRejected,
    TransientError,
    UnparsableMessage,
)
from kalshi_platform.exchange.pacing import Backoff, TokenBucket
from kalshi_platform.exchange.parse_rest import (
    parse_account_limits,
    parse_candlesticks,
    parse_event,
    parse_exchange_status,
    parse_market,
    parse_rest_book,
    parse_rest_trade,
    parse_schedule,
    parse_series,
)
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.market.catalog import (
    AccountLimits,
    BooksAnswer,
    Candlestick,
    EventInfo,
    ExchangeSchedule,
    ExchangeStatus,
    MarketInfo,
    SeriesInfo,
)
from kalshi_platform.market.records import Levels, Trade

log = logging.getLogger(__name__)

MAX_BOOKS = 100
"""Tickers in one `/markets/orderbooks` request."""
REQUEST_TOKENS = 10.0
"""What a usual request costs of the account's budget."""
_T = TypeVar("_T")
_Params = Sequence[tuple[str, str]]


class RestClient:
    """Typed reads of Kalshi's REST API."""

    def __init__(self, settings: ExchangeSettings, clock: Clock, stop: threading.Event | None = None) -> None:
        """`stop` interrupts every wait: the call then ends in ConnectionLost."""
        self._settings = settings
        self._clock = clock
        self._stop = stop or threading.Event()
        self._base = settings.rest_url.rstrip("/")
        self._base_path = urlsplit(self._base).path
        self._local = threading.local()
        self._lock = threading.Lock()
        refill = settings.reads_per_second * REQUEST_TOKENS * settings.rest_share
        self._bucket = TokenBucket(refill, max(refill, REQUEST_TOKENS), clock.monotonic())
        self._signer = (
            Signer(settings.key_id, settings.private_key_pem) if settings.key_id and settings.private_key_pem else None
        )

    # -- the exchange

    def exchange_status(self) -> ExchangeStatus:
        """Whether the exchange works and trades. A 503 or 504 that carries a status is an answer, not an error."""
        return parse_exchange_status(self._get("/exchange/status", accept_down=True))

    def exchange_schedule(self) -> ExchangeSchedule:
        """Trading hours and maintenance windows."""
        return parse_schedule(self._get("/exchange/schedule"))

    def account_limits(self) -> AccountLimits:
        """The account's read budget (signed); from then on this client spends its share of that."""
        limits = parse_account_limits(self._get("/account/limits", signed=True))
        share = self._settings.rest_share
        with self._lock:
            self._bucket.resize(
                limits.read_refill_per_s * share,
                max(limits.read_bucket_capacity * share, REQUEST_TOKENS),
                self._clock.monotonic(),
            )
        return limits

    # -- the catalog

    def iter_series(self, category: str | None = None, *, min_updated_ts: int | None = None) -> Iterator[SeriesInfo]:
        """All series (one answer, no pages); `min_updated_ts` in Unix seconds."""
        answer = self._get("/series", _params(category=category, min_updated_ts=min_updated_ts))
        yield from self._parsed(_items(answer, "series"), parse_series)

    def series(self, ticker: str) -> SeriesInfo:
        """One series."""
        return parse_series(_member(self._get(f"/series/{_segment(ticker)}"), "series"))

    def iter_events(
        self, status: str | None = None, min_updated_ts: int | None = None, series_ticker: str | None = None
    ) -> Iterator[EventInfo]:
        """Events without combos; `status` is one of Kalshi's filter words (unopened, open, closed, settled)."""
        params = _params(status=status, min_updated_ts=min_updated_ts, series_ticker=series_ticker, limit=200)
        yield from self._parsed(self._pages("/events", params, "events"), parse_event)

    def event(self, event_ticker: str) -> EventInfo:
        """One event."""
        return parse_event(_member(self._get(f"/events/{_segment(event_ticker)}"), "event"))

    def iter_markets(
        self,
        status: str | None = None,
        min_updated_ts: int | None = None,
        mve_filter: str | None = "exclude",
        tickers: Iterable[str] | None = None,
        event_ticker: str | None = None,
        series_ticker: str | None = None,
    ) -> Iterator[MarketInfo]:
        """Markets; Kalshi takes `min_updated_ts` only without `status` and with `mve_filter="exclude"`."""
        params = _params(
            status=status,
            min_updated_ts=min_updated_ts,
            mve_filter=mve_filter,
            tickers=None if tickers is None else ",".join(tickers),
            event_ticker=event_ticker,
            series_ticker=series_ticker,
            limit=1000,
        )
        yield from self._parsed(self._pages("/markets", params, "markets"), parse_market)

    def market(self, ticker: str) -> MarketInfo:
        """One market. Raises MarketNotYetVisible for 404, which is normal for a moment after its creation."""
        try:
            answer = self._get(f"/markets/{_segment(ticker)}")
        except RequestRejected as error:
            if error.status == HTTPStatus.NOT_FOUND:
                raise MarketNotYetVisible(ticker) from error
            raise
        return parse_market(_member(answer, "market"))

    # -- books, trades, candles

    def book(self, ticker: str) -> tuple[Levels, Levels]:
        """The yes and no bids of one market."""
        return parse_rest_book(ticker, self._get(f"/markets/{_segment(ticker)}/orderbook"))

    def books(self, tickers: Sequence[str]) -> BooksAnswer:
        """Books of up to 100 markets in one request. A market that is not in the answer is not in the result."""
        if not 1 <= len(tickers) <= MAX_BOOKS:
            raise ValueError(f"{len(tickers)} tickers, but one request takes 1 to {MAX_BOOKS}")
        times: list[int] = []
        answer = self._get("/markets/orderbooks", [("tickers", ticker) for ticker in tickers], times=times)
        found: dict[str, tuple[Levels, Levels]] = {}
        for item in _items(answer, "orderbooks"):
            ticker = item.get("ticker") if isinstance(item, dict) else None
            if not isinstance(ticker, str):
                log.warning("a book over REST that names no market was left out")
                continue
            try:
                found[ticker] = parse_rest_book(ticker, item)
            except UnparsableMessage as error:
                log.warning("book of %s over REST left out: %s", ticker, error)
        return BooksAnswer(books=found, requested_at_ns=times[-2], answered_at_ns=times[-1])

    def iter_trades(
        self, ticker: str | None = None, min_ts: int | None = None, max_ts: int | None = None
    ) -> Iterator[Trade]:
        """Trades, newest first; bounds in Unix seconds. `received_at_ns` is when this client parsed the trade."""
        params = _params(ticker=ticker, min_ts=min_ts, max_ts=max_ts, limit=1000)
        pages = self._pages("/markets/trades", params, "trades")
        yield from self._parsed(pages, lambda obj: parse_rest_trade(obj, self._clock.now_ns()))

    def candlesticks(
        self, tickers: Sequence[str], start_ts: int, end_ts: int, period_minutes: int
    ) -> list[Candlestick]:
        """Candles of up to 100 markets; times in Unix seconds, the period 1, 60 or 1440 minutes."""
        params = _params(
            market_tickers=",".join(tickers), start_ts=start_ts, end_ts=end_ts, period_interval=period_minutes
        )
        return parse_candlesticks(self._get("/markets/candlesticks", params))

    def read_budget(self) -> float:
        """Requests that could be sent now without waiting."""
        with self._lock:
            return self._bucket.available(self._clock.monotonic()) / REQUEST_TOKENS

    # -- pages and objects

    def _pages(self, path: str, params: _Params, member: str) -> Iterator[object]:
        """Every object of every page. Ends at an empty, absent or repeated cursor."""
        seen: set[str] = set()
        cursor = ""
        while True:
            answer = self._get(path, [*params, ("cursor", cursor)] if cursor else params)
            yield from _items(answer, member)
            following = answer.get("cursor") if isinstance(answer, dict) else None
            if not isinstance(following, str) or not following:
                return
            if following in seen:
                log.warning("%s: the exchange repeated a page cursor; paging ends here", path)
                return
            seen.add(following)
            cursor = following

    def _parsed(self, objects: Iterable[object], parse: Callable[[object], _T]) -> Iterator[_T]:
        """One broken object must not cost the other 40,000: it is left out and logged."""
        for obj in objects:
            try:
                yield parse(obj)
            except UnparsableMessage as error:
                name = obj.get("ticker") or obj.get("event_ticker") if isinstance(obj, dict) else None
                log.warning("object %s left out: %s", name, error)

    # -- one request

    def _get(
        self,
        path: str,
        params: _Params = (),
        *,
        signed: bool = False,
        accept_down: bool = False,
        times: list[int] | None = None,
    ) -> Any:
        backoff = Backoff(self._settings.retry_base_s, self._settings.retry_cap_s, random.random)
        for attempt in range(1, self._settings.max_attempts + 1):
            try:
                return self._once(path, params, signed=signed, accept_down=accept_down, times=times)
            except _Stopping:
                raise
            except TransientError as error:
                if attempt == self._settings.max_attempts:
                    raise
                if isinstance(error, RateLimited):
                    with self._lock:
                        self._bucket.drain(self._clock.monotonic())
                delay = backoff.next()
                log.info("GET %s failed (%s), attempt %d; again in %.1f s", path, error, attempt, delay)
                self._wait(delay)
        raise AssertionError("max_attempts must be at least 1")

    def _once(self, path: str, params: _Params, *, signed: bool, accept_down: bool, times: list[int] | None) -> Any:
        with self._lock:
            delay = self._bucket.take(REQUEST_TOKENS, self._clock.monotonic())
        self._wait(delay)
        headers = self._headers(path, signed=signed)
        requested_at_ns = self._clock.now_ns()
        try:
            answer = self._http().get(
                self._base + path,
                params=list(params),
                headers=headers,
                timeout=(self._settings.connect_timeout_s, self._settings.request_timeout_s),
                allow_redirects=False,
            )
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise ConnectionLost(f"GET {path}: {type(error).__name__}") from error
        except requests.RequestException as error:
            raise RequestRejected(f"GET {path}: {type(error).__name__}", status=0) from error
        if times is not None:
            times += (requested_at_ns, self._clock.now_ns())
        body = _decoded(answer.content)
        if answer.status_code == HTTPStatus.OK:
            if body is None:
                raise ExchangeUnavailable(f"GET {path}: the answer is no JSON", status=answer.status_code)
            return body
        if accept_down and answer.status_code in (503, 504) and isinstance(body, dict) and "exchange_active" in body:
            return {**body, "exchange_active": False}
        raise _error(path, answer.status_code, body)

    def _headers(self, path: str, *, signed: bool) -> Mapping[str, str]:
        if not signed and not self._settings.sign_public_reads:
            return {}
        if self._signer is None:
            raise ConfigurationError(
                [f"GET {path} must be signed: set key_id and private_key_pem of an API key with read scope"]
            )
        return self._signer.headers("GET", self._base_path + path, self._clock.now_ns() // 1_000_000)

    def _http(self) -> requests.Session:
        """One HTTP session per thread: requests does not promise that a session can be shared."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            session.headers.update({"User-Agent": self._settings.user_agent, "Accept": "application/json"})
            # Proxies of the environment are for the world outside, not for an exchange on this machine.
            session.trust_env = (urlsplit(self._base).hostname or "") not in ("127.0.0.1", "localhost", "::1")
            self._local.session = session
        return session

    def _wait(self, seconds: float) -> None:
        if self._stop.is_set() or (seconds > 0 and self._clock.wait(self._stop, seconds)):
            raise _Stopping("the request was given up: the service is stopping")


class _Stopping(ConnectionLost):
    """Raised out of every wait once `stop` is set; a repeated attempt meets it at once again."""


def _params(**values: str | int | None) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in values.items() if value is not None]


def _segment(ticker: str) -> str:
    return quote(ticker, safe="")


def _decoded(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None


def _items(answer: object, member: str) -> list[object]:
    value = answer.get(member) if isinstance(answer, dict) else None
    if value is None and isinstance(answer, dict) and member in answer:
        return []
    if not isinstance(value, list):
        raise UnparsableMessage("shape", f"the answer has no list of {member}")
    return value


def _member(answer: object, member: str) -> object:
    if not isinstance(answer, dict) or member not in answer:
        raise UnparsableMessage("shape", f"the answer has no {member}")
    return answer[member]


def _error(path: str, status: int, body: object) -> KalshiPlatformError:
    """One error out of the three shapes of error bodies: flat, wrapped under `error`, or a bare text there."""
    code: str | None = None
    message = ""
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict):
            code = str(inner["code"]) if inner.get("code") is not None else None
            message = str(inner.get("message") or inner.get("details") or "")
        else:
            message = str(inner or "")
    text = f"GET {path}: HTTP {status}" + (f" {code}" if code else "") + (f": {message[:200]}" if message else "")
    if status in (401, 403):
        return AuthenticationFailed(
            f"{text}. Suspects: this machine's clock is off, or the key belongs to another environment or lacks scope",
            status=status,
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimited(text)
    if status >= 500:
        return ExchangeUnavailable(text, status=status)
    return RequestRejected(text, status=status, code=code)
