-- database: production
--
-- Statements of retention: of gatherers' databases and of production.
--
-- example low: TIMESTAMPTZ '2026-11-20 04:00+00'
-- example high: TIMESTAMPTZ '2026-11-20 05:00+00'
-- example before: TIMESTAMPTZ '2026-11-20'

-- name: read_verification
-- database: production
-- The manifest of a partition of the lake as it was when it was read back, and when that was. Parameters: lake, partition.
SELECT manifest_sha256, verified_at FROM lake_verifications WHERE lake = %s AND partition = %s

-- name: record_verification
-- database: production
-- Records that a partition of the lake was read back.
-- example starts_at: TIMESTAMPTZ '2026-11-20'
-- example now: TIMESTAMPTZ '2026-11-20'
INSERT INTO lake_verifications (lake, partition, starts_at, manifest_sha256, rows, bytes, verified_at)
VALUES (%(lake)s, %(partition)s, %(starts_at)s, %(digest)s, %(rows)s, %(bytes)s, %(now)s)
ON CONFLICT (lake, partition) DO UPDATE SET manifest_sha256 = excluded.manifest_sha256, rows = excluded.rows,
bytes = excluded.bytes, verified_at = excluded.verified_at

-- name: find_old_partitions
-- database: production
-- Partitions of a table that end at or before a moment, oldest first. Parameters: table, moment.
-- example 1: 'trades'
-- example 2: TIMESTAMPTZ '2026-11-20'
SELECT low, high, bytes FROM table_partitions(%s) WHERE high <= %s ORDER BY low

-- name: count_rows_by_hour
-- database: production
-- How many rows of a table lie in each hour of [low, high): one row per hour with any.
-- example table: trades
-- example time: exchange_ts
SELECT date_trunc('hour', {time}, 'UTC') AS hour, count(*) FROM {table} WHERE {time} >= %s AND {time} < %s
GROUP BY 1 ORDER BY 1

-- name: has_rows_between
-- database: production
-- Whether a table has a row within [low, high).
-- example table: trades
-- example time: exchange_ts
SELECT EXISTS (SELECT FROM {table} WHERE {time} >= %s AND {time} < %s)

-- name: set_lock_timeout
-- How long this transaction waits for a lock. Parameter: milliseconds, as text.
SELECT set_config('lock_timeout', %s, true)

-- name: lock_partition
-- database: production
-- Takes a partition for this transaction alone; false where there is none. Parameters: table, low, high.
-- example 1: 'trades'
-- example 2: TIMESTAMPTZ '2026-11-20'
-- example 3: TIMESTAMPTZ '2026-11-21'
SELECT lock_partition(%s, %s, %s)

-- name: drop_partition
-- database: production
-- Drops a partition and records its hours; false where there is none. Parameters: table, low, high.
-- example 1: 'trades'
-- example 2: TIMESTAMPTZ '2026-11-20'
-- example 3: TIMESTAMPTZ '2026-11-21'
SELECT drop_partition(%s, %s, %s)

-- name: find_changed_hours
-- database: production
-- Of these hours, those whose close is another one now, or after whose close something came. Parameters: hours, what
-- their closes were called.
SELECT w.hour FROM unnest(%s::timestamptz[], %s::text[]) AS w (hour, close_id)
LEFT JOIN hour_closes c USING (hour)
WHERE c.close_id::text IS DISTINCT FROM w.close_id
   OR EXISTS (SELECT FROM hour_activity a WHERE a.hour = w.hour AND a.last_merge_no > c.close_no)
ORDER BY w.hour

-- name: find_dropped_hours
-- database: production
-- Hours of [low, high) of which rows of a table were dropped before, and did not all come back. Parameters: table, low, high.
-- example 1: 'trades'
-- example 2: TIMESTAMPTZ '2026-11-20 04:00+00'
-- example 3: TIMESTAMPTZ '2026-11-20 05:00+00'
SELECT hour FROM dropped_hours WHERE table_name = %s AND hour >= %s AND hour < %s

-- name: read_activity
-- database: production
-- What came to the hours of [low, high) of a table so far: rows and the last merge, and each hour's last close.
SELECT hour, rows_inserted, last_merge_no FROM hour_activity
WHERE table_name = %(table)s AND hour >= %(low)s AND hour < %(high)s
UNION ALL SELECT hour, -1, close_no FROM hour_closes WHERE hour >= %(low)s AND hour < %(high)s
ORDER BY 1, 2, 3

-- name: read_cursor
-- database: production
-- How far production has read a gatherer: batch and its token. Parameter: gatherer.
SELECT batch_no, token::text FROM merge_cursors WHERE gatherer = %s

-- name: is_read_batch
-- database: timeseries
-- Whether the batch of this number is the one that production has read.
-- example token: '00000000-0000-0000-0000-000000000000'
SELECT EXISTS (SELECT FROM batches WHERE batch_no = %(batch_no)s AND token = %(token)s::uuid)
OR EXISTS (SELECT FROM batch_counter WHERE last_batch_no = %(batch_no)s AND last_token = %(token)s::uuid)

-- name: has_unread_batch
-- database: timeseries
-- Whether a batch after the last one that production has read reaches into [low, high) of a table.
SELECT EXISTS (SELECT FROM batches b WHERE b.table_name = %(table)s AND b.batch_no > %(batch_no)s AND b.rows > 0
AND tstzrange(least(b.time_min, b.time_max), greatest(b.time_min, b.time_max), '[]')
    && tstzrange(%(low)s, %(high)s))

-- name: find_closes_of_gatherer
-- database: production
-- Hours of [low, high) that are closed, whether the gatherer was read for it, how many rows of the table it showed then
-- (null: not recorded), and whether production refused rows of the table.
SELECT c.hour, %(gatherer)s = ANY (c.gatherers_read) AND %(gatherer)s <> ALL (c.gatherers_missed), s.seen,
EXISTS (SELECT FROM close_alarms a WHERE a.hour = c.hour AND a.kind = 'rows_refused'
        AND starts_with(a.subject, %(table)s || ','))
FROM hour_closes c LEFT JOIN merge_statistics s
ON s.hour = c.hour AND s.gatherer = %(gatherer)s AND s.table_name = %(table)s
WHERE c.hour >= %(low)s AND c.hour < %(high)s
