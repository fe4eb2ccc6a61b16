"""What a replay plays: recorded messages in order, and the state before the first of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kalshi_platform.lab.simulator.engine.subscriptions import BOOK, COMBO_LIFECYCLE, LIFECYCLE, TICKER, TRADE

Json = dict[str, Any]
CHANNELS = {
    "orderbook_delta": BOOK,
    "orderbook_snapshot": BOOK,
    "trade": TRADE,
    "ticker": TICKER,
    "market_lifecycle_v2": LIFECYCLE,
    "market_lifecycle": LIFECYCLE,
    "event_lifecycle": LIFECYCLE,
    "event_fee_update": LIFECYCLE,
    "multivariate_market_lifecycle": COMBO_LIFECYCLE,
}
MARKET_KINDS = frozenset({"orderbook_snapshot", "orderbook_delta", "trade", "ticker"})


@dataclass(frozen=True, slots=True)
class Recorded:
    """One message, made ready: `body` is its `msg`, `channel` where it goes, `us` its exchange time.

    `change` is (side, price_e4, delta_e2) of a delta; `msg` is kept for the other kinds only.
    """

    received_at_ns: int
    kind: str
    channel: str
    ticker: str
    us: int
    body: bytes
    change: tuple[int, int, int] | None
    msg: Json


@dataclass(frozen=True)
class StartState:
    """The state before the first message: `markets` maps tickers to ids, `books` to a snapshot's `msg`.

    Deltas of a market of `pending` are inside its book until its first snapshot comes, and are not played.
    """

    markets: Mapping[str, str]
    first_us: int
    books: Mapping[str, Json] = field(default_factory=dict)
    pending: frozenset[str] = frozenset()


class Source(Protocol):
    """Where recorded messages come from."""

    channels: frozenset[str]
    """Channels that messages go to."""

    def start(self) -> StartState:
        """Return the state before the first message; called once, first."""

    def messages(self) -> Iterator[Recorded]:
        """Yield the messages in the order in which they are played."""

    def describe(self) -> Json:
        """Return what the control channel shows of the source."""
