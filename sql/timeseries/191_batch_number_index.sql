-- The counter's row is found at the end of an index. While a transaction on this server stays open, no dead version of
-- the row can be removed: whoever reads the table from its beginning, or asks the key of its one row whether it is
-- unique, passes all of them, and every commit of the gatherer takes longer than the one before. The live version has
-- the highest number, so the end of an index over the numbers leads to it, whatever lies before it.

CREATE UNIQUE INDEX IF NOT EXISTS batch_counter_last ON batch_counter (last_batch_no);
ALTER TABLE batch_counter DROP CONSTRAINT IF EXISTS batch_counter_pkey;

-- In the key's place: it stays the only row.
CREATE OR REPLACE FUNCTION keep_one_batch_counter() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RETURN CASE WHEN EXISTS (SELECT FROM batch_counter) THEN NULL ELSE NEW END;
END $$;
DROP TRIGGER IF EXISTS keep_one_batch_counter ON batch_counter;
CREATE TRIGGER keep_one_batch_counter BEFORE INSERT ON batch_counter
  FOR EACH ROW EXECUTE FUNCTION keep_one_batch_counter();

-- A session keeps the plan of a function: one made while the table was small would read all of it later.
CREATE OR REPLACE FUNCTION batch_token() RETURNS uuid LANGUAGE sql STABLE SET enable_seqscan = off AS $$
  SELECT last_token FROM batch_counter ORDER BY last_batch_no DESC LIMIT 1
$$;
COMMENT ON FUNCTION batch_token() IS 'The token of the batch whose number this transaction has taken.';
