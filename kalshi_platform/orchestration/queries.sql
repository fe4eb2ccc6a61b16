-- database: production
-- example low: TIMESTAMPTZ '2026-11-20'
-- example high: TIMESTAMPTZ '2026-11-21'
-- example hours: ARRAY[TIMESTAMPTZ '2026-11-20']
--
-- Statements of asset bodies, checks and schedules. {table} and {column} are filled in with names of this platform's own.

-- name: count_rows
-- One row: the number of rows of a table with low <= time < high, and the times of the first and the last one.
-- example table: trades
-- example column: exchange_ts
SELECT count(*), min({column}), max({column}) FROM {table} WHERE {column} >= %(low)s AND {column} < %(high)s

-- name: newest_close
-- One row: the highest number of a close.
SELECT coalesce(max(close_no), 0) FROM hour_closes

-- name: hours_closed_after
-- The hours whose latest close has a higher number, ascending.
-- example close_no: 0
SELECT hour FROM hour_closes WHERE close_no > %(close_no)s ORDER BY hour

-- name: count_catalog_rows
-- database: catalog
-- One row: the number of series, events or markets of a gatherer's catalog.
-- example table: markets
SELECT count(*) FROM {table}

-- name: count_merged_catalog_rows
-- One row: the number of merged series, events or markets, the first sight of any, and the newest knowledge of any.
-- example table: markets
SELECT count(*), min(first_seen_at), max(known_at) FROM {table}

-- name: read_last_sync
-- database: catalog
-- One row: when the last sync of the markets ended, also one that was not whole (listing again at once brings the same),
-- and when the last one began that has neither ended nor failed; nulls without one.
SELECT max(finished_at), max(started_at) FILTER (WHERE finished_at IS NULL AND error IS NULL)
FROM catalog_syncs WHERE what = 'markets' AND scope IN ('full', 'incremental')

-- name: sum_trade_checks
-- One row per state of the last comparison of these hours with the exchange's listing (not checked: there was none):
-- state, hours, and sums of trades over them: listed, inserted, only in production, with other values.
SELECT coalesce(c.state, 'not checked'), count(*), sum(c.rest_count), sum(c.inserted), sum(c.only_in_production),
       sum(c.differing)
FROM unnest(%(hours)s::timestamptz[]) AS h (hour) LEFT JOIN trade_checks c USING (hour)
GROUP BY 1

-- name: list_differing_markets
-- The market-hours of these hours in which production and the listing do not agree, the largest first, at most `most`
-- rows: hour, ticker, whether block trades, trades only in production, trades with other values.
-- example most: 20
SELECT hour, ticker, is_block_trade, only_in_production, differing
FROM trade_parity WHERE hour = ANY (%(hours)s::timestamptz[]) AND state = 'differs'
ORDER BY only_in_production + differing DESC, hour, ticker LIMIT %(most)s

-- name: list_closed_hours
-- One row per closed hour of [low, high): hour.
SELECT hour FROM hour_closes WHERE hour >= %(low)s AND hour < %(high)s

-- name: list_days_to_compare
-- One row per UTC day of [low, high) with a closed hour that was not compared with the listing, or not wholly; ascending.
SELECT DISTINCT date_trunc('day', h.hour, 'UTC')
FROM hour_closes h LEFT JOIN trade_checks c USING (hour)
WHERE h.hour >= %(low)s AND h.hour < %(high)s AND coalesce(c.state, 'not checked') IN ('not checked', 'partial')
ORDER BY 1

-- name: count_trades
-- One row: the number of trades in [low, high), and of distinct (ticker, trade_id) among them.
SELECT count(*), count(DISTINCT (ticker, trade_id)) FROM trades
WHERE exchange_ts >= %(low)s AND exchange_ts < %(high)s

-- name: read_newest_hours
-- One row: the newest hour of [low, high) that got rows, the newest of [low, day_end) (which ends with a day), and the
-- newest closed hour; nulls without one.
-- example day_end: TIMESTAMPTZ '2026-11-20'
SELECT (SELECT max(hour) FROM hour_activity WHERE hour >= %(low)s AND hour < %(high)s),
       (SELECT max(hour) FROM hour_activity WHERE hour >= %(low)s AND hour < %(day_end)s),
       (SELECT max(hour) FROM hour_closes)
