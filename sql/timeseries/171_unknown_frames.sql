-- Messages of an unknown type that took a number in a stream of books.

CREATE TABLE IF NOT EXISTS unknown_frames (
  stream_id bigint NOT NULL,
  seq bigint NOT NULL,
  frame_type text NOT NULL,
  ticker text NOT NULL DEFAULT '',
  batch_no bigint NOT NULL,
  PRIMARY KEY (stream_id, seq)
);
COMMENT ON TABLE unknown_frames IS 'Messages of an unknown type in a stream of books: they may have changed one. Followed markets go on; that a book was not changed is shown by its next snapshot, and only then is it claimed from there on. The first of its type after each snapshot is kept.';
COMMENT ON COLUMN unknown_frames.ticker IS 'The market that it names; empty when it may concern any.';
