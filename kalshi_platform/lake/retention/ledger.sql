-- database: production
-- example action: SELECT count(*)
-- example before: TIMESTAMPTZ '2026-11-20'
-- example since: TIMESTAMPTZ '2026-11-20'
--
-- What is cleared of ledgers and records. {action} is DELETE, or counts the same lines for a dry run.

-- name: find_old_streams
-- database: timeseries
-- Streams that ended before a moment, and whose deltas all lie before it: one row each.
SELECT s.stream_id FROM streams s WHERE s.ended_at < %(before)s
AND coalesce((SELECT max(g.exchange_ts_max) FROM stream_segments g WHERE g.stream_id = s.stream_id), s.ended_at)
    < %(before)s
ORDER BY s.stream_id

-- name: lines_of_streams
-- database: timeseries
-- Lines of a table of the ledger that belong to some streams. Parameter: streams.
-- example table: stream_segments
{action} FROM {table} WHERE stream_id = ANY (%s)

-- name: sessions
-- database: timeseries
-- Sessions that closed before a moment and of which no stream is left.
{action} FROM sessions s WHERE s.closed_at < %(before)s
AND NOT EXISTS (SELECT FROM streams t WHERE t.session_id = s.session_id)

-- name: snapshot_polls
-- database: timeseries
-- Polls of books before a moment.
{action} FROM snapshot_polls WHERE minute < %(before)s

-- name: find_first_batch_to_keep
-- database: timeseries
-- The lowest batch number that stays: of a batch that was committed, or has rows, at a moment or later, or that
-- production has not read. Older numbers go first, so that whoever misses a number knows that it is old.
SELECT coalesce(min(batch_no), %(cursor)s) FROM batches
WHERE batch_no >= %(cursor)s OR committed_at >= %(before)s OR greatest(time_min, time_max) >= %(before)s

-- name: batches
-- database: timeseries
-- Lines of batches below a number.
{action} FROM batches WHERE batch_no < %(batch_no)s

-- name: dropped_hours
-- database: timeseries
-- Notes of hours that were dropped, before a moment.
{action} FROM dropped_hours WHERE hour < %(before)s

-- name: heartbeats
-- Heartbeats of services that were not heard of since a moment.
{action} FROM heartbeats WHERE at < %(before)s

-- name: catalog_syncs
-- Syncs that began before a moment, but for the newest of each kind that came to its end.
{action} FROM catalog_syncs s WHERE s.started_at < %(before)s AND s.sync_id <> ALL (
  SELECT max(n.sync_id) FROM catalog_syncs n WHERE n.finished_at IS NOT NULL AND n.error IS NULL GROUP BY n.what, n.scope)

-- name: records_of_hours
-- Lines of a table of records of hours before a moment.
-- example table: merge_statistics
{action} FROM {table} WHERE hour < %(before)s

-- name: merge_alarms
-- Alarms of the merge that were raised last before a moment.
{action} FROM merge_alarms WHERE last_raised_at < %(before)s

-- name: dead_letters
-- Refused rows that were put aside before a moment.
{action} FROM dead_letters WHERE quarantined_at < %(before)s

-- name: lake_verifications
-- What was read back of partitions of the lake that begin before a moment.
{action} FROM lake_verifications WHERE starts_at < %(before)s
