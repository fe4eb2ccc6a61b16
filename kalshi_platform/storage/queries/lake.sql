-- database: production
-- example low: TIMESTAMPTZ '2026-11-20 04:00+00'
-- example high: TIMESTAMPTZ '2026-11-20 05:00+00'
-- example hour: TIMESTAMPTZ '2026-11-20 04:00+00'
-- example since: TIMESTAMPTZ '2026-11-20 04:00+00'
-- example table: 'trades'
--
-- Reads of production for exports. {low} and {high} are literals of our own making: with bound parameters the driver
-- fetches the whole result at once instead of streaming it. Texts sort by bytes, so that every server gives one order.

-- name: raw_rows
-- The rows of a raw table within [low, high), in the columns of its data set, in any order.
-- example source: trades
-- example time: exchange_ts
-- example columns: ticker, exchange_ts, trade_id
SELECT {columns} FROM {source} WHERE {time} >= {low} AND {time} < {high}

-- name: raw_rows_by_ticker
-- How many rows of a raw table lie within [low, high): one row per market, ticker and rows.
-- example source: trades
-- example time: exchange_ts
SELECT ticker, count(*) AS rows FROM {source} WHERE {time} >= {low} AND {time} < {high} GROUP BY ticker

-- name: closes
-- One row per hour of [low, high): active says whether rows came, closed_at when it was closed last (or null), close_no
-- and close_id which close that was, reopened whether rows came after it.
SELECT h.hour, coalesce(s.is_active, false) AS active, s.closed_at, s.close_no, s.close_id::text AS close_id,
       coalesce(s.reopened, false) AS reopened
FROM generate_series({low}, {high} - INTERVAL '1 microsecond', INTERVAL '1 hour') AS h (hour)
LEFT JOIN hour_states({low}, {high}) AS s USING (hour)
ORDER BY h.hour

-- name: recently_closed
-- Hours since a moment that are closed, and older ones that were closed (again) since.
SELECT hour FROM hour_closes WHERE hour >= {since} OR closed_at >= {since} ORDER BY hour

-- name: closed_rows
-- One row per closed hour of [low, high): how many rows of a table its close counted (null: not counted), and whether
-- rows of it are gone.
SELECT hour, rows, is_gone FROM closed_rows({table}, {low}, {high})

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

-- name: coverage
-- The coverage share of an hour; null where no market was recorded or open.
SELECT share FROM hour_coverage_share({hour})
