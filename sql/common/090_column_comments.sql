-- What the columns that timeseries databases and production have for services hold. The texts are those of
-- kalshi_platform/market/tables/, which a test compares with PostgreSQL's catalogue.

COMMENT ON COLUMN schema_meta.only_row IS 'Always true: the table has one row.';
COMMENT ON COLUMN schema_meta.mode IS 'native (range partitions) or the TimescaleDB edition.';
COMMENT ON COLUMN schema_meta.created_at IS 'When the database was made.';
COMMENT ON COLUMN series_tables.table_name IS 'The table.';
COMMENT ON COLUMN series_tables.time_column IS 'The column that it is partitioned by.';
COMMENT ON COLUMN series_tables.partition_span IS 'The span of one partition.';
COMMENT ON COLUMN dropped_hours.table_name IS 'The table.';
COMMENT ON COLUMN dropped_hours.hour IS 'The start of the hour.';
COMMENT ON COLUMN dropped_hours.dropped_at IS 'When its rows were dropped.';
COMMENT ON TABLE service_switches IS 'The off switch: a service without a row, or with enabled = true, is kept alive. Names: gatherer/NAME, deduplicator.';
COMMENT ON COLUMN service_switches.service IS 'gatherer/NAME or deduplicator.';
COMMENT ON COLUMN service_switches.enabled IS 'Whether the service is to run.';
COMMENT ON COLUMN service_switches.reason IS 'Why it was switched off or on.';
COMMENT ON COLUMN service_switches.changed_at IS 'When it was switched last.';
COMMENT ON COLUMN heartbeats.service IS 'gatherer/NAME or deduplicator.';
COMMENT ON COLUMN heartbeats.host IS 'The host that runs the service.';
COMMENT ON COLUMN heartbeats.pid IS 'Its process there.';
COMMENT ON COLUMN heartbeats.run_id IS 'The Dagster run that hosts it, if any.';
COMMENT ON COLUMN heartbeats.state IS 'What it is doing, in one word.';
COMMENT ON TABLE schema_migrations IS 'One row per file of sql/ that was applied.';
COMMENT ON COLUMN schema_migrations.name IS 'The file''s path below sql/.';
COMMENT ON COLUMN schema_migrations.sha256 IS 'Hash of the file as it was applied: a file that was changed since is refused.';
COMMENT ON COLUMN schema_migrations.applied_at IS 'When it was applied.';
