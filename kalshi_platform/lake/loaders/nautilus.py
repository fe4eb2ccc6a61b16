"""Writes markets' ranges into a catalog of nautilus_trader: an instrument each, changes of its book, its trades.

Needs nautilus_trader (1.221), which is imported when it is called for: the platform itself runs with newer libraries
than that allows. Times are the exchange's, as ts_event and as ts_init.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kalshi_platform.errors import ConfigurationError, MissingPartition
from kalshi_platform.lake.loaders.market_steps import BookGiven, BookLost, Level, Step, Traded, market_steps
from kalshi_platform.lake.reader import Source, markets
from kalshi_platform.lake.reader.source import Holes, make_source
from kalshi_platform.lake.store import Lake
from kalshi_platform.market.times import us_from_datetime

VENUE = "KALSHI"
_DAY = timedelta(days=1)
_EVENTS_AT_ONCE = 100_000
_ID_CHARACTERS = 36
_INFO = ("event_ticker", "series_ticker", "status", "result", "settlement_value_dollars", "strike_type",
         "floor_strike", "cap_strike", "rules_primary")  # fmt: skip


def to_nautilus(
    lake: Lake | Source,
    tickers: Sequence[str],
    start: datetime,
    end: datetime,
    folder: Path | str,
    *,
    holes: Holes = "mark",
    block_trades: bool = False,
) -> int:
    """Write [start, end) of markets into the ParquetDataCatalog at `folder`; return how many deltas and trades.

    A market is a BinaryOption `TICKER.KALSHI` on yes. Its book is a snapshot at the start, is cleared where a hole
    begins (with `holes="raise"` there may be none), and a snapshot again where it is known. F_LAST ends each exchange
    time. Raises ConfigurationError without nautilus_trader, MissingPartition where nothing is known of a market, and as
    `reader.replay` does. Memory does not grow with the range.
    """
    library = _load_library()
    source, count = make_source(lake), 0
    Path(folder).mkdir(parents=True, exist_ok=True)
    catalog = library.ParquetDataCatalog(str(Path(folder).absolute()))
    for ticker in tickers:
        with source.session():
            writer = _MarketWriter(library, ticker, catalog.write_data)
            for step in market_steps(source, ticker, start, end, holes=holes, block_trades=block_trades):
                writer.add(step)
            writer.write()
            if writer.count:
                catalog.write_data([_instrument(library, source, ticker, start, end)])
        if not writer.count:
            raise MissingPartition(
                f"neither a book nor trades of {ticker} from {start.isoformat()} to {end.isoformat()}"
            )
        count += writer.count
    return count


def _load_library() -> SimpleNamespace:
    """What is used of nautilus_trader, by its names."""
    try:
        from nautilus_trader.model import data, enums, identifiers, instruments, objects
        from nautilus_trader.persistence.catalog import ParquetDataCatalog
    except ImportError as missing:
        raise ConfigurationError(["nautilus_trader is not there: pip install kalshi-platform[nautilus]"]) from missing
    names: dict[str, Any] = {"ParquetDataCatalog": ParquetDataCatalog}
    for module in (data, enums, identifiers, instruments, objects):
        names |= {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
    return SimpleNamespace(**names)


def _instrument(library: Any, source: Source, ticker: str, start: datetime, end: datetime) -> Any:
    """The market as an instrument, as the lake knew it last; with the range as its life where it does not know it."""
    found = markets(source, start - _DAY, end + _DAY, [ticker], holes="mark")
    row: Mapping[str, Any] = found.row(-1, named=True) if found.height else {}
    opened, closed = row.get("open_time") or start, row.get("close_time") or end
    info = {name: str(row[name]) for name in _INFO if row.get(name) is not None}
    start_ns = us_from_datetime(start) * 1_000
    symbol = library.Symbol(ticker)
    return library.BinaryOption(
        instrument_id=library.InstrumentId(symbol, library.Venue(VENUE)),
        raw_symbol=symbol,
        asset_class=library.AssetClass.ALTERNATIVE,
        currency=library.Currency.from_str("USD"),
        price_precision=4,
        size_precision=2,
        price_increment=library.Price.from_str("0.0001"),
        size_increment=library.Quantity.from_str("0.01"),
        activation_ns=us_from_datetime(opened) * 1_000,
        expiration_ns=us_from_datetime(closed) * 1_000,
        ts_event=start_ns,
        ts_init=start_ns,
        outcome="Yes",
        description=row.get("title") or ticker,
        info=info,
    )


class _MarketWriter:
    """Collects one market's deltas and trades, and writes them when they are many."""

    def __init__(self, library: Any, ticker: str, write: Callable[[list[Any]], None]) -> None:
        self.count = 0
        self._library, self._write = library, write
        self._instrument_id = library.InstrumentId(library.Symbol(ticker), library.Venue(VENUE))
        self._sides = {"bid": library.OrderSide.BUY, "ask": library.OrderSide.SELL}
        takers = {"yes": library.AggressorSide.BUYER, "no": library.AggressorSide.SELLER}
        self._takers = takers
        self._prices: dict[int, Any] = {}
        self._deltas: list[Any] = []
        self._trades: list[Any] = []
        self._last_us = 0
        self._sequence = 0

    def add(self, step: Step) -> None:
        """Take a step. What is of one time stays together, as files may not share one."""
        if len(self._deltas) + len(self._trades) >= _EVENTS_AT_ONCE and step.ts_us > self._last_us:
            self.write()
        self._last_us = step.ts_us
        if isinstance(step, Traded):
            self._add_trade(step)
        elif isinstance(step, BookGiven | BookLost):
            actions = self._library.BookAction
            self._add_snapshot(step, actions)
        else:
            actions, last = self._library.BookAction, len(step.changes) - 1
            for number, (level, before_e2, size_e2) in enumerate(step.changes):
                action = actions.DELETE if not size_e2 else actions.UPDATE if before_e2 else actions.ADD
                self._add_delta(step.ts_us, action, level, size_e2, is_last=number == last)

    def write(self) -> None:
        """Write what was collected."""
        for rows in (self._deltas, self._trades):
            if rows:
                self._write(rows)
                self.count += len(rows)
                rows.clear()

    def _add_snapshot(self, step: BookGiven | BookLost, actions: Any) -> None:
        levels = step.levels if isinstance(step, BookGiven) else ()
        flag = self._library.RecordFlag.F_SNAPSHOT
        self._add_delta(step.ts_us, actions.CLEAR, None, 0, is_last=not levels, flag=flag)
        for number, (level, size_e2) in enumerate(levels, 1):
            self._add_delta(step.ts_us, actions.ADD, level, size_e2, is_last=number == len(levels), flag=flag)

    def _add_delta(
        self, ts_us: int, action: Any, level: Level | None, size_e2: int, *, is_last: bool, flag: int = 0
    ) -> None:
        library = self._library
        side, price_e4 = (library.OrderSide.NO_ORDER_SIDE, 0) if level is None else (self._sides[level[0]], level[1])
        # Also of a clear: the first delta of a file says the precision of all.
        order = library.BookOrder(side, self._price(price_e4), library.Quantity(size_e2 / 100, 2), 0)
        self._sequence += 1
        ts_ns = ts_us * 1_000
        # The library ends a batch where the flags are F_LAST and nothing else.
        flags = library.RecordFlag.F_LAST if is_last else flag
        self._deltas.append(
            library.OrderBookDelta(self._instrument_id, action, order, flags, self._sequence, ts_ns, ts_ns)
        )

    def _add_trade(self, step: Traded) -> None:
        library, row, ts_ns = self._library, step.values, step.ts_us * 1_000
        self._trades.append(
            library.TradeTick(
                self._instrument_id,
                self._price(row["yes_price_e4"]),
                library.Quantity(row["count_e2"] / 100, 2),
                self._takers.get(row["taker_side"], library.AggressorSide.NO_AGGRESSOR),
                library.TradeId(row["trade_id"][-_ID_CHARACTERS:]),
                ts_ns,
                ts_ns,
            )
        )

    def _price(self, price_e4: int) -> Any:
        price = self._prices.get(price_e4)
        if price is None:
            price = self._prices[price_e4] = self._library.Price(price_e4 / 10_000, 4)
        return price
