-- Statements of `up` and `status`: how far the merge is and what production holds.

-- name: merged_rows
-- Production: one row per table that has rows: its name and the rows merged into it so far.
SELECT table_name, sum(rows_inserted)::bigint FROM hour_activity GROUP BY table_name ORDER BY table_name

-- name: hours_merged_since
-- Production: one row per hour up to `until` that got rows since `since` (null: ever), by production's clock; ascending.
SELECT DISTINCT hour FROM hour_activity
WHERE last_merged_at >= coalesce(%(since)s::timestamptz, '-infinity') AND hour <= %(until)s
ORDER BY hour

-- name: merge_cursors
-- Production: one row per gatherer: its name and its last batch that was merged.
SELECT gatherer, batch_no FROM merge_cursors

-- name: last_batch
-- A gatherer's timeseries database: one row with the number of its last committed batch.
SELECT last_batch_no FROM batch_counter
