"""Candles of a simulated day against the exchange's own, and against SQL over the raw files."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from kalshi_platform.exchange.parse.rest import parse_candlesticks
from kalshi_platform.lab.proof.comparison.candles import CANDLES, compare_candles
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.market.catalog import Candlestick
from kalshi_platform.market.times import US_PER_DAY, US_PER_HOUR
from kalshi_platform_tests.fixtures.simulated_day import DAY_US, HOURS, MINUTE_US, SimulatedDay

HOLE = (5 * US_PER_HOUR - 20_000_000, 5 * US_PER_HOUR + 90_000_000)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> SimulatedDay:
    """A day that moves around its ends, around whole hours and minutes, and within one minute."""
    made = SimulatedDay(tmp_path_factory.mktemp("lake"))
    made.run(-10 * MINUTE_US, -9 * MINUTE_US, 150)
    for at in (0, 17 * MINUTE_US, 13 * US_PER_HOUR, 23 * US_PER_HOUR + MINUTE_US, US_PER_DAY):
        made.run(at - 40_000_000, at - 1, 150)
        _trade_and_change_at(made, at)
        made.run(at, at + 40_000_000, 150)
    _trade_and_change_at(made, US_PER_DAY + MINUTE_US)
    made.record()
    for key in CANDLES.values():
        made.export(DATASETS[key])
    return made


@pytest.mark.parametrize("period", CANDLES)
def test_candles_equal_the_exchanges_field_by_field(day: SimulatedDay, period: int) -> None:
    exchange = candles_of(day, period)
    found = compare_candles(day.lake.store, period, exchange)
    assert (found.differing, found.missing, found.extra, found.undecided) == ((), (), (), ())
    assert found.compared == len(exchange) > 5
    assert found.is_equal


@pytest.mark.parametrize("period", CANDLES)
def test_candles_equal_what_sql_makes_of_the_raw_files(day: SimulatedDay, period: int) -> None:
    names = [name for name in DATASETS[CANDLES[period]].schema.names if name not in {"is_complete", "start_period_ts"}]
    columns = ", ".join(f"(x.{name} * {_scale(name)})::bigint" if _scale(name) else f"x.{name}" for name in names[2:])
    ours = duckdb.sql(
        f"SELECT ticker, epoch_us(end_period_ts), {columns} FROM '{files(day, CANDLES[period])}' AS x ORDER BY 1, 2"
    ).fetchall()
    sql = SQL.format(
        **{name: files(day, f"raw/{name}") for name in ("orderbook_deltas", "book_checkpoints", "trades", "tickers")},
        p=period * MINUTE_US,
        low=DAY_US,
        high=DAY_US + US_PER_DAY,
    )
    wanted = duckdb.sql(sql).fetchall()
    assert len(wanted) > 5
    assert [dict(zip(names, row, strict=True)) for row in ours] == [
        dict(zip(names, row, strict=True)) for row in wanted
    ]


def test_candles_in_a_hole_say_so_and_the_others_equal_the_exchanges(tmp_path: Path) -> None:
    day = SimulatedDay(tmp_path, markets=4, seed=3)
    for low, high in ((HOLE[0] - 90_000_000, HOLE[0]), HOLE):
        day.run(low, high, 120)
    day.checkpoint(HOLE[1])
    day.run(HOLE[1] + 1_000, HOLE[1] + 150_000_000, 200)
    day.record(hole=HOLE)
    for period, incomplete in ((1, 3), (60, 2), (1_440, 1)):
        data = DATASETS[CANDLES[period]]
        day.export(data)
        exchange = candles_of(day, period)
        found = compare_candles(day.lake.store, period, exchange)
        assert (found.differing, found.missing, found.extra) == ((), (), ())
        ends = {candle.end_us for candle in exchange}
        touched = [end for end in ends if end - period * MINUTE_US <= DAY_US + HOLE[1] and end >= DAY_US + HOLE[0]]
        assert len(touched) == incomplete
        assert found.incomplete == sum(candle.end_us in touched for candle in exchange)
    # How markets are put together and hours cut leaves no trace.
    whole = day.lake.derive(data, HOURS)
    assert whole.equals(day.lake.derive(data, HOURS, chunk_bytes=1, part_bytes=1_000))


def test_what_differs_is_named_with_both_values(day: SimulatedDay) -> None:
    import msgspec

    exchange = candles_of(day, 60)
    wrong = msgspec.structs.replace(exchange[0], volume_e2=1, price_mean_e6=123_456)
    found = compare_candles(day.lake.store, 60, [wrong, *exchange[2:]])
    assert [(each.name, each.exchange) for each in found.differing] == [
        ("price_mean_dollars", 123_456),
        ("volume_contracts", 1),
    ]
    assert found.extra == ((exchange[1].ticker, exchange[1].end_us),)
    assert not found.is_equal


def candles_of(day: SimulatedDay, period: int) -> list[Candlestick]:
    return [candle for market in day.candles(period) for candle in parse_candlesticks(market)]


def files(day: SimulatedDay, key: str) -> str:
    return f"{day.lake.folder}/{key}/**/*.parquet"


def _scale(name: str) -> int:
    return 10_000 if name.endswith("_dollars") else 100 if name.endswith("_contracts") else 0


def _trade_and_change_at(day: SimulatedDay, us: int) -> None:
    """Let a book change and a block trade come in the very moment at which periods end."""
    market = day.venue.quoting[0]
    side = market.sides[0]
    best = market.book.best[side]
    now_us = day.venue.stamp(DAY_US + us)
    assert now_us == DAY_US + us
    if best:
        day.venue.change(market, now_us, side, best, -market.book.levels[side][best])
    day.venue.print_trade(market, now_us, yes_price_e4=100 + us % 700, count_e2=333, taker_side=0, block=True)
    day.venue.print_ticker(market, now_us)


# In the words of the definition, with no regard for speed. Rows of a checkpoint are changes of an empty book.
SQL = """
WITH changes AS (
  SELECT ticker, epoch_us(exchange_ts) AS us, side, price_e4, delta_e2, true AS is_change FROM '{orderbook_deltas}'
  UNION ALL
  SELECT ticker, epoch_us(checkpoint_ts), 'yes', unnest(yes_price_e4), unnest(yes_count_e2), false
  FROM '{book_checkpoints}'
  UNION ALL
  SELECT ticker, epoch_us(checkpoint_ts), 'no', unnest(no_price_e4), unnest(no_count_e2), false
  FROM '{book_checkpoints}'
), sizes AS (
  SELECT ticker, side, price_e4, us, sum(d) OVER (PARTITION BY ticker, side, price_e4 ORDER BY us) AS size
  FROM (SELECT ticker, side, price_e4, us, sum(delta_e2) AS d FROM changes GROUP BY ticker, side, price_e4, us)
), places AS (SELECT DISTINCT ticker, side, price_e4 FROM changes
), moments AS (
  SELECT DISTINCT ticker, us FROM changes
  UNION SELECT DISTINCT ticker, epoch_us(checkpoint_ts) FROM '{book_checkpoints}'
), quotes AS (
  SELECT m.ticker, m.us, coalesce(max(p.price_e4) FILTER (p.side = 'yes' AND s.size > 0), 0) AS bid,
         10000 - coalesce(max(p.price_e4) FILTER (p.side = 'no' AND s.size > 0), 0) AS ask
  FROM moments m LEFT JOIN places p USING (ticker)
  ASOF LEFT JOIN sizes s ON s.ticker = m.ticker AND s.side = p.side AND s.price_e4 = p.price_e4 AND s.us <= m.us
  GROUP BY m.ticker, m.us
), tape AS (
  SELECT ticker, epoch_us(coalesce(created_time, exchange_ts)) AS us, seq, yes_price_e4::bigint AS price, count_e2 AS n,
         is_block_trade AS is_block
  FROM '{trades}'
), periods AS (
  SELECT DISTINCT ticker, (us + {p} - 1) // {p} * {p} AS e
  FROM (SELECT ticker, us FROM changes WHERE is_change UNION ALL SELECT ticker, us FROM tape)
), quoted AS (
  SELECT p.ticker, p.e, any_value(o.bid) AS bid_open, any_value(o.ask) AS ask_open, any_value(c.bid) AS bid_close,
         any_value(c.ask) AS ask_close, min(q.bid) AS bid_low, max(q.bid) AS bid_high, min(q.ask) AS ask_low,
         max(q.ask) AS ask_high
  FROM periods p
  ASOF LEFT JOIN quotes o ON o.ticker = p.ticker AND o.us <= p.e - {p}
  ASOF LEFT JOIN quotes c ON c.ticker = p.ticker AND c.us <= p.e
  LEFT JOIN quotes q ON q.ticker = p.ticker AND q.us > p.e - {p} AND q.us <= p.e
  GROUP BY p.ticker, p.e
), traded AS (
  SELECT p.ticker, p.e, arg_min(price, (t.us, t.seq)) AS first, min(price) AS low, max(price) AS high,
         arg_max(price, (t.us, t.seq)) AS last, round(sum(price * n) / sum(n)) AS mean, sum(n) AS n, count(*) AS trades,
         count(*) FILTER (is_block) AS blocks, coalesce(sum(n) FILTER (is_block), 0) AS block_n
  FROM periods p JOIN tape t ON t.ticker = p.ticker AND t.us > p.e - {p} AND t.us <= p.e
  GROUP BY p.ticker, p.e
)
SELECT q.ticker, q.e, q.bid_open, least(q.bid_open, q.bid_low), greatest(q.bid_open, q.bid_high), q.bid_close,
       q.ask_open, least(q.ask_open, q.ask_low), greatest(q.ask_open, q.ask_high), q.ask_close,
       t.first, t.low, t.high, t.last, t.mean::bigint,
       (SELECT arg_max(price, (b.us, b.seq)) FROM tape b WHERE b.ticker = q.ticker AND b.us <= q.e - {p}),
       coalesce(t.n, 0)::bigint,
       (SELECT arg_max(open_interest_e2, epoch_us(exchange_ts)) FROM '{tickers}' k
        WHERE k.ticker = q.ticker AND epoch_us(exchange_ts) <= q.e),
       coalesce(t.trades, 0), coalesce(t.blocks, 0), coalesce(t.block_n, 0)::bigint
FROM quoted q LEFT JOIN traded t ON t.ticker = q.ticker AND t.e = q.e
WHERE q.e - {p} >= {low} AND q.e - {p} < {high}
ORDER BY 1, 2
"""
