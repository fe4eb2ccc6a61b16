"""Defines the public REST endpoints: their paths, parameters and parsing.

`exchange.rest` sends the requests. Source: docs.kalshi.com, API reference (OpenAPI 3.28.0; official client 3.34.0; read
2026-11-22).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Any, NamedTuple, TypeAlias, TypeVar

from kalshi_platform.clock import Clock
from kalshi_platform.errors import InvalidQuery, MarketNotYetVisible, RequestRejected, UnparsableMessage
from kalshi_platform.exchange import request_params
from kalshi_platform.exchange.parse.rest import (
    OnUnexpectedField,
    parse_candlesticks,
    parse_event,
    parse_exchange_status,
    parse_market,
    parse_rest_book,
    parse_rest_books,
    parse_rest_trade,
    parse_schedule,
    parse_series,
)
from kalshi_platform.exchange.request_params import segment
from kalshi_platform.exchange.responses import get_field, get_list
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.market.catalog import (
    BooksAnswer,
    Candlestick,
    EventInfo,
    ExchangeSchedule,
    ExchangeStatus,
    MarketInfo,
    SeriesInfo,
)
from kalshi_platform.market.records import Levels, Trade
from kalshi_platform.monitoring.event_log import event_logger

_log = event_logger(__name__)
_T = TypeVar("_T")
OnSkipped: TypeAlias = Callable[[str], None]
"""Receives the reason for each object or page that a listing lacks."""
_EMPTY_PAGES = 10
"""After so many empty pages in a row that name a next one, a listing counts as not advancing."""


class RawAnswer(NamedTuple):
    """Holds an answer as it came, and when it was requested and answered."""

    requested_at_ns: int
    answered_at_ns: int
    body: bytes


@dataclass
class ResponseFaults:
    """Counts what was wrong with the exchange's answers since the start."""

    repaired: int = 0
    """Texts that were not Unicode and numbers out of range; they were replaced."""
    unexpected_fields: Counter[str] = field(default_factory=Counter)
    """Fields of an unexpected shape, by name; they were left empty."""
    skipped: int = 0
    """Objects without the fields that name them; they were skipped."""
    cut_listings: int = 0
    """Listings that stopped advancing."""


class PublicEndpoints(ABC):
    """Reads the public market data; every call may raise the errors of `kalshi_platform.errors`."""

    _clock: Clock
    _settings: ExchangeSettings

    @cached_property
    def faults(self) -> ResponseFaults:
        """Return the counts of this client."""
        return ResponseFaults()

    @abstractmethod
    def _get(
        self,
        path: str,
        params: request_params.Params | None = None,
        *,
        signed: bool = False,
        accept_down: bool = False,
        answers: list[RawAnswer] | None = None,
    ) -> Any:
        """Send one request and return the decoded answer; append the answer as it came to `answers`."""

    # -- the exchange

    def exchange_status(self) -> ExchangeStatus:
        """Return whether the exchange works and trades; a 503 or 504 that carries a status is an answer, no error."""
        return parse_exchange_status(self._get("/exchange/status", accept_down=True))

    def exchange_schedule(self) -> ExchangeSchedule:
        """Return trading hours and maintenance windows."""
        return parse_schedule(self._get("/exchange/schedule"))

    # -- series and events

    def iter_series(
        self,
        category: str | None = None,
        *,
        min_updated_ts: int | None = None,
        tags: str | None = None,
        include_product_metadata: bool | None = None,
        include_volume: bool | None = None,
        on_skipped: OnSkipped | None = None,
    ) -> Iterator[SeriesInfo]:
        """Yield all series (one answer, no pages).

        `min_updated_ts` is in Unix seconds. `on_skipped`: see `iter_trades`.
        """
        params = request_params.params(
            category=category,
            tags=tags,
            include_product_metadata=include_product_metadata,
            include_volume=include_volume,
            min_updated_ts=min_updated_ts,
        )
        yield from self._parsed(get_list(self._get("/series", params), "series"), parse_series, on_skipped)

    def series(self, ticker: str) -> SeriesInfo:
        """Return one series."""
        return parse_series(get_field(self._get(f"/series/{segment(ticker)}"), "series"), self._on_unexpected_field)

    def iter_events(
        self,
        status: str | None = None,
        min_updated_ts: int | None = None,
        series_ticker: str | None = None,
        *,
        tickers: Iterable[str] | None = None,
        min_close_ts: int | None = None,
        on_skipped: OnSkipped | None = None,
    ) -> Iterator[EventInfo]:
        """Yield events without combos.

        `status` is one of Kalshi's filter words: unopened, open, closed, settled. `on_skipped`: see `iter_trades`.
        """
        params = request_params.event_params(
            status=status,
            tickers=tickers,
            series_ticker=series_ticker,
            min_updated_ts=min_updated_ts,
            min_close_ts=min_close_ts,
        )
        return self._parsed(self._pages("/events", params, "events", on_skipped), parse_event, on_skipped)

    def iter_multivariate_events(
        self, *, series_ticker: str | None = None, collection_ticker: str | None = None
    ) -> Iterator[EventInfo]:
        """Yield events of combos, of one series or one collection if that is given."""
        params = request_params.combo_event_params(series_ticker=series_ticker, collection_ticker=collection_ticker)
        return self._parsed(self._pages("/events/multivariate", params, "events"), parse_event)

    def event(self, event_ticker: str) -> EventInfo:
        """Return one event."""
        return parse_event(get_field(self._get(f"/events/{segment(event_ticker)}"), "event"), self._on_unexpected_field)

    # -- markets

    def iter_markets(
        self,
        status: str | None = None,
        min_updated_ts: int | None = None,
        mve_filter: str | None = "exclude",
        tickers: Iterable[str] | None = None,
        event_ticker: str | None = None,
        series_ticker: str | None = None,
        *,
        max_updated_ts: int | None = None,
        min_created_ts: int | None = None,
        max_created_ts: int | None = None,
        min_close_ts: int | None = None,
        max_close_ts: int | None = None,
        min_settled_ts: int | None = None,
        max_settled_ts: int | None = None,
        on_skipped: OnSkipped | None = None,
    ) -> Iterator[MarketInfo]:
        """Yield markets.

        Raises InvalidQuery, before anything is sent, for filters that Kalshi does not accept together: updated bounds
        go without `status` and with `mve_filter="exclude"`, settled ones with `status="settled"`… `on_skipped`: see
        `iter_trades`.
        """
        params = request_params.market_params(
            status=status,
            mve_filter=mve_filter,
            tickers=tickers,
            event_ticker=event_ticker,
            series_ticker=series_ticker,
            min_updated_ts=min_updated_ts,
            max_updated_ts=max_updated_ts,
            min_created_ts=min_created_ts,
            max_created_ts=max_created_ts,
            min_close_ts=min_close_ts,
            max_close_ts=max_close_ts,
            min_settled_ts=min_settled_ts,
            max_settled_ts=max_settled_ts,
        )
        return self._parsed(self._pages("/markets", params, "markets", on_skipped), parse_market, on_skipped)

    def market(self, ticker: str) -> MarketInfo:
        """Return one market.

        Raises MarketNotYetVisible for 404, which is normal for a moment after the market's creation.
        """
        try:
            answer = self._get(f"/markets/{segment(ticker)}")
        except RequestRejected as error:
            if error.status == HTTPStatus.NOT_FOUND:
                raise MarketNotYetVisible(ticker) from error
            raise
        return parse_market(get_field(answer, "market"), self._on_unexpected_field)

    # -- books, trades, candles

    def book(self, ticker: str, depth: int = 0) -> tuple[Levels, Levels]:
        """Return the yes and no bids of one market: the best `depth` levels of each side, 0 for all."""
        if not 0 <= depth <= 100:
            raise InvalidQuery(f"a depth of {depth}; Kalshi takes 0 to 100")
        return parse_rest_book(
            ticker, self._get(f"/markets/{segment(ticker)}/orderbook", request_params.params(depth=depth or None))
        )

    def books(self, tickers: Sequence[str]) -> BooksAnswer:
        """Return the books of up to 100 markets, read by one request; a market that the answer lacks is missing."""
        answers: list[RawAnswer] = []
        answer = self._get("/markets/orderbooks", request_params.book_params(tickers), answers=answers)
        found, refused = parse_rest_books(get_list(answer, "orderbooks"))
        for error in refused:
            _log.warning("rest_book_skipped", error=error)
        return BooksAnswer(books=found, **answers[-1]._asdict())

    def iter_trades(
        self,
        ticker: str | None = None,
        min_ts: int | None = None,
        max_ts: int | None = None,
        *,
        is_block_trade: bool | None = None,
        on_skipped: OnSkipped | None = None,
    ) -> Iterator[Trade]:
        """Yield trades of the live tier, newest first; bounds in Unix seconds.

        `received_at_ns` is the time of parsing. `on_skipped` receives why the listing is not whole: an object that
        cannot be read, or pages that do not advance, where the listing ends. Without `on_skipped` the latter raises
        UnparsableMessage("paging").
        """
        params = request_params.trade_params(ticker, min_ts, max_ts, is_block_trade)
        return self._trades("/markets/trades", params, on_skipped)

    def candlesticks(
        self, tickers: Sequence[str], start_ts: int, end_ts: int, period_minutes: int
    ) -> list[Candlestick]:
        """Return candles of up to 100 markets; times in Unix seconds, the period 1, 60 or 1440 minutes."""
        if not 1 <= len(tickers) <= request_params.MAX_CANDLE_MARKETS:
            raise InvalidQuery(
                f"{len(tickers)} tickers, but one request takes 1 to {request_params.MAX_CANDLE_MARKETS}"
            )
        span = request_params.candle_params(
            start_ts, end_ts, period_minutes, len(tickers), request_params.MAX_CANDLES_BATCH
        )
        listed = request_params.params(market_tickers=request_params.joined(tickers))
        return parse_candlesticks(self._get("/markets/candlesticks", [*listed, *span]))

    def market_candlesticks(
        self,
        series_ticker: str,
        ticker: str,
        start_ts: int,
        end_ts: int,
        period_minutes: int,
        *,
        include_latest_before_start: bool | None = None,
    ) -> list[Candlestick]:
        """Return up to 5,000 candles of one market."""
        span = request_params.candle_params(start_ts, end_ts, period_minutes)
        extra = request_params.params(include_latest_before_start=include_latest_before_start)
        path = f"/series/{segment(series_ticker)}/markets/{segment(ticker)}/candlesticks"
        return parse_candlesticks(self._get(path, [*span, *extra]), ticker)

    # -- pages and objects

    def _trades(self, path: str, params: request_params.Params, on_skipped: OnSkipped | None) -> Iterator[Trade]:
        pages = self._pages(path, params, "trades", on_skipped)
        return self._parsed(pages, lambda obj, _: parse_rest_trade(obj, self._clock.now_ns()), on_skipped)

    def _pages(
        self, path: str, params: request_params.Params, member: str, on_skipped: OnSkipped | None = None
    ) -> Iterator[object]:
        """Yield every object of every page, until a page names no next one or the pages do not advance."""
        cursors: set[str] = set()
        pages: set[int] = set()
        cursor, empty = "", 0
        while True:
            answer = self._get(path, [*params, ("cursor", cursor)] if cursor else params)
            found = get_list(answer, member)
            following = answer.get("cursor") if isinstance(answer, dict) else None
            if not isinstance(following, str) or not following:
                yield from found
                return
            # A server that ignores the cursor sends the same page under ever new ones.
            content = hash(tuple(_name_of(obj) for obj in found))
            is_repeated = bool(found) and content in pages
            if not is_repeated:
                yield from found
            empty = 0 if found else empty + 1
            if is_repeated or following in cursors or empty >= _EMPTY_PAGES or len(cursors) >= self._settings.max_pages:
                self._report_cut(
                    f"{path}: the pages do not advance; the listing was given up after {len(cursors) + 1}", on_skipped
                )
                return
            pages.add(content)
            cursors.add(following)
            cursor = following

    def _report_cut(self, reason: str, on_skipped: OnSkipped | None) -> None:
        self.faults.cut_listings += 1
        _log.error("listing_cut", error=reason)
        if on_skipped is None:
            raise UnparsableMessage("paging", reason)
        on_skipped(reason)

    def _on_unexpected_field(self, name: str) -> None:
        self.faults.unexpected_fields[name] += 1
        # Logged at the 1st, 2nd, 4th, 8th… of a name: a change of Kalshi's shows in every object.
        if self.faults.unexpected_fields[name].bit_count() == 1:
            # The column is left empty; the object's payload keeps the value.
            _log.warning("field_shape_unexpected", field=name[:100], times=self.faults.unexpected_fields[name])

    def _parsed(
        self,
        objects: Iterable[object],
        parse: Callable[[object, OnUnexpectedField], _T],
        on_skipped: OnSkipped | None = None,
    ) -> Iterator[_T]:
        """Parse objects one by one: a broken one is skipped and logged, so that it does not cost the other 40,000."""
        for obj in objects:
            try:
                yield parse(obj, self._on_unexpected_field)
            except UnparsableMessage as error:
                name = obj.get("ticker") or obj.get("event_ticker") if isinstance(obj, dict) else None
                self.faults.skipped += 1
                _log.warning("object_skipped", object=str(name)[:200], error=error)
                if on_skipped is not None:
                    on_skipped(f"object {str(name)[:200]}: {error}")


def _name_of(obj: object) -> str:
    names = [obj.get(name) for name in ("trade_id", "ticker", "event_ticker")] if isinstance(obj, dict) else [obj]
    return str(names)[:500]
