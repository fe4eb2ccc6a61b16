-- Reads of a demo that begins in the past.

-- name: recorded_until
-- database: timeseries
-- The time of the newest delta that a gatherer has committed; null before the first. One row.
SELECT max(exchange_ts) FROM orderbook_deltas

-- name: busiest_market
-- database: production
-- example low: TIMESTAMPTZ '2026-11-20'
-- example high: TIMESTAMPTZ '2026-11-21'
-- The market with most trades in [low, high); no row without trades.
SELECT ticker FROM trades WHERE exchange_ts >= %(low)s AND exchange_ts < %(high)s
GROUP BY ticker ORDER BY count(*) DESC, ticker LIMIT 1
