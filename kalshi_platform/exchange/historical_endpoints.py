"""Reads the historical tier, which holds what is older than the cutoff, and both tiers together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kalshi_platform.exchange import request_params
from kalshi_platform.exchange.endpoints import OnSkipped, PublicEndpoints
from kalshi_platform.exchange.parse.rest import parse_candlesticks, parse_cutoff, parse_market
from kalshi_platform.exchange.request_params import segment
from kalshi_platform.exchange.responses import get_field
from kalshi_platform.market.catalog import Candlestick, HistoricalCutoff, MarketInfo
from kalshi_platform.market.records import Trade
from kalshi_platform.market.times import US_PER_DAY, US_PER_S

# How far the cutoff may move during one read without a trade being missed or returned twice.
_MOVES_AT_MOST_US = 7 * US_PER_DAY


class HistoricalEndpoints(PublicEndpoints):
    """Reads `/historical/*`, all of which is public."""

    def historical_cutoff(self) -> HistoricalCutoff:
        """Return the times from which on the live endpoints have the data."""
        return parse_cutoff(self._get("/historical/cutoff"))

    def iter_historical_markets(
        self,
        tickers: Iterable[str] | None = None,
        event_ticker: str | None = None,
        series_ticker: str | None = None,
        mve_filter: str | None = None,
        *,
        on_skipped: OnSkipped | None = None,
    ) -> Iterator[MarketInfo]:
        """Yield markets settled before the cutoff; at most one filter. `on_skipped`: see `iter_trades`."""
        params = request_params.historical_market_params(
            tickers=tickers, event_ticker=event_ticker, series_ticker=series_ticker, mve_filter=mve_filter
        )
        pages = self._pages("/historical/markets", params, "markets", on_skipped)
        return self._parsed(pages, parse_market, on_skipped)

    def historical_market(self, ticker: str) -> MarketInfo:
        """Return one market settled before the cutoff. Raises RequestRejected (404) when it is not there."""
        return parse_market(
            get_field(self._get(f"/historical/markets/{segment(ticker)}"), "market"), self._on_unexpected_field
        )

    def iter_historical_trades(
        self,
        ticker: str | None = None,
        min_ts: int | None = None,
        max_ts: int | None = None,
        *,
        on_skipped: OnSkipped | None = None,
    ) -> Iterator[Trade]:
        """Yield trades made before the cutoff, newest first; bounds in Unix seconds (see `iter_trades`)."""
        return self._trades("/historical/trades", request_params.trade_params(ticker, min_ts, max_ts, None), on_skipped)

    def historical_candlesticks(
        self, ticker: str, start_ts: int, end_ts: int, period_minutes: int
    ) -> list[Candlestick]:
        """Return candles of a market settled before the cutoff."""
        span = request_params.candle_params(start_ts, end_ts, period_minutes)
        return parse_candlesticks(self._get(f"/historical/markets/{segment(ticker)}/candlesticks", span), ticker)

    def iter_trades_of_both_tiers(
        self,
        ticker: str | None = None,
        min_ts: int | None = None,
        max_ts: int | None = None,
        *,
        on_skipped: OnSkipped | None = None,
    ) -> Iterator[Trade]:
        """Yield the trades of both tiers, each once: live ones from the cutoff on, then historical ones before it.

        The cutoff may move while the live tier is read, and the trades that it passes leave that tier. So the cutoff is
        read again, and the span that it passed is read from the historical tier, without the trades already yielded.
        """
        cutoff_us = self.historical_cutoff().trades_created_us
        cutoff_s = cutoff_us // US_PER_S
        from_live: set[str] = set()
        if max_ts is None or max_ts >= cutoff_s:
            first_s = cutoff_s if min_ts is None else max(min_ts, cutoff_s)
            for trade in self.iter_trades(ticker, first_s, max_ts, on_skipped=on_skipped):
                created_us = _created_us(trade)
                if created_us < cutoff_us:
                    continue
                if created_us < cutoff_us + _MOVES_AT_MOST_US:
                    from_live.add(trade.trade_id)
                yield trade
        if min_ts is not None and min_ts * US_PER_S >= cutoff_us + _MOVES_AT_MOST_US:
            return
        moved_us = max(cutoff_us, self.historical_cutoff().trades_created_us)
        if min_ts is not None and min_ts * US_PER_S >= moved_us:
            return
        last_s = moved_us // US_PER_S + 1
        from_both: set[str] = set()
        last_s = last_s if max_ts is None else min(max_ts, last_s)
        for trade in self.iter_historical_trades(ticker, min_ts, last_s, on_skipped=on_skipped):
            created_us = _created_us(trade)
            if created_us >= moved_us or trade.trade_id in from_live or trade.trade_id in from_both:
                continue
            if created_us >= cutoff_us:
                from_both.add(trade.trade_id)
            yield trade


def _created_us(trade: Trade) -> int:
    return trade.exchange_ts_us if trade.created_time_us is None else trade.created_time_us
