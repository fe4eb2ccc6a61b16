-- database: production
-- example since: TIMESTAMPTZ '2026-11-20 04:00+00'
-- example until: TIMESTAMPTZ '2026-11-20 05:00+00'
--
-- Reads of `up` and `status`: how far the merge is, and what production holds.

-- name: merged_rows
-- One row per table that has rows: its name and the rows merged into it so far.
SELECT table_name, sum(rows_inserted)::bigint FROM hour_activity GROUP BY table_name ORDER BY table_name

-- name: hours_merged_since
-- One row per hour up to `until` that got rows since `since` (null: ever), by production's clock; ascending.
SELECT DISTINCT hour FROM hour_activity
WHERE last_merged_at >= coalesce(%(since)s::timestamptz, '-infinity') AND hour <= %(until)s
ORDER BY hour

-- name: merge_cursors
-- One row per gatherer: its name and its last batch that was merged.
SELECT gatherer, batch_no FROM merge_cursors

-- name: last_batch
-- database: timeseries
-- One row: the number of a gatherer's last committed batch.
SELECT last_batch_no FROM batch_counter
