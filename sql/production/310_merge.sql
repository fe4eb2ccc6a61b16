-- How far the merge has come, and which hours are closed.

CREATE TABLE IF NOT EXISTS merge_cursors (
  gatherer text PRIMARY KEY,
  batch_no bigint NOT NULL,
  mark_batch_no bigint,
  mark_committed_at timestamptz,
  merged_at timestamptz NOT NULL DEFAULT now(),
  rows_read bigint NOT NULL DEFAULT 0,
  last_error text,
  last_error_at timestamptz
);
COMMENT ON TABLE merge_cursors IS 'The last batch of each gatherer whose rows are in production; moved in the transaction that brings them.';
COMMENT ON COLUMN merge_cursors.mark_committed_at IS 'When the gatherer committed batch mark_batch_no, the last one with rows that was read: another moment under that number means that its database was restored, and numbers anew.';

CREATE TABLE IF NOT EXISTS hour_closes (
  hour timestamptz PRIMARY KEY,
  closed_at timestamptz NOT NULL DEFAULT now(),
  rows jsonb NOT NULL DEFAULT '{}',
  anchors bigint NOT NULL DEFAULT 0,
  gatherers_read text[] NOT NULL DEFAULT '{}',
  gatherers_missed text[] NOT NULL DEFAULT '{}',
  unsettled boolean NOT NULL DEFAULT false
);
COMMENT ON COLUMN hour_closes.unsettled IS 'A stream that was still open had shown nothing later than the hour: its last moments may be claimed once it does, so the hour is closed again an hour later.';
COMMENT ON COLUMN hour_closes.rows IS 'Per table: rows of the hour in production when it was closed.';
COMMENT ON COLUMN hour_closes.gatherers_missed IS 'Gatherers that could not be read then; the hour is closed again when they answer.';

CREATE TABLE IF NOT EXISTS hour_activity (
  hour timestamptz NOT NULL,
  table_name text NOT NULL,
  rows_inserted bigint NOT NULL,
  last_merged_at timestamptz NOT NULL,
  PRIMARY KEY (hour, table_name)
);
COMMENT ON TABLE hour_activity IS 'Which hours got rows, and when last; an hour whose last_merged_at is later than its closed_at must be closed again.';
