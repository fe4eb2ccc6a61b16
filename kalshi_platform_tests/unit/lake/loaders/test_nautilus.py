"""The catalog for nautilus_trader, read by the library itself: instruments, books as the reader's, trades."""

from __future__ import annotations

import importlib.util
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.errors import ConfigurationError, MissingPartition
from kalshi_platform.lake.loaders import nautilus, to_nautilus
from kalshi_platform_tests.fixtures.lake import put
from kalshi_platform_tests.unit.lake.loaders.world import (
    END,
    HOLE_FROM,
    HOLE_TO,
    OTHER,
    START,
    TICKER,
    World,
    best_prices,
    times_ns,
    yes_levels,
)

IS_THERE = importlib.util.find_spec("nautilus_trader") is not None
needs_library = pytest.mark.skipif(not IS_THERE, reason="nautilus_trader is not installed: make loaders")
DAY = datetime.combine(START.date(), datetime.min.time(), START.tzinfo)


@pytest.fixture(scope="module")
def catalog(world: World, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from nautilus_trader.persistence.catalog import ParquetDataCatalog

    put(
        world.store,
        "processed/markets",
        DAY,
        {
            "as_of": DAY, "ticker": TICKER, "title": "Rain?", "open_time": DAY, "close_time": DAY + timedelta(days=1),
            "event_ticker": "KXRAIN-26NOV20", "exchange_index": 0, "result": "yes",
            "settlement_value_dollars": Decimal("1.000000"),
        },
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("nautilus") / "a catalog"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nautilus, "_EVENTS_AT_ONCE", 100)  # several files a market
        count = to_nautilus(world.store, [TICKER, OTHER], START, END, folder)
    found = ParquetDataCatalog(str(folder))
    assert count == len(found.order_book_deltas()) + len(found.trade_ticks())
    return found


@pytest.mark.skipif(IS_THERE, reason="nautilus_trader is installed")
def test_without_the_library_the_error_says_what_to_install(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"pip install kalshi-platform\[nautilus\]"):
        to_nautilus(world.store, [TICKER], START, END, tmp_path / "catalog")
    assert not list(tmp_path.iterdir())


@needs_library
def test_each_market_is_an_instrument_as_the_lake_knew_it(catalog: Any) -> None:
    known, other = sorted(catalog.instruments(), key=lambda each: str(each.id))
    assert [str(each.id) for each in (known, other)] == [f"{TICKER}.KALSHI", f"{OTHER}.KALSHI"]
    assert (known.price_precision, known.size_precision) == (4, 2)
    assert (known.price_increment.as_decimal(), known.size_increment.as_decimal()) == (
        Decimal("0.0001"),
        Decimal("0.01"),
    )
    assert (known.description, known.outcome, str(known.quote_currency)) == ("Rain?", "Yes", "USD")
    assert known.expiration_ns == times_ns([DAY + timedelta(days=1)])[0]
    assert (known.info["result"], known.info["settlement_value_dollars"]) == ("yes", "1.000000")
    assert (other.activation_ns, other.expiration_ns) == tuple(times_ns([START, END]))


@needs_library
@pytest.mark.parametrize("ticker", [TICKER, OTHER])
def test_a_book_fed_with_the_deltas_is_that_of_the_lake(world: World, catalog: Any, ticker: str) -> None:
    from nautilus_trader.model.book import OrderBook
    from nautilus_trader.model.enums import BookType
    from nautilus_trader.model.identifiers import InstrumentId

    instrument_id = InstrumentId.from_str(f"{ticker}.KALSHI")
    book = OrderBook(instrument_id, BookType.L2_MBP)
    moments = [each for each in world.moments if START <= each < END]
    wanted = dict(zip(times_ns(moments), moments, strict=True))
    batches = catalog.order_book_deltas(instrument_ids=[instrument_id.value], batched=True)
    assert len({each.ts_event for each in batches}) == len(batches)
    compared = 0
    for number, batch in enumerate(batches):
        book.apply(batch)
        if batch.ts_event in wanted and number % 5 == 0:
            bid, ask = book.best_bid_price(), book.best_ask_price()
            found = tuple(None if each is None else round(each.as_double() * 10_000) for each in (bid, ask))
            assert found == best_prices(world.store, wanted[batch.ts_event], ticker)
            sizes = {
                (side, round(level.price.as_double() * 10_000)): round(level.size() * 100)
                for side, levels in (("bid", book.bids()), ("ask", book.asks()))
                for level in levels
            }
            assert sizes == yes_levels(world.store, wanted[batch.ts_event], ticker)
            compared += 1
        if ticker == TICKER and batch.ts_event == times_ns([HOLE_FROM])[0]:
            assert (book.best_bid_price(), book.best_ask_price()) == (None, None)
    assert compared > 20
    inside = [each for each in batches if times_ns([HOLE_FROM])[0] < each.ts_event < times_ns([HOLE_TO])[0]]
    assert bool(inside) == (ticker == OTHER)


@needs_library
def test_trades_have_their_takers_and_identifiers(catalog: Any) -> None:
    trades = catalog.trade_ticks()
    assert [(str(each.price), str(each.size), each.aggressor_side.name) for each in trades] == [
        ("0.5000", "1.50", "BUYER"),
        ("0.5000", "1.50", "SELLER"),
        ("0.5000", "1.50", "SELLER"),
        ("0.5127", "1.50", "NO_AGGRESSOR"),
    ]
    assert trades[0].trade_id.value == "00000000-0000-0000-0000-000000000001"
    assert trades[2].trade_id.value == "an old trade"


@needs_library
def test_a_backtest_of_the_catalog_sees_its_books_and_trades(catalog: Any) -> None:
    from nautilus_trader.backtest.engine import BacktestEngine
    from nautilus_trader.backtest.models import FillModel
    from nautilus_trader.config import BacktestEngineConfig, LoggingConfig
    from nautilus_trader.model.currencies import USD
    from nautilus_trader.model.enums import AccountType, BookType, OmsType
    from nautilus_trader.model.identifiers import Venue
    from nautilus_trader.model.objects import Money
    from nautilus_trader.trading.strategy import Strategy

    class Watcher(Strategy):  # type: ignore[misc]
        def on_start(self) -> None:
            self.seen = {"deltas": 0, "trades": 0}
            for instrument in self.cache.instruments():
                self.subscribe_order_book_deltas(instrument.id)
                self.subscribe_trade_ticks(instrument.id)

        def on_order_book_deltas(self, deltas: Any) -> None:
            self.seen["deltas"] += len(deltas.deltas)

        def on_trade_tick(self, tick: Any) -> None:
            self.seen["trades"] += 1

    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    engine.add_venue(
        Venue("KALSHI"), OmsType.NETTING, AccountType.CASH, [Money(1_000, USD)], book_type=BookType.L2_MBP,
        fill_model=FillModel(),
    )  # fmt: skip
    for instrument in catalog.instruments():
        engine.add_instrument(instrument)
    deltas, trades = catalog.order_book_deltas(), catalog.trade_ticks()
    engine.add_data([each for each in deltas if each.instrument_id.symbol.value == TICKER])
    engine.add_data([each for each in deltas if each.instrument_id.symbol.value == OTHER])
    engine.add_data(trades)
    watcher = Watcher()
    engine.add_strategy(watcher)
    engine.run()
    assert watcher.seen == {"deltas": len(deltas), "trades": len(trades)}
    engine.dispose()


@needs_library
def test_a_market_of_which_nothing_is_known_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(MissingPartition, match="KXNONE"):
        to_nautilus(world.store, ["KXNONE"], START, END, tmp_path / "catalog")
    assert not list(tmp_path.rglob("*.parquet"))
