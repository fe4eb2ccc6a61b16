-- database: production
-- example low: TIMESTAMPTZ '2026-11-20 04:00+00'
-- example high: TIMESTAMPTZ '2026-11-20 05:00+00'
--
-- {low} and {high} are literals of our own making: with bound parameters the driver fetches the whole result at once
-- instead of streaming it.
-- Texts sort by bytes, so that every server gives one order.

-- name: processed_trades
-- One row per trade; prices in 1/10,000 dollar and counts in 1/100 contract, which the export turns into decimals.
SELECT ticker, exchange_ts, trade_id, yes_price_e4, no_price_e4, count_e2, taker_side, is_block_trade, created_time,
       source
FROM trades
WHERE exchange_ts >= {low} AND exchange_ts < {high}
ORDER BY ticker COLLATE "C", exchange_ts, created_time, gatherer COLLATE "C", stream_id, seq, trade_id COLLATE "C"

-- name: processed_trades_expected
-- How many rows processed_trades must give.
SELECT count(*) AS rows FROM trades WHERE exchange_ts >= {low} AND exchange_ts < {high}
