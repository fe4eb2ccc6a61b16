-- What each stream held of an hour when it was closed, so that a later close recognises one that holds less.

CREATE TABLE IF NOT EXISTS closed_streams (
  hour timestamptz NOT NULL,
  gatherer text NOT NULL,
  stream_id bigint NOT NULL,
  seq_to bigint NOT NULL,
  deltas bigint NOT NULL,
  PRIMARY KEY (hour, gatherer, stream_id)
);
COMMENT ON TABLE closed_streams IS 'What the gatherer''s database held of a stream in an hour when that was closed. One that holds less later was restored, or has lost rows: it is not asked, and what the stream claimed stays.';
COMMENT ON COLUMN closed_streams.seq_to IS 'The last number of the commits that reach into the hour.';
COMMENT ON COLUMN closed_streams.deltas IS 'Deltas of the hour, of markets that the stream followed.';

ALTER TABLE hour_closes ADD COLUMN IF NOT EXISTS gatherers_incomplete text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN hour_closes.gatherers_incomplete IS 'Gatherers that no longer held all that their ledger recorded of the hour: what they claimed of it before stays.';
COMMENT ON COLUMN hour_closes.rows IS 'Per table: rows of the hour in production when it was closed. Where rows were dropped since, the number that was counted before stays.';
COMMENT ON TABLE dropped_hours IS 'Hours of a time-series table whose rows were dropped by drop_partitions_before, or which a close found with fewer rows than the close before had counted. A close that finds them all again takes the line back.';
