-- At which batch of a gatherer the merge stands, by more than its number, and what went wrong on the way.

ALTER TABLE merge_cursors ADD COLUMN IF NOT EXISTS token uuid;
COMMENT ON COLUMN merge_cursors.token IS 'The token of batch batch_no: where the gatherer has another one under that number, or none, its database is not the one that was read, and is read from its beginning. NULL: the batch is older than tokens, and mark_committed_at decides.';

CREATE TABLE IF NOT EXISTS merge_alarms (
  kind text NOT NULL,
  subject text NOT NULL,
  detail text NOT NULL,
  times bigint NOT NULL DEFAULT 1,
  first_raised_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  last_raised_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (kind, subject)
);
COMMENT ON TABLE merge_alarms IS 'What a person should look at, raised by the live merge; what the close of an hour raises stands in close_alarms. A repeated alarm is counted in its row.';
