-- Statements of the live merge: of gatherers' databases and of production.

-- name: raise_alarm
-- database: production
-- Raises an alarm, or counts it once more and replaces its detail. Parameters: kind, subject, detail.
INSERT INTO merge_alarms AS t (kind, subject, detail) VALUES (%s, %s, %s)
ON CONFLICT (kind, subject) DO UPDATE SET detail = excluded.detail, times = t.times + 1,
last_raised_at = clock_timestamp()

-- name: read_recent_alarms
-- database: production
-- Alarms raised within the last day (or by a clock ahead of ours), one row each.
SELECT kind, subject, detail, times, first_raised_at, last_raised_at FROM merge_alarms
WHERE last_raised_at > clock_timestamp() - INTERVAL '1 day' ORDER BY kind, subject

-- name: read_cursors
-- database: production
-- How far each gatherer was read: one row each.
SELECT gatherer, batch_no, token::text, last_commit_batch_no, last_commit_at FROM merge_cursors

-- name: advance_cursor
-- database: production
-- Moves the cursor of a gatherer; no row where another merge moved it meanwhile. `keep`: nothing was new, so the batch
-- that it stands at stays.
-- example keep: false
INSERT INTO merge_cursors AS t (gatherer, batch_no, rows_read, token, last_commit_batch_no, last_commit_at)
VALUES (%(name)s, %(until)s, %(rows)s, %(token)s, %(last_no)s, %(last_at)s)
ON CONFLICT (gatherer) DO UPDATE SET batch_no = excluded.batch_no, merged_at = clock_timestamp(),
rows_read = t.rows_read + excluded.rows_read, last_error = NULL,
token = CASE WHEN %(keep)s THEN t.token ELSE excluded.token END,
last_commit_batch_no = CASE WHEN %(keep)s THEN t.last_commit_batch_no ELSE excluded.last_commit_batch_no END,
last_commit_at = CASE WHEN %(keep)s THEN t.last_commit_at ELSE excluded.last_commit_at END
WHERE t.batch_no = %(cursor)s AND t.token IS NOT DISTINCT FROM %(cursor_token)s::uuid

-- name: record_read_error
-- database: production
-- Records why a gatherer could not be read; its cursor stays.
INSERT INTO merge_cursors AS t (gatherer, batch_no, last_error, last_error_at)
VALUES (%(name)s, 0, %(error)s, clock_timestamp())
ON CONFLICT (gatherer) DO UPDATE SET last_error = excluded.last_error,
last_error_at = excluded.last_error_at

-- name: read_batch_counter
-- database: timeseries
-- The newest batch: its number and token. The live row is found at the end of the index.
SELECT last_batch_no, last_token::text AS token FROM batch_counter ORDER BY last_batch_no DESC LIMIT 1

-- name: read_batch_tokens
-- database: timeseries
-- The tokens under a batch number: one row per line of the batch.
SELECT token::text AS token FROM batches WHERE batch_no = $1

-- name: read_commit_times
-- database: timeseries
-- When the lines of a batch were committed.
SELECT committed_at FROM batches WHERE batch_no = $1

-- name: find_oldest_batch
-- database: timeseries
-- The lowest batch number that is left; null without any.
SELECT min(batch_no) FROM batches

-- name: read_batches
-- database: timeseries
-- Lines of batches after $1, by number, at most $2.
SELECT batch_no, table_name, rows, time_min, time_max, committed_at, token::text, bytes FROM batches
WHERE batch_no > $1 ORDER BY batch_no, table_name LIMIT $2

-- name: read_age
-- database: timeseries
-- Seconds since a moment, by this database's clock.
SELECT extract(epoch FROM clock_timestamp() - $1::timestamptz)::float8

-- name: find_misdated_deltas
-- database: production
-- Markets with deltas of implausible times that were received in [low, high) or within `before` after it.
-- example before: INTERVAL '1 minute'
-- example low: TIMESTAMPTZ '2026-11-20'
-- example high: TIMESTAMPTZ '2026-11-20'
SELECT ticker, first_received_at, last_received_at, deltas FROM misdated_deltas
WHERE hour >= %(low)s AND hour <= %(high)s AND first_received_at - %(before)s < %(high)s
AND last_received_at >= %(low)s ORDER BY 1, 2

-- name: count_dead_letters
-- database: production
-- How many dead letters are kept of a gatherer and table.
SELECT count(*) FROM dead_letters WHERE gatherer = %s AND table_name = %s

-- name: upsert_dead_letters
-- database: production
-- One row per distinct row that was refused; one that comes again gets the newer reason.
INSERT INTO dead_letters (gatherer, table_name, fingerprint, reason, detail, payload) VALUES %s
ON CONFLICT (gatherer, table_name, fingerprint)
DO UPDATE SET reason = excluded.reason, detail = excluded.detail

-- name: record_misdated_deltas
-- database: production
-- Adds up deltas of implausible times by hour of receipt and market.
INSERT INTO misdated_deltas AS t (hour, ticker, deltas, first_received_at, last_received_at) VALUES %s
ON CONFLICT (hour, ticker) DO UPDATE SET deltas = t.deltas + excluded.deltas,
first_received_at = least(t.first_received_at, excluded.first_received_at),
last_received_at = greatest(t.last_received_at, excluded.last_received_at)

-- name: take_merge_no
-- database: production
-- The next merge number, counted in this transaction.
SELECT next_merge_no()

-- name: record_activity
-- database: production
-- Adds up rows by hour and table, with the number of the merge.
-- example row: (now(), 'trades', 1::bigint, 1::bigint)
INSERT INTO hour_activity AS t (hour, table_name, rows_inserted, last_merged_at, last_merge_no)
SELECT v.hour, v.table_name, v.rows, clock_timestamp(), v.number
FROM (VALUES %s) AS v (hour, table_name, rows, number)
ON CONFLICT (hour, table_name) DO UPDATE SET rows_inserted = t.rows_inserted + excluded.rows_inserted,
last_merged_at = excluded.last_merged_at,
last_merge_no = greatest(t.last_merge_no, excluded.last_merge_no)

-- name: reopen_hours
-- database: production
-- Gives closed hours a newer merge number than their close. Parameter: hours.
INSERT INTO hour_activity AS t (hour, table_name, rows_inserted, last_merged_at, last_merge_no)
SELECT c.hour, 'book_checkpoints', 0, clock_timestamp(), n.number
FROM (SELECT next_merge_no() AS number) n CROSS JOIN hour_closes c WHERE c.hour = ANY (%s)
ON CONFLICT (hour, table_name) DO UPDATE SET last_merged_at = excluded.last_merged_at,
last_merge_no = excluded.last_merge_no

-- name: lock_merge
-- database: production
-- Waits for other merges and closes until the end of the transaction. Parameter: the name of the lock.
SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))

-- name: disable_nested_loops
-- database: production
-- The staged rows have no statistics; nested loops over a minute of trades for each of them would be chosen.
SET LOCAL enable_nestloop = off

-- name: find_partitions
-- database: timeseries
-- The times of a table's partitions, ascending: low, high. No row where they are not named by their time.
SELECT to_timestamp(right(c.relname, 10), 'YYYYMMDDHH24') AS low,
to_timestamp(right(c.relname, 10), 'YYYYMMDDHH24') + s.partition_span AS high
FROM series_tables s JOIN pg_inherits i ON i.inhparent = to_regclass(quote_ident(s.table_name))
JOIN pg_class c ON c.oid = i.inhrelid WHERE s.table_name = $1 AND c.relname ~ '_p[0-9]{10}$' ORDER BY 1

-- name: estimate_rows
-- database: timeseries
-- Rows and bytes by table of batches that reach into [$1, $2). The condition is that of the index.
SELECT table_name, sum(rows)::bigint AS rows, sum(bytes)::bigint AS bytes FROM batches
WHERE tstzrange(least(time_min, time_max), greatest(time_min, time_max), '[]') && tstzrange($1, $2)
GROUP BY 1

-- name: find_incomplete_tables
-- database: timeseries
-- example 1: ARRAY['trades']
-- Those of these tables of which less is there of [$2, $3) than the ledger recorded.
SELECT name FROM unnest($1) AS t (name) WHERE EXISTS (SELECT FROM hours_gone(name, $2, $3))
OR missing_rows(name, $2, $3) > 0

-- name: find_last_dropped_hour
-- database: timeseries
-- The last hour of [$1, $2) whose deltas are gone; null where none is.
SELECT max(h) AS hour FROM hours_gone('orderbook_deltas', $1, $2) h

-- name: read_identity
-- database: timeseries
-- What names this database however it is reached: system identifier and oid.
SELECT (pg_control_system()).system_identifier::text || '/' || oid::text FROM pg_database
WHERE datname = current_database()

-- name: read_rows_of_batches
-- database: timeseries
-- Rows of a table that were committed with $1 < batch_no <= $2 and whose {time} lies in [$3, $4], in any order.
-- example columns: ticker, exchange_ts
-- example table: trades
-- example time: exchange_ts
SELECT {columns} FROM {table} WHERE batch_no > $1 AND batch_no <= $2 AND {time} BETWEEN $3 AND $4

-- name: read_rows_between
-- database: timeseries
-- Rows of a table whose {time} lies in [$1, $2), in any order.
-- example columns: ticker, exchange_ts
-- example table: trades
-- example time: exchange_ts
SELECT {columns} FROM {table} WHERE {time} >= $1 AND {time} < $2

-- name: without_equal
-- database: production
-- The condition of an insert on its staged rows s: no row of the table has the same {market} and {name} within
-- {window_us} of its time. The constant range [low, high] keeps the search to the partitions that can hold such a row.
-- example rows: trades
-- example table: trades
-- example market: ticker
-- example name: trade_id
-- example time: exchange_ts
-- example low: TIMESTAMPTZ '2026-11-20'
-- example high: TIMESTAMPTZ '2026-11-21'
-- example window_us: 1000000
WHERE NOT EXISTS (SELECT FROM {table} o WHERE o.{market} = s.{market} AND o.{name} = s.{name}
    AND o.{time} BETWEEN {low} AND {high}
    AND o.{time} BETWEEN s.{time} - {window_us} * INTERVAL '1 microsecond'
        AND s.{time} + {window_us} * INTERVAL '1 microsecond')

-- name: find_lacking_columns
-- database: production
-- Which columns some rows of [low, high) lack; no rows lack none. One row: a column each.
-- example table: trades
-- example time: exchange_ts
-- example are_lacking: bool_or(taker_side IS NULL), bool_or(created_time IS NULL)
-- example low: TIMESTAMPTZ '2026-11-23 04:00'
-- example high: TIMESTAMPTZ '2026-11-23 05:00'
SELECT {are_lacking} FROM {table} WHERE {time} >= %(low)s AND {time} < %(high)s

-- name: fill_lacking_columns
-- database: production
-- Gives rows of [low, high) the staged values that they lack. Its row count is how many.
-- example table: trades
-- example stage: trades
-- example time: exchange_ts
-- example values: taker_side = coalesce(t.taker_side, s.taker_side)
-- example key: t.exchange_ts = s.exchange_ts AND t.ticker = s.ticker AND t.trade_id = s.trade_id
-- example is_lacking: t.taker_side IS NULL AND s.taker_side IS NOT NULL
-- example low: TIMESTAMPTZ '2026-11-23 04:00'
-- example high: TIMESTAMPTZ '2026-11-23 05:00'
UPDATE {table} t SET {values} FROM {stage} s
WHERE {key} AND t.{time} >= %(low)s AND t.{time} < %(high)s AND ({is_lacking})
