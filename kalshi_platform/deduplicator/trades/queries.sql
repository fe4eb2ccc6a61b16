-- database: production
--
-- Production's trades against the exchange's listing of one hour, which stands in trade_listing. Parameters: hour, low
-- and high (a minute before the hour and after it: the two sides may put a trade a little apart), until (its end).
-- A trade is named by ticker and trade_id; an id never comes back, so that a match needs no time.

-- name: delete_listing
-- Empties the listing of an hour.
DELETE FROM trade_listing WHERE hour = %(hour)s

-- name: count_listing
-- How many trades the listing holds, and how many of them are of the hour itself.
SELECT count(*), count(*) FILTER (WHERE exchange_ts >= %(hour)s AND exchange_ts < %(until)s)
FROM trade_listing WHERE hour = %(hour)s

-- name: delete_parity
-- Removes the comparison of an hour that a newer one replaces.
DELETE FROM trade_parity WHERE hour = %(hour)s

-- name: insert_parity
-- Writes one row per market-hour and kind of trade that either side has. Its row count is the number of those.
WITH held AS (
  SELECT exchange_ts, ticker, trade_id, yes_price_e4, count_e2, is_block_trade, source
  FROM trades WHERE exchange_ts >= %(low)s AND exchange_ts < %(high)s
), listed AS (
  SELECT exchange_ts, ticker, trade_id, yes_price_e4, count_e2, is_block_trade
  FROM trade_listing WHERE hour = %(hour)s
), held_once AS (
  SELECT DISTINCT ON (ticker, trade_id) ticker, trade_id, yes_price_e4, count_e2, is_block_trade FROM held
  ORDER BY ticker, trade_id, exchange_ts
), ours AS (
  SELECT h.ticker, h.is_block_trade, count(*) AS trades, sum(h.count_e2) AS volume_e2,
         count(*) FILTER (WHERE l.trade_id IS NULL) AS unlisted, count(*) FILTER (WHERE h.source = 'rest') AS from_rest
  FROM held h LEFT JOIN listed l USING (ticker, trade_id)
  WHERE h.exchange_ts >= %(hour)s AND h.exchange_ts < %(until)s
  GROUP BY h.ticker, h.is_block_trade
), theirs AS (
  SELECT l.ticker, l.is_block_trade, count(*) AS trades, sum(l.count_e2) AS volume_e2,
         count(*) FILTER (WHERE h.trade_id IS NULL) AS missing,
         count(*) FILTER (WHERE (h.yes_price_e4, h.count_e2, h.is_block_trade)
                             <> (l.yes_price_e4, l.count_e2, l.is_block_trade)) AS differing
  FROM listed l LEFT JOIN held_once h USING (ticker, trade_id)
  WHERE l.exchange_ts >= %(hour)s AND l.exchange_ts < %(until)s
  GROUP BY l.ticker, l.is_block_trade
)
INSERT INTO trade_parity
SELECT %(hour)s, ticker, is_block_trade,
       coalesce(o.trades, 0), coalesce(o.volume_e2, 0), coalesce(t.trades, 0), coalesce(t.volume_e2, 0),
       coalesce(t.missing, 0), coalesce(o.unlisted, 0), coalesce(t.differing, 0),
       coalesce(o.from_rest, 0) + coalesce(t.missing, 0),
       CASE WHEN o.unlisted > 0 OR t.differing > 0 THEN 'differs' WHEN t.missing > 0 THEN 'filled' ELSE 'complete' END,
       clock_timestamp()
FROM ours o FULL JOIN theirs t USING (ticker, is_block_trade)

-- name: insert_missing_trades
-- Inserts the listed trades of the hour that production lacks. Its row count is the number of those.
INSERT INTO trades (exchange_ts, ticker, trade_id, yes_price_e4, no_price_e4, count_e2, taker_side, is_block_trade,
  created_time, source, gatherer, stream_id, seq, received_at)
SELECT l.exchange_ts, l.ticker, l.trade_id, l.yes_price_e4, l.no_price_e4, l.count_e2, l.taker_side, l.is_block_trade,
       l.created_time, 'rest', %(gatherer)s, 0, 0, l.received_at
FROM trade_listing l
WHERE l.hour = %(hour)s AND l.exchange_ts >= %(hour)s AND l.exchange_ts < %(until)s
  AND NOT EXISTS (SELECT 1 FROM trades h WHERE h.exchange_ts >= %(low)s AND h.exchange_ts < %(high)s
                    AND h.ticker = l.ticker AND h.trade_id = l.trade_id)
ON CONFLICT DO NOTHING

-- name: find_missing_created_times
-- Whether set_created_times has anything to do: with TimescaleDB it decompresses every row of an old day that it might
-- concern.
SELECT EXISTS (
  SELECT FROM trades t JOIN trade_listing l ON l.ticker = t.ticker AND l.trade_id = t.trade_id
  WHERE l.hour = %(hour)s AND l.created_time IS NOT NULL AND t.exchange_ts >= %(hour)s AND t.exchange_ts < %(until)s
    AND t.created_time IS DISTINCT FROM l.created_time)

-- name: set_created_times
-- Gives the trades of the hour the exchange's own time to the microsecond, which orders those of one millisecond. Its row
-- count is the number of those that changed.
UPDATE trades t SET created_time = l.created_time
FROM trade_listing l
WHERE l.hour = %(hour)s AND l.created_time IS NOT NULL AND t.exchange_ts >= %(hour)s AND t.exchange_ts < %(until)s
  AND t.ticker = l.ticker AND t.trade_id = l.trade_id AND t.created_time IS DISTINCT FROM l.created_time

-- name: sum_parity
-- Of the hour: trades of production before, listed, inserted, only in production, differing.
SELECT coalesce(sum(production_count), 0)::bigint, coalesce(sum(rest_count), 0)::bigint,
       coalesce(sum(inserted), 0)::bigint, coalesce(sum(only_in_production), 0)::bigint,
       coalesce(sum(differing), 0)::bigint
FROM trade_parity WHERE hour = %(hour)s

-- name: record_check
-- Writes the result of the comparison of an hour; the newest one stands.
INSERT INTO trade_checks AS t (hour, state, checked_at, reason, production_count, rest_count, inserted,
  only_in_production, differing, skipped)
VALUES (%(hour)s, %(state)s, clock_timestamp(), %(reason)s, %(production_count)s, %(rest_count)s, %(inserted)s,
  %(only_in_production)s, %(differing)s, %(skipped)s)
ON CONFLICT (hour) DO UPDATE SET state = excluded.state, checked_at = excluded.checked_at, reason = excluded.reason,
  production_count = excluded.production_count, rest_count = excluded.rest_count, inserted = excluded.inserted,
  only_in_production = excluded.only_in_production, differing = excluded.differing, skipped = excluded.skipped

-- name: record_not_checked
-- An hour that could be checked before keeps that result as long as it holds as many trades as it did then.
INSERT INTO trade_checks AS t (hour, state, checked_at, reason)
VALUES (%(hour)s, 'not checked', clock_timestamp(), %(reason)s)
ON CONFLICT (hour) DO UPDATE SET state = excluded.state, checked_at = excluded.checked_at, reason = excluded.reason,
  production_count = excluded.production_count, rest_count = excluded.rest_count, inserted = excluded.inserted,
  only_in_production = excluded.only_in_production, differing = excluded.differing, skipped = excluded.skipped
WHERE t.state = 'not checked' OR t.production_count + t.inserted
  <> (SELECT count(*) FROM trades WHERE exchange_ts >= %(hour)s AND exchange_ts < %(until)s)

-- name: find_checked_hours
-- Hours of [low, high) that a check has found complete, or made so, since a moment.
SELECT hour FROM trade_checks
WHERE hour >= %(low)s AND hour < %(high)s AND state IN ('complete', 'filled') AND checked_at >= %(since)s
