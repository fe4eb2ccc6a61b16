-- database: production
-- example low: TIMESTAMPTZ '2026-11-20 04:00+00'
-- example high: TIMESTAMPTZ '2026-11-20 05:00+00'
-- example source: trades
-- example time: exchange_ts
--
-- {low} and {high} are literals of our own making: with bound parameters the driver fetches the whole result at once
-- instead of streaming it.

-- name: raw_rows
-- The rows of a raw table within [low, high), in the columns of its data set, in any order.
-- example columns: ticker, exchange_ts, trade_id
SELECT {columns} FROM {source} WHERE {time} >= {low} AND {time} < {high}

-- name: raw_rows_by_ticker
-- How many rows of a raw table lie within [low, high): one row per market, ticker, rows and the hash of the ticker.
SELECT ticker, count(*) AS rows, hashtextextended(ticker, 0) AS hash
FROM {source} WHERE {time} >= {low} AND {time} < {high} GROUP BY ticker

-- name: texts_at
-- The texts of a column at some times, with their hashes: text and hash.
-- example column: ticker
-- example moments: ARRAY[TIMESTAMPTZ '2026-11-20 04:00+00']
SELECT DISTINCT {column} AS text, hashtextextended({column}, 0) AS hash FROM {source} WHERE {time} = ANY({moments})

-- name: source_row_count
-- How many rows of a table lie within [low, high): one row, rows.
SELECT count(*) AS rows FROM {source} WHERE {time} >= {low} AND {time} < {high}

-- name: raw_rows_between
-- The rows of a raw table within [low, high), in its data set's columns and order, of all markets or of those named.
-- example columns: ticker, exchange_ts, trade_id
-- example tickers: NULL::text[]
-- example order: ticker COLLATE "C", exchange_ts
SELECT {columns} FROM {source}
WHERE {time} >= {low} AND {time} < {high} AND ({tickers} IS NULL OR ticker = ANY ({tickers}))
ORDER BY {order}
