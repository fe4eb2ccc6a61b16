-- Reads of a demo that begins in the past.

-- name: recorded_until
-- database: timeseries
-- The time of the newest delta that a gatherer has committed; null before the first. One row.
SELECT max(exchange_ts) FROM orderbook_deltas
