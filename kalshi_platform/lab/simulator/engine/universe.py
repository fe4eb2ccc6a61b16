"""What the venue lists: series, events and markets as mutable records. Times are µs of the exchange's clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from kalshi_platform.lab.simulator.engine.book import Book

# Statuses as REST responses spell them; `open`, `unopened` and `settled` are words of the request only.
INITIALIZED, ACTIVE, INACTIVE = "initialized", "active", "inactive"
CLOSED, DETERMINED, DISPUTED, AMENDED = "closed", "determined", "disputed", "amended"
FINALIZED = "finalized"


@dataclass(slots=True, eq=False)
class Series:
    """A series, the template of its events."""

    ticker: str
    title: str
    category: str
    frequency: str
    exchange_index: int
    structure: str
    updated_us: int
    tags: tuple[str, ...] | None = None
    fee_type: str = "quadratic"


@dataclass(slots=True, eq=False)
class Event:
    """An event and its markets; `is_combo`: a multivariate event."""

    ticker: str
    series_ticker: str
    title: str
    sub_title: str
    strike_us: int
    updated_us: int
    exchange_index: int
    is_combo: bool = False
    market_tickers: list[str] = field(default_factory=list)
    fee_type_override: str | None = None
    fee_multiplier_override: float | None = None


@dataclass(slots=True, eq=False)
class Trade:
    """One trade; `us` is its exchange time. REST prints all of it, the WebSocket its milliseconds."""

    us: int
    trade_id: str
    ticker: str
    yes_price_e4: int
    count_e2: int
    taker_side: int
    is_block_trade: bool = False


@dataclass(slots=True, eq=False)
class Minute:
    """Open, high, low, close of the best yes bid and ask in one minute, and open interest at its end."""

    bid: list[int]
    ask: list[int]
    open_interest_e2: int


@dataclass(slots=True, eq=False)
class Market:
    """A market with its book; prices in 1/10,000 dollar, counts in 1/100 contract."""

    ticker: str
    event_ticker: str
    series_ticker: str
    market_id: str
    structure: str
    strike: float
    exchange_index: int
    created_us: int
    updated_us: int
    visible_us: int
    open_us: int
    close_us: int
    settle_after_s: int
    status: str = INITIALIZED
    result: str = ""
    settlement_e4: int | None = None
    determined_us: int | None = None
    settled_us: int | None = None
    market_type: str = "binary"
    strike_type: str = "greater"
    is_provisional: bool = False
    has_vanished: bool = False
    """A provisional market in which nothing happened until its determination: REST knows it no more."""
    reactivate_us: int | None = None
    legs: tuple[tuple[str, str], ...] = ()
    """What a combo combines: (market ticker, side)."""
    is_combo: bool = False
    yes_sub_title: str = ""
    weight: float = 1.0
    sides: tuple[int, ...] = (0, 1)
    fair_e4: int = 5_000
    book: Book = field(default_factory=Book)
    last_price_e4: int | None = None
    last_size_e2: int = 0
    volume_e2: int = 0
    open_interest_e2: int = 0
    dollar_volume_e6: int = 0
    last_us: int = 0
    ticker_ms: int = -1
    ticker_body: bytes | None = None
    delta_head: str = ""
    """The beginning of every delta's body, made when the first one is."""
    ticker_top: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    minutes: dict[int, Minute] = field(default_factory=dict)
    """By number: minute n ends, inclusive, n minutes after the epoch. Only those in which something happened."""
    minute: Minute | None = None
    moment_us: int = -1
    """The minute and the microsecond of the last message that changed the book or was a trade."""
    trades: list[Trade] = field(default_factory=list)

    def is_visible(self, now_us: int) -> bool:
        """Whether REST shows the market."""
        return self.visible_us <= now_us and not self.has_vanished

    @property
    def is_quoting(self) -> bool:
        """Whether orders may rest and move now."""
        return self.status == ACTIVE
