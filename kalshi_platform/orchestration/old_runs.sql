-- database: dagster
--
-- What Dagster's own deletion of a run leaves behind, in its storage: PostgreSQL or SQLite.

-- name: delete_checks
-- Evaluations of asset checks before a moment, but for the last one of each check. {before}: UTC, as a literal.
-- example before: '2026-11-20 00:00:00'
DELETE FROM asset_check_executions WHERE create_timestamp < {before}
AND id NOT IN (SELECT max(id) FROM asset_check_executions GROUP BY asset_key, check_name)

-- name: delete_check_events
-- Events of asset checks before a moment that a sensor evaluated, without a run; but for those of the evaluations that are
-- there still. {before}: UTC, as a literal.
-- example before: '2026-11-20 00:00:00'
DELETE FROM event_logs WHERE run_id = '' AND dagster_event_type = 'ASSET_CHECK_EVALUATION' AND timestamp < {before}
AND id NOT IN (SELECT evaluation_event_storage_id FROM asset_check_executions
               WHERE evaluation_event_storage_id IS NOT NULL)
