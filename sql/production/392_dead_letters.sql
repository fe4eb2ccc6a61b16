-- Rows of gatherers that production refuses: put aside one by one, so that no row stops the merge of the others.

CREATE TABLE IF NOT EXISTS dead_letters (
  gatherer text NOT NULL,
  table_name text NOT NULL,
  fingerprint uuid NOT NULL,
  reason text NOT NULL,
  detail text NOT NULL,
  payload text NOT NULL,
  put_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (gatherer, table_name, fingerprint)
);
COMMENT ON TABLE dead_letters IS 'One row per refused row of a gatherer, however often it was read; of each gatherer and table at most some thousands. What is in it is in no other table of production, and no coverage claims it.';
COMMENT ON COLUMN dead_letters.fingerprint IS 'MD5 of the payload.';
COMMENT ON COLUMN dead_letters.reason IS 'refused (production''s words are in detail), no_partition (a table stands in its way), out_of_bounds or misdated (its exchange time cannot be).';
COMMENT ON COLUMN dead_letters.payload IS 'The row as JSON, in the columns of production.';

CREATE TABLE IF NOT EXISTS misdated_deltas (
  hour timestamptz NOT NULL,
  ticker text NOT NULL,
  deltas bigint NOT NULL,
  first_received_at timestamptz NOT NULL,
  last_received_at timestamptz NOT NULL,
  PRIMARY KEY (hour, ticker)
);
COMMENT ON TABLE misdated_deltas IS 'Changes of a book that were received in the hour and whose exchange time cannot be: production does not hold them, so the close claims nothing of the market around their receipt.';
