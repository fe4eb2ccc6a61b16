"""Trades proved complete against the exchange's listing, and whole days that no gatherer recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.cli.backfill_trades import backfill_trades as backfill_command
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.close.hours import find_hours_to_close
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.deduplicator.trades import rest_trades as trade_listing
from kalshi_platform.deduplicator.trades.backfill import TradesBackfill, backfill_trades, list_hours
from kalshi_platform.deduplicator.trades.reconcile_trades import TradeCheck, check_trades, reconcile_trades
from kalshi_platform.errors import ExchangeUnavailable, HourNotClosed, LockHeld
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform.lake.export import export_daily, export_raw
from kalshi_platform.lake.reader import trades as lake_trades
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.market.records import Trade
from kalshi_platform.market.times import HOUR, US_PER_MS, datetime_from_us, hour_of, us_from_datetime
from kalshi_platform.storage.migrate import migrate
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.exchange import running_exchange
from kalshi_platform_tests.fixtures.gatherer_service import client_settings
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.production import (  # noqa: F401 - fixtures
    Production,
    production,
    production_template,
)

DAY = hour_of(SYSTEM_CLOCK.now() - timedelta(days=9)).replace(hour=0)
H10 = DAY + timedelta(hours=10)
FIGURES = "production_count, production_volume_e2, rest_count, rest_volume_e2, inserted, only_in_production, differing"
Figures = tuple[object, ...]


@dataclass
class Lister:
    """An exchange that lists given trades, newest first; `broken` objects cannot be read, `error` ends the listing."""

    trades: list[Trade] = field(default_factory=list)
    broken: tuple[str, ...] = ()
    error: Exception | None = None
    between: Callable[[], None] = lambda: None
    asked: list[tuple[int | None, int | None]] = field(default_factory=list)

    def iter_trades_of_both_tiers(
        self,
        ticker: str | None = None,
        min_ts: int | None = None,
        max_ts: int | None = None,
        *,
        on_skipped: Callable[[str], None] | None = None,
    ) -> Iterator[Trade]:
        self.asked.append((min_ts, max_ts))
        for reason in self.broken:
            assert on_skipped is not None
            on_skipped(reason)
        for trade in sorted(self.trades, key=lambda each: each.exchange_ts_us, reverse=True):
            yield trade
            self.between()
        if self.error is not None:
            raise self.error


def listed(trade_id: str, at: datetime, ticker: str = "KXA-1", *, count_e2: int = 100, block: bool = False) -> Trade:
    us = us_from_datetime(at)
    return Trade(
        trade_id=trade_id, ticker=ticker, exchange_ts_us=us - us % US_PER_MS, yes_price_e4=5_600, no_price_e4=4_400,
        count_e2=count_e2, taker_side="yes", is_block_trade=block, received_at_ns=SYSTEM_CLOCK.now_ns(), source="rest",
        created_time_us=us,
    )  # fmt: skip


def held(trade_id: str, at: datetime, ticker: str = "KXA-1", **values: Any) -> dict[str, Any]:
    return {"exchange_ts": at, "ticker": ticker, "trade_id": trade_id, "count_e2": 100, **values}


def check(production: Production, rest: Lister, hour: datetime = H10) -> TradeCheck:  # noqa: F811
    return check_trades(production.database, rest, hour, production.keeper)


def parity(production: Production) -> dict[tuple[str, bool], Figures]:  # noqa: F811
    rows = production.rows(f"SELECT ticker, is_block_trade, {FIGURES}, state FROM trade_parity ORDER BY 1, 2")
    return {(ticker, block): tuple(figures) for ticker, block, *figures in rows}


def ms(number: float) -> timedelta:
    return timedelta(milliseconds=number)


def test_what_the_stream_missed_is_inserted_and_every_market_hour_has_its_figures(
    production: Production,  # noqa: F811
) -> None:
    last = H10 + HOUR - ms(0.5)
    rest = Lister(
        [
            listed("a1", H10 + ms(0.25)),
            listed("a2", H10 + ms(7.777), count_e2=250),
            listed("a3", last),
            listed("a3", last),  # paging showed it twice
            listed("before", H10 - ms(1)),
            listed("after", H10 + HOUR),
            listed("b1", H10 + ms(5), "KXB-2", block=True),
            listed("b2", H10 + ms(5), "KXB-2"),
        ]
    )
    production.insert("trades", [held("a1", H10), held("b2", H10 + ms(5), "KXB-2")])
    first = check(production, rest)
    assert (first.state, first.production_count, first.rest_count, first.inserted) == ("filled", 2, 5, 3)
    assert parity(production) == {
        ("KXA-1", False): (1, 100, 3, 450, 2, 0, 0, "filled"),
        ("KXB-2", False): (1, 100, 1, 100, 0, 0, 0, "complete"),
        ("KXB-2", True): (0, 0, 1, 100, 1, 0, 0, "filled"),
    }
    assert production.rows(
        "SELECT trade_id, exchange_ts, created_time, count_e2, is_block_trade, gatherer, stream_id FROM trades"
        " WHERE source = 'rest' ORDER BY 1"
    ) == [
        ("a2", H10 + ms(7), H10 + ms(7.777), 250, False, "rest", 0),
        ("a3", H10 + HOUR - ms(1), last, 100, False, "rest", 0),
        ("b1", H10 + ms(5), H10 + ms(5), 100, True, "rest", 0),
    ]
    assert rest.asked == [(us_from_datetime(H10) // 10**6 - 60, us_from_datetime(H10 + HOUR) // 10**6 + 60)]
    again = check(production, rest)
    assert (again.state, again.production_count, again.inserted) == ("complete", 5, 0)
    assert parity(production)["KXA-1", False] == (3, 450, 3, 450, 0, 0, 0, "complete")
    assert production.rows("SELECT sum(from_rest)::int FROM trade_parity") == [(3,)]
    assert production.rows("SELECT count(*) FROM trade_listing") == [(0,)]


@pytest.mark.timescale
def test_trades_of_a_compressed_day_get_their_times_and_are_decompressed_for_nothing_else(
    timescale_database_factory: DatabaseFactory,
) -> None:
    url = timescale_database_factory()
    migrate(Database(url, name="production"), "production")
    production = Production(url)  # noqa: F811
    moments = [H10 + timedelta(minutes=number) for number in range(50)]
    production.insert("trades", [held(f"t{number}", moment) for number, moment in enumerate(moments)])
    production.execute("SELECT compress_chunk(c) FROM show_chunks('trades') c")
    rest = Lister([listed(f"t{number}", moment + ms(0.25)) for number, moment in enumerate(moments)])
    assert check(production, rest).state == "complete"
    assert production.rows("SELECT DISTINCT created_time - exchange_ts FROM trades") == [(ms(0.25),)]
    production.execute("SELECT compress_chunk(c) FROM show_chunks('trades') c")
    assert check(production, rest).state == "complete"
    partial = "SELECT count(*) FROM show_chunks('trades') c WHERE _timescaledb_functions.chunk_status(c) <> 1"
    assert production.rows(partial) == [(0,)], "nothing was to be changed, so nothing was decompressed"
    production.database.dispose()


def test_every_listed_trade_gets_the_time_of_the_exchange_and_the_hour_is_exported_again(
    production: Production,  # noqa: F811
) -> None:
    rest = Lister([listed("z", H10 + ms(4.1)), listed("a", H10 + ms(4.7)), listed("m", H10 + ms(4.4))])
    production.insert("trades", [held(name, H10 + ms(4)) for name in ("a", "m", "z", "ours")])
    production.insert("trades", [held("early", H10 - ms(4))])
    production.close_hour(H10)
    check(production, rest)
    times = production.rows("SELECT trade_id, created_time FROM trades ORDER BY exchange_ts, created_time, trade_id")
    assert times == [
        ("early", None), ("z", H10 + ms(4.1)), ("m", H10 + ms(4.4)), ("a", H10 + ms(4.7)), ("ours", None),
    ]  # fmt: skip
    reopened = "SELECT bool_or(a.last_merged_at > c.closed_at) FROM hour_activity a JOIN hour_closes c USING (hour)"
    assert production.rows(reopened) == [(True,)]
    production.execute("UPDATE hour_closes SET closed_at = clock_timestamp()")
    check(production, rest)
    assert production.rows(reopened) == [(False,)]


def test_what_the_exchange_does_not_list_or_lists_otherwise_is_said_and_left_alone(
    production: Production,  # noqa: F811
) -> None:
    rest = Lister([listed("same", H10 + ms(4)), listed("size", H10 + ms(5), count_e2=7)])
    rows = [held("same", H10 + ms(4)), held("size", H10 + ms(5)), held("ours", H10 + ms(6))]
    # Clocks of the two sides may differ: neither of these is missing, and neither is in excess.
    rest.trades += [listed("edge", H10 + ms(2)), listed("next", H10 + HOUR + ms(3))]
    rows += [held("edge", H10 - ms(3)), held("next", H10 + HOUR - ms(1))]
    production.insert("trades", rows)
    found = check(production, rest)
    assert (found.state, found.inserted, found.only_in_production, found.differing) == ("differs", 0, 1, 1)
    assert parity(production) == {("KXA-1", False): (4, 400, 3, 207, 0, 1, 1, "differs")}
    assert production.rows("SELECT count_e2 FROM trades WHERE trade_id = 'size'") == [(100,)]


def test_a_listing_with_unreadable_objects_fills_but_proves_nothing(production: Production) -> None:  # noqa: F811
    found = check(production, Lister([listed("a", H10)], broken=("object KX\x00A: missing_field",)))
    assert (found.state, found.inserted, found.skipped, found.is_proved) == ("partial", 1, 1, False)
    assert production.rows("SELECT state, reason FROM trade_checks") == [("partial", "object KX\\x00A: missing_field")]


def test_an_exchange_that_does_not_answer_leaves_the_hour_unchecked_and_an_earlier_result_standing(
    production: Production,  # noqa: F811
) -> None:
    away = Lister([listed("a", H10)], error=ExchangeUnavailable("GET /markets/trades: HTTP 503", status=503))

    def reconcile(rest: Lister | None, hour: datetime = H10) -> TradeCheck:
        return reconcile_trades(production.database, rest, hour, production.keeper, SYSTEM_CLOCK)

    assert (reconcile(None).state, reconcile(None).reason) == ("not checked", "the exchange is not to be asked")
    assert reconcile(away).reason == "GET /markets/trades: HTTP 503"
    assert production.rows("SELECT state, reason FROM trade_checks") == [
        ("not checked", "GET /markets/trades: HTTP 503")
    ]
    assert production.rows("SELECT (SELECT count(*) FROM trades), (SELECT count(*) FROM trade_listing)") == [(0, 0)]
    assert reconcile(Lister([listed("a", H10)])).state == "filled"
    assert reconcile(away).state == "not checked"
    assert production.rows("SELECT state, reason FROM trade_checks") == [("filled", None)]
    production.insert("trades", [held("b", H10)])
    assert reconcile(None).state == "not checked"
    left = production.rows("SELECT state, reason, production_count, inserted FROM trade_checks")
    assert left == [("not checked", "the exchange is not to be asked", 0, 0)], "it holds other trades than it did then"
    production.execute("DELETE FROM trades WHERE trade_id = 'b'")
    assert reconcile(Lister([listed("a", H10)])).state == "complete"
    reconcile(away)
    assert production.rows("SELECT state, reason FROM trade_checks") == [("complete", None)]
    with production.database.advisory_lock("trade parity", H10.isoformat()):
        assert "another process" in (reconcile(Lister()).reason or "")
        with pytest.raises(LockHeld):
            check(production, Lister())
    assert reconcile(Lister(), hour_of(SYSTEM_CLOCK.now())).state == "not checked"


def test_a_listing_is_stored_as_it_is_read(
    production: Production,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trade_listing, "_ROWS_AT_ONCE", 10)
    seen = []

    def look() -> None:
        seen.append(production.rows("SELECT count(*) FROM trade_listing")[0][0])

    trades = [listed(f"t{number}", H10 + ms(number)) for number in range(35)]
    assert check(production, Lister(trades, between=look)).inserted == 35
    assert [trades_read - stored for trades_read, stored in enumerate(seen, 1)] == [n % 10 for n in range(1, 36)]


def test_rows_that_a_check_inserts_reopen_a_closed_hour_unless_they_came_with_its_close(
    production: Production,  # noqa: F811
) -> None:
    production.close_hour(H10, H10 + HOUR)
    ((close_no,),) = production.rows("SELECT close_no FROM hour_closes WHERE hour = %s", H10)
    now = SYSTEM_CLOCK.now()
    check_trades(production.database, Lister([listed("a", H10)]), H10, production.keeper, merge_no=close_no)
    check(production, Lister([]), H10 + HOUR)
    assert find_hours_to_close(production.database, now) == []
    check(production, Lister([listed("b", H10 + HOUR)]), H10 + HOUR)
    assert find_hours_to_close(production.database, now) == [H10 + HOUR]


def test_the_close_of_an_hour_fills_its_trades_and_works_without_the_exchange(
    production: Production,  # noqa: F811
    no_rows: DeduplicatorSettings,
) -> None:
    away = Lister(error=ExchangeUnavailable("away"))
    closed = close_hour(no_rows, H10, SYSTEM_CLOCK, PartitionBounds(), rest=away)
    assert (closed.final, closed.trades and closed.trades.state) == (True, "not checked")
    closed = close_hour(no_rows, H10, SYSTEM_CLOCK, PartitionBounds(), rest=Lister([listed("a", H10)]))
    assert (closed.rows["trades"], closed.trades and closed.trades.state) == (1, "filled")
    assert find_hours_to_close(production.database, SYSTEM_CLOCK.now()) == [], "the rows came with the close"
    unfinished = close_hour(no_rows, H10, SYSTEM_CLOCK, PartitionBounds(), final=False, rest=away)
    assert (unfinished.final, unfinished.trades) == (False, None)


def test_a_backfill_that_broke_off_goes_on_where_it_stopped(production: Production) -> None:  # noqa: F811
    hours = list_hours(DAY.date())[:8]
    trades = [listed(f"t{number}", hour) for number, hour in enumerate(hours)]
    rest = Lister(trades)
    began = SYSTEM_CLOCK.now() - timedelta(seconds=5)

    def backfill(wanted: Sequence[datetime], **options: Any) -> TradesBackfill:
        return backfill_trades(production.url, rest, wanted, SYSTEM_CLOCK, PartitionBounds(), **options)

    def stop_after(done: TradeCheck) -> None:
        if done.hour == hours[4]:
            rest.error = ExchangeUnavailable("away")

    with pytest.raises(ExchangeUnavailable):
        backfill(hours, on_check=stop_after)
    assert production.rows("SELECT count(*) FROM trades") == [(5,)]
    rest.error, rest.asked = None, []
    done = backfill(hours, done_since=began)
    assert (len(done.checks), len(done.skipped), done.total("inserted"), done.unproved) == (3, 5, 3, ())
    assert len(rest.asked) == 3
    assert backfill([*hours, hour_of(SYSTEM_CLOCK.now())]).skipped == (hour_of(SYSTEM_CLOCK.now()),)


@pytest.fixture
def no_rows(
    production: Production,  # noqa: F811
    database_factory: DatabaseFactory,
    merge_templates: None,
) -> DeduplicatorSettings:
    """A gatherer that recorded nothing."""
    empty = GathererSource("g1", database_factory("template_timeseries"), "postgresql://nobody@127.0.0.1/none")
    return DeduplicatorSettings(production_url=production.url, sources=(empty,))


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[ServerThread]:
    with running_exchange(tmp_path, markets=4, rate=0) as running:
        yield running


def traded(exchange: ServerThread, number: int) -> list[int]:
    """Let `number` trades happen, spread evenly over two hours of DAY; every hundredth is a block trade."""
    tickers = exchange.tickers()
    step = 2 * HOUR / number
    items = [
        {
            "kind": "trade", "ticker": tickers[n % len(tickers)], "yes_price_e4": 1_000 + n, "count_e2": 50 + n,
            "is_block_trade": n % 100 == 0, "exchange_ts_us": us_from_datetime(H10 + n * step) + 123,
        }
        for n in range(number)
    ]  # fmt: skip
    return exchange.publish(*items)


def everything(production: Production) -> list[tuple[Any, ...]]:  # noqa: F811
    columns = "ticker, trade_id, exchange_ts, yes_price_e4, count_e2, is_block_trade, created_time, source"
    return production.rows(f"SELECT {columns} FROM trades ORDER BY 1, 2")


def test_deleted_trades_of_a_day_that_no_gatherer_recorded_come_back_and_are_exported_again(
    exchange: ServerThread,
    production: Production,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    number = 2_400  # an hour of them is more than a page
    times = traded(exchange, number)
    rest = RestClient(client_settings(exchange), SYSTEM_CLOCK)
    lake = LakeSettings((tmp_path / "lake").as_uri())
    nobody = "postgresql://nobody@127.0.0.1:1/none"
    away = DeduplicatorSettings(production.url, (GathererSource("g1", nobody, nobody),))

    def backfill() -> TradesBackfill:
        hours = list_hours(DAY.date())[8:14]
        return backfill_trades(production.url, rest, hours, SYSTEM_CLOCK, PartitionBounds())

    def close_and_export(hours: Sequence[datetime], settings: DeduplicatorSettings) -> None:
        for hour in hours:
            closed = close_hour(settings, hour, SYSTEM_CLOCK, PartitionBounds())
            assert (closed.final, closed.gatherers_read, closed.rows["trades"]) == (True, (), number // 2)
        export_raw(lake, production.url, "trades", H10, "closed")
        export_daily(lake, production.url, "processed/trades", DAY.date(), "closed")

    done = backfill()
    assert (done.total("inserted"), done.total("rest_count"), done.unproved) == (number, number, ())
    first = everything(production)
    assert [row[6] for row in sorted(first, key=lambda row: row[6])] == [datetime_from_us(us) for us in times]
    assert sum(row[5] for row in first) == number // 100
    close_and_export(find_hours_to_close(production.database, SYSTEM_CLOCK.now()), away)
    assert find_hours_to_close(production.database, SYSTEM_CLOCK.now()) == [], "nobody waits for who is away"
    exported = lake_trades(lake, DAY, DAY + timedelta(days=1), layer="processed")
    assert exported.height == number

    production.execute("DELETE FROM trades WHERE exchange_ts >= %s", H10 + HOUR)
    assert len(everything(production)) == number // 2
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KALSHI_PRODUCTION_DATABASE_URL", production.url)
    monkeypatch.setenv("KALSHI_REST_URL", exchange.rest_url)
    monkeypatch.setenv("KALSHI_REST_SHARE", "1")
    day = f"{DAY:%Y-%m-%d}"
    backfill_command(day, to="", resume=False)
    assert f"{day} 11:00  filled: 1,200 listed, 1,200 new" in capsys.readouterr().out
    backfill_command(day, to=day, resume=True)
    assert "0 hours: 0 trades listed, 0 new; 24 hours skipped" in capsys.readouterr().out
    assert everything(production) == first
    reopened = find_hours_to_close(production.database, SYSTEM_CLOCK.now())
    assert reopened == [H10 + HOUR]
    with pytest.raises(HourNotClosed):
        export_daily(lake, production.url, "processed/trades", DAY.date(), "closed")
    close_and_export(reopened, replace(away, sources=()))
    assert lake_trades(lake, DAY, DAY + timedelta(days=1), layer="processed").equals(exported)


def test_days_before_the_cutoff_come_from_the_historical_tier(
    exchange: ServerThread,
    production: Production,  # noqa: F811
) -> None:
    rest = RestClient(client_settings(exchange), SYSTEM_CLOCK)
    old = list(rest.iter_historical_trades())
    hours = sorted({hour_of(datetime_from_us(trade.exchange_ts_us)) for trade in old})
    done = backfill_trades(production.url, rest, hours, SYSTEM_CLOCK, PartitionBounds())
    assert {row[1] for row in everything(production)} == {trade.trade_id for trade in old}
    assert (done.total("inserted"), done.unproved) == (len(old), ())
