-- Candles that the lake calls complete, beside what quotes and trades give: how many, how many differ, and the first.
-- Parameters: globs of candles, quotes and trades, and the length of the period in µs.
WITH candles AS (
  SELECT *, epoch_us(start_period_ts) AS low, epoch_us(end_period_ts) AS high
  FROM read_parquet($candles, hive_partitioning = false) WHERE is_complete
), quotes AS (
  SELECT ticker, epoch_us(exchange_ts) AS us, coalesce(bid_dollars, 0) AS bid, coalesce(ask_dollars, 1) AS ask,
         (epoch_us(exchange_ts) + $period_us - 1) // $period_us * $period_us AS high
  FROM read_parquet($quotes, hive_partitioning = false)
), inside AS (
  SELECT ticker, high, max(bid) AS bid_high, min(bid) AS bid_low, arg_max(bid, us) AS bid_close,
         max(ask) AS ask_high, min(ask) AS ask_low, arg_max(ask, us) AS ask_close
  FROM quotes GROUP BY ALL
), trades AS (
  SELECT ticker, (us + $period_us - 1) // $period_us * $period_us AS high, us, seq, yes_price_e4, count_e2
  FROM (SELECT ticker, epoch_us(coalesce(created_time, exchange_ts)) AS us, seq, yes_price_e4, count_e2
        FROM read_parquet($trades, hive_partitioning = false))
), traded AS (
  SELECT ticker, high, min(yes_price_e4) AS price_low, max(yes_price_e4) AS price_high, sum(count_e2) AS volume_e2,
         count(*) AS trades, sum(yes_price_e4 * count_e2) / sum(count_e2) AS mean_e4
  FROM trades GROUP BY ALL
), made AS (
  SELECT c.*, t.price_low, t.price_high, coalesce(t.volume_e2, 0) AS volume_e2, coalesce(t.trades, 0) AS made_trades,
         t.mean_e4, b.bid AS bid_open, b.ask AS ask_open,
         greatest(b.bid, i.bid_high) AS bid_high, least(b.bid, i.bid_low) AS bid_low,
         coalesce(i.bid_close, b.bid) AS bid_close,
         greatest(b.ask, i.ask_high) AS ask_high, least(b.ask, i.ask_low) AS ask_low,
         coalesce(i.ask_close, b.ask) AS ask_close
  FROM candles c ASOF JOIN quotes b ON c.ticker = b.ticker AND c.low >= b.us
  LEFT JOIN inside i ON i.ticker = c.ticker AND i.high = c.high
  LEFT JOIN traded t ON t.ticker = c.ticker AND t.high = c.high
), judged AS (
  SELECT *, yes_bid_open_dollars IS DISTINCT FROM bid_open OR yes_bid_high_dollars IS DISTINCT FROM bid_high
         OR yes_bid_low_dollars IS DISTINCT FROM bid_low OR yes_bid_close_dollars IS DISTINCT FROM bid_close
         OR yes_ask_open_dollars IS DISTINCT FROM ask_open OR yes_ask_high_dollars IS DISTINCT FROM ask_high
         OR yes_ask_low_dollars IS DISTINCT FROM ask_low OR yes_ask_close_dollars IS DISTINCT FROM ask_close
         OR price_low_dollars * 10000 IS DISTINCT FROM price_low::decimal(18, 4)
         OR price_high_dollars * 10000 IS DISTINCT FROM price_high::decimal(18, 4)
         OR volume_contracts * 100 <> volume_e2 OR trades <> made_trades
         OR abs(price_mean_dollars * 10000 - mean_e4) > 1 AS differs
  FROM made
)
SELECT count(*), count(*) FILTER (WHERE differs), min(ticker || ' ' || end_period_ts) FILTER (WHERE differs) FROM judged
