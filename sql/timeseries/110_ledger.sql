-- The ledger: what this gatherer claims to have seen. Written in the transaction of the rows it speaks of.

CREATE TABLE IF NOT EXISTS sessions (
  session_id bigint PRIMARY KEY,
  gatherer text NOT NULL,
  connection text NOT NULL,
  url text NOT NULL,
  use_yes_price boolean NOT NULL,
  opened_at timestamptz NOT NULL,
  closed_at timestamptz,
  close_reason text
);
COMMENT ON TABLE sessions IS 'One row per WebSocket connection. A session without closed_at and without a live writer ended with its process.';
COMMENT ON COLUMN sessions.use_yes_price IS 'The scale of no-side prices asked for; false = no-leg scale, always sent by this platform.';

CREATE TABLE IF NOT EXISTS streams (
  stream_id bigint PRIMARY KEY,
  session_id bigint NOT NULL,
  sid integer NOT NULL,
  channel text NOT NULL,
  opened_at timestamptz NOT NULL,
  ended_at timestamptz,
  end_reason text
);
COMMENT ON TABLE streams IS 'One row per sid of a session. seq counts the frames of one stream.';

CREATE TABLE IF NOT EXISTS stream_segments (
  stream_id bigint NOT NULL,
  seq_from bigint NOT NULL,
  seq_to bigint NOT NULL,
  exchange_ts_min timestamptz,
  exchange_ts_max timestamptz,
  batch_no bigint NOT NULL,
  PRIMARY KEY (stream_id, seq_from)
);
COMMENT ON TABLE stream_segments IS 'Contiguous seq [seq_from, seq_to] received and committed with batch_no. Touching segments form a run. Exchange times are those of the deltas in it.';
CREATE INDEX IF NOT EXISTS stream_segments_time ON stream_segments (exchange_ts_max, exchange_ts_min);

CREATE TABLE IF NOT EXISTS memberships (
  stream_id bigint NOT NULL,
  ticker text NOT NULL,
  seq_from bigint NOT NULL,
  seq_to bigint,
  end_reason text,
  exchange_index integer NOT NULL DEFAULT 0,
  batch_no bigint NOT NULL,
  PRIMARY KEY (stream_id, ticker, seq_from)
);
COMMENT ON TABLE memberships IS 'A market''s book is followed in a stream from its snapshot (seq_from) to seq_to inclusive; open ones last as far as their run.';
CREATE INDEX IF NOT EXISTS memberships_ticker ON memberships (ticker, stream_id);

CREATE TABLE IF NOT EXISTS sequence_gaps (
  stream_id bigint NOT NULL,
  seq_expected bigint NOT NULL,
  seq_seen bigint NOT NULL,
  detected_at timestamptz NOT NULL,
  batch_no bigint NOT NULL,
  PRIMARY KEY (stream_id, seq_expected, seq_seen)
);
COMMENT ON TABLE sequence_gaps IS 'Frames that did not come: seq_expected … seq_seen - 1.';

CREATE TABLE IF NOT EXISTS snapshot_polls (
  minute timestamptz NOT NULL,
  started_at timestamptz NOT NULL,
  finished_at timestamptz NOT NULL,
  markets_wanted integer NOT NULL,
  markets_asked integer NOT NULL,
  markets_answered integer NOT NULL,
  markets_failed integer NOT NULL,
  requests integer NOT NULL,
  tokens double precision NOT NULL,
  oldest_age_s double precision,
  PRIMARY KEY (minute, started_at)
);
COMMENT ON TABLE snapshot_polls IS 'One row per poll of books over REST: the resolution that was achieved. Written a few seconds after the poll.';
COMMENT ON COLUMN snapshot_polls.tokens IS 'Read tokens of the account''s budget that the requests cost.';
COMMENT ON COLUMN snapshot_polls.oldest_age_s IS 'After the poll: seconds since the book that was answered longest ago, of all wanted markets. NULL when unknown.';

CREATE TABLE IF NOT EXISTS batch_counter (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  last_batch_no bigint NOT NULL
);
COMMENT ON TABLE batch_counter IS 'Its row lock is held to commit, so batch numbers become visible in order and a cursor over them misses nothing.';
INSERT INTO batch_counter (last_batch_no) VALUES (0) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS batches (
  batch_no bigint NOT NULL,
  table_name text NOT NULL,
  rows bigint NOT NULL,
  time_min timestamptz NOT NULL,
  time_max timestamptz NOT NULL,
  committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (batch_no, table_name)
);
COMMENT ON TABLE batches IS 'One row per commit and table: where the rows of a batch lie in time, so that a reader past a cursor touches only those partitions.';
