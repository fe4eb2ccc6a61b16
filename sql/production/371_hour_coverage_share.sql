-- THE coverage share of an hour: covered / open time of the markets that hour_coverage names. Every output reads it here.

ALTER TABLE hour_closes ADD COLUMN IF NOT EXISTS markets bigint;
ALTER TABLE hour_closes ADD COLUMN IF NOT EXISTS open_us bigint;
ALTER TABLE hour_closes ADD COLUMN IF NOT EXISTS covered_us bigint;
COMMENT ON COLUMN hour_closes.markets IS 'Markets that hour_coverage named when the hour was closed.';
COMMENT ON COLUMN hour_closes.open_us IS 'Their open time in the hour then, in microseconds.';
COMMENT ON COLUMN hour_closes.covered_us IS 'How much of it was covered then, in microseconds.';

CREATE OR REPLACE FUNCTION hour_coverage_share(p_hour timestamptz)
RETURNS TABLE (markets bigint, open_us bigint, covered_us bigint, share double precision, is_recorded boolean)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
  -- Which markets there were is known from their rows, and no longer when those were dropped.
  IF EXISTS (SELECT FROM dropped_hours d WHERE d.hour = p_hour AND d.table_name = 'coverage')
     OR EXISTS (SELECT FROM unnest(ARRAY['orderbook_deltas', 'orderbook_snapshots', 'book_anchors']) AS t (name),
                LATERAL closed_rows(t.name, p_hour, p_hour + INTERVAL '1 hour') c WHERE c.is_gone)
  THEN
    RETURN QUERY
    SELECT c.markets, c.open_us, c.covered_us, c.covered_us::float8 / nullif(c.open_us, 0)::float8, true
    FROM (SELECT 1) AS one LEFT JOIN hour_closes c ON c.hour = p_hour;
  ELSE
    RETURN QUERY
    SELECT count(*), coalesce(sum(h.open_us), 0)::bigint, coalesce(sum(h.covered_us), 0)::bigint,
           sum(h.covered_us)::float8 / nullif(sum(h.open_us), 0)::float8, false
    FROM hour_coverage(p_hour) h;
  END IF;
END $$;
COMMENT ON FUNCTION hour_coverage_share(timestamptz) IS 'One row: the coverage share (0 … 1) of an hour, which is the part that coverage holds of the open time of the markets recorded in the hour or followed in the one before; see hour_coverage. NULL: no market was open. Where rows of the hour were dropped since, what its close recorded (is_recorded; NULL where that close recorded no share).';
