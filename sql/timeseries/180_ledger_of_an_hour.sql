-- The ledger grows for months; whoever asks about an hour finds its lines by their times.

-- Late rows widen the time of their batch, so that only an index over ranges finds the batches of an hour. In a batch
-- whose ends stood the wrong way round the range would be refused, and the commit with it: hence least and greatest.
CREATE INDEX IF NOT EXISTS batches_time ON batches
  USING gist (tstzrange(least(time_min, time_max), greatest(time_min, time_max), '[]'));
COMMENT ON INDEX batches_time IS 'For the batches that reach into an hour.';

-- How far the deltas of a stream reach, at both ends. An index over the times of all streams together would be read
-- from an old hour up to now.
CREATE INDEX IF NOT EXISTS stream_segments_latest ON stream_segments (stream_id, exchange_ts_max);
CREATE INDEX IF NOT EXISTS stream_segments_earliest ON stream_segments (stream_id, exchange_ts_min);
COMMENT ON INDEX stream_segments_latest IS 'For the streams that reach into an hour.';
COMMENT ON INDEX stream_segments_earliest IS 'For the streams that reach into an hour.';
DROP INDEX IF EXISTS stream_segments_time;

CREATE INDEX IF NOT EXISTS streams_of_session ON streams (session_id);
COMMENT ON INDEX streams_of_session IS 'For the streams of a session that is ended.';
