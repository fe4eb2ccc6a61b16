-- What coverage says of an hour holds as long as production has the rows of that hour.

CREATE OR REPLACE FUNCTION coverage_holes_explained(p_ticker text, p_from timestamptz, p_to timestamptz)
RETURNS TABLE (from_ts timestamptz, to_ts timestamptz, reason text)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
  -- Ranges are cut at hours, so that none begins before the hour of p_from and holds it.
  v_low timestamptz := date_trunc('hour', p_from, 'UTC');
  v_asked tstzmultirange := tstzmultirange(tstzrange(p_from, p_to));
  v_covered tstzmultirange;
  v_gone tstzmultirange;
BEGIN
  SELECT coalesce(range_agg(tstzrange(c.from_ts, c.to_ts)), tstzmultirange()) INTO v_covered FROM coverage c
  WHERE c.ticker = p_ticker AND c.from_ts >= v_low AND c.from_ts < p_to;
  SELECT coalesce(range_agg(tstzrange(g.hour, g.hour + INTERVAL '1 hour')), tstzmultirange()) INTO v_gone FROM (
    SELECT c.hour FROM closed_rows('orderbook_deltas', v_low, p_to) c
    WHERE c.is_gone
    UNION
    -- Covered by a close that did not make the hour final, and dropped since.
    SELECT d.hour FROM dropped_hours d LEFT JOIN hour_closes c USING (hour)
    WHERE d.table_name = 'orderbook_deltas' AND d.hour >= v_low AND d.hour < p_to AND c.hour IS NULL
  ) AS g;
  RETURN QUERY
  SELECT lower(h.hole), upper(h.hole), h.reason FROM (
    SELECT unnest(v_asked - v_covered) AS hole, 'not covered' AS reason
    UNION ALL
    SELECT unnest(v_asked * v_covered * v_gone), 'dropped'
  ) AS h
  ORDER BY 1;
END $$;
COMMENT ON FUNCTION coverage_holes_explained(text, timestamptz, timestamptz) IS 'When production may lack order-book deltas of a market, within [from, to). reason: not covered (no claim covers it: holes, hours that nobody has closed yet, and what came after the close of an hour that still runs) or dropped (production was complete there; its rows are gone).';

-- Dropped first: it had a third column for a while.
DROP FUNCTION IF EXISTS coverage_holes(text, timestamptz, timestamptz);
CREATE FUNCTION coverage_holes(p_ticker text, p_from timestamptz, p_to timestamptz)
RETURNS TABLE (from_ts timestamptz, to_ts timestamptz) LANGUAGE sql STABLE AS $$
  SELECT lower(h.hole), upper(h.hole)
  FROM unnest((SELECT range_agg(tstzrange(e.from_ts, e.to_ts)) FROM coverage_holes_explained(p_ticker, p_from, p_to) e)) AS h (hole)
  ORDER BY 1
$$;
COMMENT ON FUNCTION coverage_holes(text, timestamptz, timestamptz) IS 'When production may lack order-book deltas of a market: the parts of [from, to) that no claim covers (holes, hours that nobody has closed yet, and what came after the close of an hour that still runs), and those whose rows were dropped; see coverage_holes_explained.';
