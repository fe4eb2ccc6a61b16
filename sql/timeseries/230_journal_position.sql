-- How far the gatherer's journal is in this database. It is written in the transaction of the rows, so a database always
-- says what it holds; one that was restored, or failed over to an older state, names an older position, and the journal is
-- ingested again from there.

CREATE TABLE IF NOT EXISTS journal_position (
  batch_no bigint PRIMARY KEY,
  journal_id bigint,
  segment bigint NOT NULL DEFAULT 0,
  segment_created_ns bigint,
  block_offset bigint NOT NULL DEFAULT 0,
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE journal_position IS 'One row: where the next block of the gatherer''s journal begins that is not in this database.';
COMMENT ON COLUMN journal_position.batch_no IS 'The commit that set the position, see batches; 0 before the first.';
COMMENT ON COLUMN journal_position.journal_id IS 'The journal, by the number in the header of its segments. NULL before the first commit.';
COMMENT ON COLUMN journal_position.segment IS 'The number of the segment.';
COMMENT ON COLUMN journal_position.segment_created_ns IS 'When the segment was created, by its header, in nanoseconds since 1970: another segment may get the number of one that was lost. NULL where the header cannot be read.';
COMMENT ON COLUMN journal_position.block_offset IS 'Where the block begins in the segment, in bytes.';
COMMENT ON COLUMN journal_position.updated_at IS 'When the position was set.';

-- The row is found at the end of its index, as that of batch_counter is (191): its number only grows.
CREATE OR REPLACE FUNCTION keep_one_journal_position() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RETURN CASE WHEN EXISTS (SELECT FROM journal_position) THEN NULL ELSE NEW END;
END $$;
COMMENT ON FUNCTION keep_one_journal_position() IS 'Keeps journal_position at one row.';
DROP TRIGGER IF EXISTS keep_one_journal_position ON journal_position;
CREATE TRIGGER keep_one_journal_position BEFORE INSERT ON journal_position
  FOR EACH ROW EXECUTE FUNCTION keep_one_journal_position();
INSERT INTO journal_position (batch_no) VALUES (0);

COMMENT ON COLUMN batch_counter.owner_token IS 'Written by versions before the journal: drawn for each change of the ledger. Now journal_position tells which change was the last.';
