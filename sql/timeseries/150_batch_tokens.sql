-- Which batch stands under a number. A database that was restored, or failed over to an older state, gives numbers again:
-- a random token beside the counter, and on every line of the batch, tells the batches of one number apart. A trigger
-- draws it, so that no writer can forget it.

ALTER TABLE batch_counter ADD COLUMN IF NOT EXISTS last_token uuid NOT NULL DEFAULT gen_random_uuid();
COMMENT ON COLUMN batch_counter.last_token IS 'Drawn with last_batch_no; the number alone does not name a batch.';

CREATE OR REPLACE FUNCTION draw_batch_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.last_token := gen_random_uuid();
  RETURN NEW;
END $$;
DROP TRIGGER IF EXISTS draw_batch_token ON batch_counter;
CREATE TRIGGER draw_batch_token BEFORE UPDATE OF last_batch_no ON batch_counter
  FOR EACH ROW EXECUTE FUNCTION draw_batch_token();

CREATE OR REPLACE FUNCTION batch_token() RETURNS uuid LANGUAGE sql STABLE AS $$ SELECT last_token FROM batch_counter $$;
COMMENT ON FUNCTION batch_token() IS 'The token of the batch whose number this transaction has taken.';

ALTER TABLE batches ADD COLUMN IF NOT EXISTS token uuid;
ALTER TABLE batches ALTER COLUMN token SET DEFAULT batch_token();
COMMENT ON COLUMN batches.token IS 'The token of the batch, the same on all its lines. NULL on lines that are older than tokens.';
COMMENT ON TABLE batches IS 'One row per commit and table: where the rows of a batch lie in time, so that a reader past a cursor touches only those partitions. A commit that brought no row leaves one of table_name ledger.';
