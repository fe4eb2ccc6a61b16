-- What came before what, without a clock: merges are numbered under the lock that they hold to their commit, and a close
-- has a number of the same row. A clock that is set back reopens nothing, and hides nothing.

CREATE TABLE IF NOT EXISTS merge_counter (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  last_merge_no bigint NOT NULL
);
COMMENT ON TABLE merge_counter IS 'Its row lock is held to commit. A row and no sequence: it is restored, and fails over, with the rows it speaks of.';
INSERT INTO merge_counter (last_merge_no) VALUES (0) ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION next_merge_no() RETURNS bigint LANGUAGE sql VOLATILE AS $$
  UPDATE merge_counter SET last_merge_no = last_merge_no + 1 RETURNING last_merge_no
$$;
COMMENT ON FUNCTION next_merge_no() IS 'The number of this transaction: higher than those of all that were committed before.';

ALTER TABLE hour_activity ADD COLUMN IF NOT EXISTS last_merge_no bigint;
ALTER TABLE hour_closes ADD COLUMN IF NOT EXISTS close_no bigint;
ALTER TABLE hour_closes ADD COLUMN IF NOT EXISTS close_id uuid NOT NULL DEFAULT gen_random_uuid();

-- What is there already keeps the order that its clock gave it.
UPDATE merge_counter SET last_merge_no = 2 WHERE last_merge_no < 2
  AND EXISTS (SELECT FROM hour_activity UNION ALL SELECT FROM hour_closes);
UPDATE hour_activity a SET last_merge_no = CASE
  WHEN EXISTS (SELECT FROM hour_closes c WHERE c.hour = a.hour AND a.last_merged_at > c.closed_at) THEN 2 ELSE 1 END
WHERE a.last_merge_no IS NULL;
UPDATE hour_closes SET close_no = 1 WHERE close_no IS NULL;

ALTER TABLE hour_activity ALTER COLUMN last_merge_no SET NOT NULL, ALTER COLUMN last_merge_no SET DEFAULT next_merge_no();
ALTER TABLE hour_closes ALTER COLUMN close_no SET NOT NULL, ALTER COLUMN close_no SET DEFAULT next_merge_no();

COMMENT ON TABLE hour_activity IS 'Which hours got rows, and when last; an hour whose last_merge_no is higher than its close_no must be closed again (hour_states says so).';
COMMENT ON COLUMN hour_activity.last_merged_at IS 'For people: production''s clock may have been set since. last_merge_no decides.';
COMMENT ON COLUMN hour_closes.close_no IS 'Taken when the latest close of the hour began: what has a higher number came after it.';
COMMENT ON COLUMN hour_closes.close_id IS 'Names the latest close of the hour, also where a restored database gives numbers again: compare for equality.';
COMMENT ON COLUMN hour_closes.closed_at IS 'When the latest close began, by production''s clock. For people; close_no decides.';

CREATE OR REPLACE FUNCTION hour_states(p_from timestamptz DEFAULT '-infinity', p_to timestamptz DEFAULT 'infinity')
RETURNS TABLE (hour timestamptz, is_active boolean, last_merge_no bigint, close_no bigint, close_id uuid,
               closed_at timestamptz, reopened boolean)
LANGUAGE sql STABLE AS $$
  SELECT hour, coalesce(a.is_active, false), a.last_merge_no, c.close_no, c.close_id, c.closed_at,
         coalesce(a.last_merge_no > c.close_no, false)
  FROM (SELECT h.hour, bool_or(h.rows_inserted > 0) AS is_active, max(h.last_merge_no) AS last_merge_no
        FROM hour_activity h WHERE h.hour >= p_from AND h.hour < p_to GROUP BY h.hour) a
  FULL JOIN (SELECT h.hour, h.close_no, h.close_id, h.closed_at FROM hour_closes h
             WHERE h.hour >= p_from AND h.hour < p_to) c USING (hour)
$$;
COMMENT ON FUNCTION hour_states(timestamptz, timestamptz) IS 'One row per hour of [from, to) that got rows or was closed. is_active: rows came at all; reopened: something that it rests on came after its close.';
