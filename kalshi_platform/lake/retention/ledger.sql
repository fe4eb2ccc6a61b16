-- database: production
-- example before: TIMESTAMPTZ '2026-11-20'
--
-- What is cleared of ledgers and records: the clauses say which lines of a table, the same for a dry run, which counts
-- them, and for the run that deletes them.

-- name: count_lines
-- How many lines of a table a clause selects.
-- example table: merge_alarms
-- example clause: WHERE s.times > 0
SELECT count(*) FROM {table} s {clause}

-- name: delete_lines
-- Deletes the lines of a table that a clause selects.
-- example table: merge_alarms
-- example clause: WHERE s.times > 0
DELETE FROM {table} s {clause}

-- name: find_old_streams
-- database: timeseries
-- Streams that ended before a moment, and whose deltas all lie before it: one row each.
SELECT s.stream_id FROM streams s WHERE s.ended_at < %(before)s
AND coalesce((SELECT max(g.exchange_ts_max) FROM stream_segments g WHERE g.stream_id = s.stream_id), s.ended_at)
    < %(before)s
ORDER BY s.stream_id

-- name: of_stream
-- database: timeseries
-- Lines of a stream.
-- example rows: stream_segments
WHERE s.stream_id = %(stream_id)s

-- name: closed_sessions
-- database: timeseries
-- Sessions that closed before a moment and of which no stream is left.
-- example rows: sessions
WHERE s.closed_at < %(before)s AND NOT EXISTS (SELECT FROM streams t WHERE t.session_id = s.session_id)

-- name: old_polls
-- database: timeseries
-- Polls of books before a moment.
-- example rows: snapshot_polls
WHERE s.minute < %(before)s

-- name: find_first_batch_to_keep
-- database: timeseries
-- The lowest batch number that stays: of a batch that was committed, or has rows, at a moment or later, or that
-- production has not read. Older numbers go first, so that whoever misses a number knows that it is old.
SELECT coalesce(min(batch_no), %(cursor)s) FROM batches
WHERE batch_no >= %(cursor)s OR committed_at >= %(before)s OR greatest(time_min, time_max) >= %(before)s

-- name: find_oldest_batch
-- database: timeseries
-- The lowest batch number that is left; null without any.
SELECT min(batch_no) FROM batches

-- name: batches_below
-- database: timeseries
-- Lines of batches below a number.
-- example rows: batches
WHERE s.batch_no < %(batch_no)s

-- name: of_old_hours
-- Lines of hours before a moment.
-- example rows: merge_statistics
WHERE s.hour < %(before)s

-- name: not_heard_of
-- Heartbeats of services that were not heard of since a moment.
-- example rows: heartbeats
WHERE s.at < %(before)s

-- name: old_syncs
-- Syncs that began before a moment, but for the newest of each kind that came to its end.
-- example rows: catalog_syncs
WHERE s.started_at < %(before)s AND s.sync_id <> ALL (
  SELECT max(n.sync_id) FROM catalog_syncs n WHERE n.finished_at IS NOT NULL AND n.error IS NULL GROUP BY n.what, n.scope)

-- name: not_raised_again
-- Alarms of the merge that were raised last before a moment.
-- example rows: merge_alarms
WHERE s.last_raised_at < %(before)s

-- name: old_letters
-- Refused rows that were put aside before a moment.
-- example rows: dead_letters
WHERE s.quarantined_at < %(before)s

-- name: of_old_partitions
-- What was read back of partitions of the lake that begin before a moment.
-- example rows: lake_verifications
WHERE s.starts_at < %(before)s
