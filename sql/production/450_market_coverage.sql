-- Every moment of a day, market by market: proven, claimed, or a hole with its reason; what the lake's processed/coverage
-- is made of. It says what was recorded, also where production has dropped the rows since: the lake has them.

CREATE OR REPLACE FUNCTION market_coverage(p_from timestamptz, p_to timestamptz)
RETURNS TABLE (ticker text, from_ts timestamptz, to_ts timestamptz, state text, reason text)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
  v_none CONSTANT tstzmultirange := tstzmultirange();
  v_hour CONSTANT interval := INTERVAL '1 hour';
  v_before timestamptz := p_from - INTERVAL '1 hour';
  v_first_hour timestamptz := (SELECT min(c.hour) FROM hour_closes c WHERE c.covered_us > 0);
  v_begun timestamptz;
BEGIN
  SELECT min(c.from_ts) INTO v_begun FROM coverage c
  WHERE c.from_ts >= v_first_hour AND c.from_ts < v_first_hour + v_hour;
  RETURN QUERY
  WITH covered AS (
    SELECT c.ticker, c.hour, range_agg(tstzrange(c.from_ts, c.to_ts)) AS spans FROM coverage c
    WHERE c.from_ts >= p_from AND c.from_ts < p_to GROUP BY c.ticker, c.hour
  ), withdrawn AS (
    SELECT s.ticker, s.hour, range_agg(tstzrange(s.from_ts, s.to_ts)) AS spans, min(s.withdrawn) AS why
    FROM stream_claims s
    WHERE s.from_ts >= p_from AND s.from_ts < p_to AND s.withdrawn IS NOT NULL GROUP BY s.ticker, s.hour
  ), proofs AS (
    SELECT p.ticker, p.hour, p.verdict FROM book_proofs p WHERE p.hour >= p_from AND p.hour < p_to
  ), followed AS (
    SELECT c.ticker FROM covered c UNION SELECT w.ticker FROM withdrawn w UNION SELECT p.ticker FROM proofs p
    UNION SELECT k.ticker FROM book_checkpoints k WHERE k.checkpoint_ts >= p_from AND k.checkpoint_ts < p_to
  ), first_covered AS (
    SELECT c.ticker, min(c.from_ts) AS from_ts FROM coverage c
    WHERE c.from_ts >= v_before AND c.from_ts < p_to GROUP BY c.ticker
  ), known AS (
    SELECT f.ticker,
           CASE WHEN m.open_time IS NULL THEN v_none ELSE tstzmultirange(tstzrange(NULL, m.open_time)) END AS not_open,
           CASE WHEN m.close_time IS NULL THEN v_none ELSE tstzmultirange(tstzrange(m.close_time, NULL)) END AS over,
           CASE WHEN v_begun IS NULL THEN v_none ELSE tstzmultirange(tstzrange(NULL, v_begun)) END AS not_begun,
           CASE WHEN c.from_ts IS NULL THEN v_none ELSE tstzmultirange(tstzrange(NULL, c.from_ts)) END AS not_followed
    FROM followed f LEFT JOIN markets m ON m.ticker = f.ticker LEFT JOIN first_covered c ON c.ticker = f.ticker
  ), hours AS (
    SELECT h.hour, tstzmultirange(tstzrange(h.hour, h.hour + v_hour)) AS span, c.hour IS NOT NULL AS is_closed,
           EXISTS (SELECT FROM hour_activity a WHERE a.hour = h.hour AND a.rows_inserted > 0) AS is_active,
           array_to_string(c.gatherers_missed, ', ') AS missed
    FROM generate_series(p_from, p_to - INTERVAL '1 microsecond', v_hour) AS h (hour) LEFT JOIN hour_closes c USING (hour)
  ), cut AS (
    SELECT k.ticker, c.spans * h.span AS covered, CASE p.verdict WHEN 'proved' THEN 'proven' ELSE 'claimed' END AS state,
           r0 * k.not_open AS not_open, r1 * k.over AS over, r2 * k.not_begun AS not_begun,
           CASE WHEN h.is_closed THEN v_none ELSE r3 END AS not_closed, h.is_active,
           r4 * w.spans AS withdrawn, w.why, r5 * k.not_followed AS not_followed, r5 - k.not_followed AS lost,
           CASE WHEN h.missed = '' THEN 'not covered' ELSE 'not covered; not read by the close: ' || h.missed END AS lost_why
    FROM known k
    CROSS JOIN hours h
    LEFT JOIN covered c ON c.ticker = k.ticker AND c.hour = h.hour
    LEFT JOIN withdrawn w ON w.ticker = k.ticker AND w.hour = h.hour
    LEFT JOIN proofs p ON p.ticker = k.ticker AND p.hour = h.hour
    CROSS JOIN LATERAL (SELECT h.span - coalesce(c.spans, v_none) AS r0) AS a0
    CROSS JOIN LATERAL (SELECT r0 - k.not_open AS r1) AS a1
    CROSS JOIN LATERAL (SELECT r1 - k.over AS r2) AS a2
    CROSS JOIN LATERAL (SELECT r2 - k.not_begun AS r3) AS a3
    CROSS JOIN LATERAL (SELECT CASE WHEN h.is_closed THEN r3 ELSE v_none END AS r4) AS a4
    CROSS JOIN LATERAL (SELECT r4 - coalesce(w.spans, v_none) AS r5) AS a5
  ), pieces AS (
    SELECT c.ticker, lower(x.span) AS from_ts, upper(x.span) AS to_ts, x.state, x.reason
    FROM cut c CROSS JOIN LATERAL (
      SELECT unnest(c.covered) AS span, c.state, NULL AS reason
      UNION ALL SELECT unnest(c.not_open), 'hole', 'the market was not open yet'
      UNION ALL SELECT unnest(c.over), 'hole', 'the market was closed'
      UNION ALL SELECT unnest(c.not_begun), 'hole', 'recording had not begun'
      UNION ALL SELECT unnest(c.not_closed), 'hole',
                       CASE WHEN c.is_active THEN 'the hour is not closed yet' ELSE 'nothing was recorded in the hour' END
      UNION ALL SELECT unnest(c.withdrawn), 'hole', 'the claim was withdrawn: ' || c.why
      UNION ALL SELECT unnest(c.not_followed), 'hole', 'the market was not followed yet'
      UNION ALL SELECT unnest(c.lost), 'hole', c.lost_why
    ) AS x
  ), marked AS (
    SELECT p.*, ROW(p.state, p.reason) IS DISTINCT FROM ROW(lag(p.state) OVER w, lag(p.reason) OVER w) AS begins
    FROM pieces p WINDOW w AS (PARTITION BY p.ticker ORDER BY p.from_ts)
  ), joined AS (
    SELECT m.*, count(*) FILTER (WHERE m.begins) OVER (PARTITION BY m.ticker ORDER BY m.from_ts) AS part FROM marked m
  )
  SELECT j.ticker, min(j.from_ts), max(j.to_ts), min(j.state), min(j.reason)
  FROM joined j GROUP BY j.ticker, j.part ORDER BY j.ticker COLLATE "C", min(j.from_ts);
END $$;
COMMENT ON FUNCTION market_coverage(timestamptz, timestamptz) IS 'Every moment of [from, to), whole hours, of each market that was followed in it: proven (claimed, and the books of the hour were proved), claimed, or a hole with its reason. Without a gap; neighbours differ. Dropped rows do not matter here: coverage_holes says what production lacks.';
