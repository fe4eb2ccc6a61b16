-- Dead letters are keyed, counted beyond a sample, and dropped when they are old.

-- Letters that are older than the key have none: they are equal to nothing.
ALTER TABLE dead_letters ADD COLUMN IF NOT EXISTS fingerprint bigint;
COMMENT ON COLUMN dead_letters.fingerprint IS '64-bit hash of the letter: the same letter written twice is there once. NULL on letters from before it was kept.';
CREATE UNIQUE INDEX IF NOT EXISTS dead_letters_key ON dead_letters (received_at, fingerprint);

CREATE TABLE IF NOT EXISTS dead_letter_counts (
  minute timestamptz NOT NULL,
  reason text NOT NULL,
  counted_by bigint NOT NULL,
  letters bigint NOT NULL,
  PRIMARY KEY (minute, reason, counted_by)
);
COMMENT ON TABLE dead_letter_counts IS 'Dead letters that were counted and not kept: of each minute and reason only a sample is stored in dead_letters.';
COMMENT ON COLUMN dead_letter_counts.counted_by IS 'The session whose frames these were; for rows that were put aside after that, the process that did.';

-- Drop letters and counts that are older than a moment, at most so many days of them in one call; returns how many days
-- (partitions) went. Small steps, because whoever writes waits for each.
CREATE OR REPLACE FUNCTION drop_old_dead_letters(p_before timestamptz, p_days integer)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  oldest timestamptz;
BEGIN
  DELETE FROM dead_letter_counts WHERE (minute, reason, counted_by) IN (
    SELECT minute, reason, counted_by FROM dead_letter_counts WHERE minute < p_before ORDER BY minute LIMIT 10000);
  IF server_mode() = 'native' THEN
    SELECT min(substring(pg_get_expr(c.relpartbound, c.oid) FROM $re$FROM \('([^']+)'\)$re$)::timestamptz) INTO oldest
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'dead_letters'::regclass;
  ELSE
    SELECT min(received_at) INTO oldest FROM dead_letters;
  END IF;
  IF oldest IS NULL OR oldest >= p_before THEN RETURN 0; END IF;
  RETURN drop_partitions_before('dead_letters', least(p_before, oldest + make_interval(days => p_days)));
END $$;
