-- database: production
-- example low: TIMESTAMPTZ '2026-11-20 04:00+00'
-- example high: TIMESTAMPTZ '2026-11-20 05:00+00'
--
-- {low} and {high} are literals of our own making: with bound parameters the driver fetches the whole result at once
-- instead of streaming it.
-- Texts sort by bytes, so that every server gives one order.

-- name: candles_1m
-- One row per market and minute with a trade. Trades of one millisecond follow each other by the time that REST gave
-- them where it did, then as their stream sent them; their identifier is random and says nothing.
SELECT ticker,
       date_bin('1 minute', exchange_ts, TIMESTAMPTZ '2000-01-01 00:00:00+00') AS minute,
       (array_agg(yes_price_e4 ORDER BY exchange_ts, created_time, gatherer COLLATE "C", stream_id, seq)
          FILTER (WHERE NOT is_block_trade))[1] AS open_e4,
       max(yes_price_e4) FILTER (WHERE NOT is_block_trade) AS high_e4,
       min(yes_price_e4) FILTER (WHERE NOT is_block_trade) AS low_e4,
       (array_agg(yes_price_e4 ORDER BY exchange_ts DESC, created_time DESC, gatherer COLLATE "C" DESC,
                                stream_id DESC, seq DESC)
          FILTER (WHERE NOT is_block_trade))[1] AS close_e4,
       coalesce(sum(count_e2) FILTER (WHERE NOT is_block_trade), 0)::bigint AS volume_e2,
       count(*) FILTER (WHERE NOT is_block_trade) AS trades,
       coalesce(sum(count_e2) FILTER (WHERE is_block_trade), 0)::bigint AS block_volume_e2,
       count(*) FILTER (WHERE is_block_trade) AS block_trades
FROM trades
WHERE exchange_ts >= {low} AND exchange_ts < {high}
GROUP BY ticker, 2
ORDER BY ticker COLLATE "C", 2

-- name: candles_1m_expected
-- How many rows candles_1m must give.
SELECT count(*) AS rows
FROM (SELECT DISTINCT ticker, date_bin('1 minute', exchange_ts, TIMESTAMPTZ '2000-01-01 00:00:00+00')
      FROM trades WHERE exchange_ts >= {low} AND exchange_ts < {high}) AS minutes
