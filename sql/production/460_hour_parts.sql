-- What was found of a part of an hour's markets, until the last part of the division closes the hour.

CREATE TABLE IF NOT EXISTS hour_parts (
  hour timestamptz NOT NULL,
  parts integer NOT NULL,
  part integer NOT NULL,
  close_no bigint NOT NULL,
  begun_at timestamptz NOT NULL,
  done_at timestamptz,
  content bytea,
  PRIMARY KEY (hour, parts, part)
);
COMMENT ON TABLE hour_parts IS 'Parts of hours that are being closed in several parts, on one machine or on many. The part that finds all others done closes the hour and removes the rows; so does a close of the hour as a whole.';
COMMENT ON COLUMN hour_parts.hour IS 'The start of the hour.';
COMMENT ON COLUMN hour_parts.parts IS 'Into how many parts the markets are divided, by a hash of the ticker.';
COMMENT ON COLUMN hour_parts.part IS 'Which of them it is, from 1 on.';
COMMENT ON COLUMN hour_parts.close_no IS 'The number of the close, taken when its first part began; all parts of it have the same.';
COMMENT ON COLUMN hour_parts.begun_at IS 'When its first part began, by production''s clock.';
COMMENT ON COLUMN hour_parts.done_at IS 'When the part was done, by production''s clock; NULL before, or when it is to be done again.';
COMMENT ON COLUMN hour_parts.content IS 'What was found: claims, proofs, checkpoints and statistics of its markets, for the close that joins them.';
