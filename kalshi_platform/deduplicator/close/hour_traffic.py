"""Reads from a gatherer's ledger what it received in an hour: messages by minute, their lag, and polls over REST."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.market.times import HOUR
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))


@dataclass(frozen=True)
class MinuteTraffic:
    """One minute by the exchange's clock. Lags are those of trades from the exchange to the socket, in ms."""

    at: datetime
    messages: int
    lag_p50_ms: float | None
    lag_p99_ms: float | None


@dataclass(frozen=True)
class HourTraffic:
    """What one gatherer received in an hour; times are None where there was nothing."""

    minutes: tuple[MinuteTraffic, ...]
    first_at: datetime | None
    last_at: datetime | None
    books_answered: int
    requests: int
    polls: int
    polled_from: datetime | None
    polled_until: datetime | None

    @property
    def messages(self) -> int:
        """Messages over the WebSocket."""
        return sum(each.messages for each in self.minutes)


def read_hour_traffic(source: GathererSource, hour: datetime, timeout_s: float) -> HourTraffic:
    """Read one hour of a gatherer. Raises DatabaseUnavailable, also where a statement takes longer than `timeout_s`."""
    bounds = {"low": hour, "high": hour + HOUR}
    database = Database(
        source.timeseries_url, name=f"{source.name} timeseries", pool_size=1, statement_timeout_s=timeout_s
    )
    try:
        with database.transaction() as transaction:
            counts = transaction.fetch_all(_SQL["count_messages_by_minute"], bounds)
            lags = transaction.fetch_all(_SQL["measure_lag_by_minute"], bounds)
            polls = transaction.fetch_one(_SQL["sum_polls"], bounds)
    finally:
        database.dispose()
    lag_by_minute = {minute: (p50, p99) for minute, p50, p99 in lags}
    answered, requests, number, polled_from, polled_until = polls or (0, 0, 0, None, None)
    return HourTraffic(
        minutes=tuple(
            MinuteTraffic(minute, int(messages), *lag_by_minute.get(minute, (None, None)))
            for minute, messages, _, _ in counts
        ),
        first_at=min((first for _, _, first, _ in counts), default=None),
        last_at=max((last for _, _, _, last in counts), default=None),
        books_answered=int(answered),
        requests=int(requests),
        polls=int(number),
        polled_from=polled_from,
        polled_until=polled_until,
    )
