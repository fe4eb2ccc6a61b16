-- database: production
-- example low: TIMESTAMPTZ '2026-11-20 04:00+00'
-- example high: TIMESTAMPTZ '2026-11-20 05:00+00'
--
-- {low} and {high} are literals of our own making: with bound parameters the driver fetches the whole result at once
-- instead of streaming it.
-- Texts sort by bytes, so that every server gives one order.

-- name: processed_trades
-- One row per trade; prices in 1/10,000 dollar and counts in 1/100 contract, which the export turns into decimals.
-- The identifier as its 16 bytes where it is a UUID, else as the text that it is.
SELECT ticker, exchange_ts,
       CASE WHEN trade_id ~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$' THEN uuid_send(trade_id::uuid) END AS trade_id,
       CASE WHEN trade_id !~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$' THEN trade_id END AS trade_id_text,
       yes_price_e4, no_price_e4, count_e2, taker_side, is_block_trade, created_time, source
FROM trades t
WHERE exchange_ts >= {low} AND exchange_ts < {high}
ORDER BY ticker COLLATE "C", exchange_ts, created_time, gatherer COLLATE "C", stream_id, seq, t.trade_id COLLATE "C"

-- name: processed_trades_expected
-- How many rows processed_trades must give.
SELECT count(*) AS rows FROM trades WHERE exchange_ts >= {low} AND exchange_ts < {high}
