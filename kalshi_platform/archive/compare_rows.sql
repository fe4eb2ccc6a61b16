-- database: timeseries
--
-- Rows that were decoded again, beside those of a gatherer's table. The staged ones are those of one table; `low` and
-- `high` bound their times, so that only their partitions are touched.
-- example table: tickers
-- example stage: tickers
-- example key: t.exchange_ts = s.exchange_ts AND t.ticker = s.ticker AND t.fingerprint = s.fingerprint
-- example time: exchange_ts
-- example low: TIMESTAMPTZ '2026-11-23 04:00'
-- example high: TIMESTAMPTZ '2026-11-23 05:00'

-- name: compare_rows
-- Counts staged rows: all; those that are in the table; of these those that a frame of their own made; those that lack a
-- value that is staged; those with another value; then for each column both of these counts. One row.
-- example is_own: t.stream_id = s.stream_id AND t.seq = s.seq
-- example is_lacking: t.price_e4 IS NULL AND s.price_e4 IS NOT NULL
-- example is_different: t.price_e4 IS NOT NULL AND t.price_e4 IS DISTINCT FROM s.price_e4
-- example by_column: count(*) FILTER (WHERE t.price_e4 IS NULL), count(*) FILTER (WHERE t.price_e4 IS NOT NULL)
SELECT count(*), count(t.{time}), count(t.{time}) FILTER (WHERE {is_own}),
  count(t.{time}) FILTER (WHERE ({is_lacking}) AND NOT ({is_different})), count(t.{time}) FILTER (WHERE {is_different}),
  {by_column}
FROM {stage} s LEFT JOIN {table} t ON {key} AND t.{time} BETWEEN %(low)s AND %(high)s

-- name: change_rows
-- Gives rows of the table the staged values. They keep their batch, whose line counts them. Its row count is how many.
-- example values: price_e4 = coalesce(t.price_e4, s.price_e4)
-- example is_wanted: t.price_e4 IS NULL AND s.price_e4 IS NOT NULL
UPDATE {table} t SET {values} FROM {stage} s
WHERE {key} AND t.{time} BETWEEN %(low)s AND %(high)s AND ({is_wanted})

-- name: insert_missing
-- Inserts staged rows that the table lacks, under a new batch number. Its row count is how many.
-- example columns: exchange_ts, ticker, fingerprint, stream_id, seq, received_at
-- example staged: s.exchange_ts, s.ticker, s.fingerprint, s.stream_id, s.seq, s.received_at
-- example batch_no: 7
INSERT INTO {table} ({columns}, batch_no) SELECT {staged}, %(batch_no)s FROM {stage} s ON CONFLICT DO NOTHING

-- name: count_received
-- How many rows of the table were received in [since, until), of those with times from low to high. One row.
-- example since: TIMESTAMPTZ '2026-11-23 04:00'
-- example until: TIMESTAMPTZ '2026-11-23 05:00'
SELECT count(*) FROM {table}
WHERE received_at >= %(since)s AND received_at < %(until)s AND {time} BETWEEN %(low)s AND %(high)s
