-- coverage_holes_explained of 411 again: where the coverage of an hour was dropped itself, nobody can say any more what of
-- it was covered, and it is not called uncovered.

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
  v_unknown tstzmultirange;
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
  SELECT coalesce(range_agg(tstzrange(d.hour, d.hour + INTERVAL '1 hour')), tstzmultirange()) INTO v_unknown
  FROM dropped_hours d WHERE d.table_name = 'coverage' AND d.hour >= v_low AND d.hour < p_to;
  RETURN QUERY
  SELECT lower(h.hole), upper(h.hole), h.reason FROM (
    SELECT unnest(v_asked - v_covered - v_unknown) AS hole, 'not covered' AS reason
    UNION ALL
    SELECT unnest(v_asked * (v_covered * v_gone + v_unknown)), 'dropped'
  ) AS h
  ORDER BY 1;
END $$;
COMMENT ON FUNCTION coverage_holes_explained(text, timestamptz, timestamptz) IS 'When production may lack order-book deltas of a market, within [from, to). reason: not covered (no claim covers it: holes, hours that nobody has closed yet, and what came after the close of an hour that still runs) or dropped (production was complete there and its rows are gone, or what was covered is gone as well).';
