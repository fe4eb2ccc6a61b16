-- What is known to be complete, and how well it was proved. All of it is written by the close of an hour and replaced
-- by the next close of the same hour. Ranges are half-open: from_ts ≤ t < to_ts.

SELECT create_series_table('stream_claims', $c$
  hour timestamptz NOT NULL,
  ticker text NOT NULL,
  gatherer text NOT NULL,
  stream_id bigint NOT NULL,
  from_ts timestamptz NOT NULL,
  to_ts timestamptz NOT NULL,
  rows bigint NOT NULL,
  content bigint NOT NULL,
  withdrawn text,
  PRIMARY KEY (from_ts, ticker, gatherer, stream_id)
$c$, 'from_ts', '1 day');
COMMENT ON TABLE stream_claims IS 'What one stream claims to hold completely of one market, within one hour.';
COMMENT ON COLUMN stream_claims.rows IS 'Deltas of the market that the stream has in the range.';
COMMENT ON COLUMN stream_claims.content IS 'Sum of the fingerprints of these deltas: equal for streams that hold the same.';
COMMENT ON COLUMN stream_claims.withdrawn IS 'Why the claim does not count (it disagreed with another stream, or a book did not come out); NULL while it stands.';

SELECT create_series_table('coverage', $c$
  ticker text NOT NULL,
  from_ts timestamptz NOT NULL,
  to_ts timestamptz NOT NULL,
  hour timestamptz NOT NULL,
  gatherers text[] NOT NULL,
  stream_ids bigint[] NOT NULL,
  PRIMARY KEY (ticker, from_ts)
$c$, 'from_ts', '1 day');
COMMENT ON TABLE coverage IS 'When production holds every order-book delta of a market: the union of the claims that stand, cut at hours. Ranges that touch are one. Everything else is a hole.';

SELECT create_series_table('book_proofs', $c$
  hour timestamptz NOT NULL,
  ticker text NOT NULL,
  verdict text NOT NULL,
  score double precision,
  run_checks integer NOT NULL,
  run_failures integer NOT NULL,
  anchor_checks integer NOT NULL,
  anchor_failures integer NOT NULL,
  stream_checks integer NOT NULL,
  stream_failures integer NOT NULL,
  rest_consistent integer NOT NULL,
  rest_inconsistent integer NOT NULL,
  rest_undecided integer NOT NULL,
  covered_us bigint NOT NULL,
  withdrawn_us bigint NOT NULL,
  detail text NOT NULL,
  PRIMARY KEY (hour, ticker)
$c$, 'hour', '1 day');
COMMENT ON TABLE book_proofs IS 'One row per market and hour: what was checked of its books and what came out.';
COMMENT ON COLUMN book_proofs.verdict IS 'proved (something was checked, nothing failed), unproved (nothing could be checked), failed.';
COMMENT ON COLUMN book_proofs.score IS 'Checks that passed / checks that decided something; NULL when nothing did.';
COMMENT ON COLUMN book_proofs.run_checks IS 'Inside a run: a snapshot and the stream''s own deltas give its next snapshot.';
COMMENT ON COLUMN book_proofs.anchor_checks IS 'In production: an anchor and the deltas after it give the next anchor, where all between is covered.';
COMMENT ON COLUMN book_proofs.stream_checks IS 'Claims of which another stream claims a part as well: both must hold the same.';
COMMENT ON COLUMN book_proofs.rest_undecided IS 'Polled books that could not be compared: a hole, no anchor before, or clocks too far apart.';
COMMENT ON COLUMN book_proofs.covered_us IS 'Microseconds of the hour that are covered, after withdrawals.';

CREATE TABLE IF NOT EXISTS merge_statistics (
  hour timestamptz NOT NULL,
  gatherer text NOT NULL,
  table_name text NOT NULL,
  seen bigint NOT NULL,
  distinct_rows bigint NOT NULL,
  unique_rows bigint NOT NULL,
  first_witness bigint NOT NULL,
  comparable bigint NOT NULL,
  agreed bigint NOT NULL,
  agreement double precision,
  PRIMARY KEY (hour, gatherer, table_name)
);
COMMENT ON TABLE merge_statistics IS 'What each gatherer brought to an hour of a table.';
COMMENT ON COLUMN merge_statistics.seen IS 'Rows that the gatherer stored.';
COMMENT ON COLUMN merge_statistics.distinct_rows IS 'The same without its own repetitions (several streams of one gatherer).';
COMMENT ON COLUMN merge_statistics.unique_rows IS 'Rows that no other gatherer has.';
COMMENT ON COLUMN merge_statistics.first_witness IS 'Rows that the gatherer received first of all.';
COMMENT ON COLUMN merge_statistics.comparable IS 'Rows of minutes in which another gatherer stored rows of this table as well.';
COMMENT ON COLUMN merge_statistics.agreement IS 'Share of the comparable rows that another gatherer has too. A fall means that the identity of rows no longer matches between gatherers.';

CREATE TABLE IF NOT EXISTS time_steps_back (
  hour timestamptz NOT NULL,
  gatherer text NOT NULL,
  stream_id bigint NOT NULL,
  ticker text NOT NULL,
  steps bigint NOT NULL,
  largest_us bigint NOT NULL,
  exchange_ts timestamptz NOT NULL,
  PRIMARY KEY (hour, gatherer, stream_id, ticker)
);
COMMENT ON TABLE time_steps_back IS 'Where the exchange''s time of a market went back within a stream. An empty ticker stands for the stream as a whole.';
COMMENT ON COLUMN time_steps_back.largest_us IS 'The largest distance from the latest time before, in microseconds.';
COMMENT ON COLUMN time_steps_back.exchange_ts IS 'The time of the row that went back that far.';

CREATE TABLE IF NOT EXISTS close_alarms (
  hour timestamptz NOT NULL,
  kind text NOT NULL,
  subject text NOT NULL,
  detail text NOT NULL,
  raised_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (hour, kind, subject)
);
COMMENT ON TABLE close_alarms IS 'What a person should look at: identity_agreement, time_step_back, claims_disagree, book_proof.';
