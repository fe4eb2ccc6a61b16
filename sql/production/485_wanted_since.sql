-- Coverage is judged from when a market was first wanted: nobody could record it before this platform knew of it.
-- Coverage misses a market for a day after it was followed last: a shard that is off does not leave the share by itself.

CREATE OR REPLACE FUNCTION hour_coverage(p_hour timestamptz)
RETURNS TABLE (ticker text, open_us bigint, covered_us bigint)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
  v_before timestamptz := p_hour - INTERVAL '1 hour';
  v_day_before timestamptz := p_hour - INTERVAL '1 day';
  v_high timestamptz := p_hour + INTERVAL '1 hour';
BEGIN
  RETURN QUERY
  WITH recorded AS (
    SELECT d.ticker FROM orderbook_deltas d WHERE d.exchange_ts >= p_hour AND d.exchange_ts < v_high
    UNION
    SELECT s.ticker FROM orderbook_snapshots s WHERE s.snapshot_ts >= p_hour AND s.snapshot_ts < v_high
    UNION
    -- A market that was followed in the hour before is missed where nothing of it is in this one.
    SELECT c.ticker FROM coverage c WHERE c.from_ts >= v_before AND c.from_ts < v_high
    UNION
    SELECT k.ticker FROM book_checkpoints k WHERE k.checkpoint_ts >= v_before AND k.checkpoint_ts < v_high
  ),
  seen AS (
    SELECT r.ticker FROM recorded r
    UNION
    -- So is one that was followed in the day before and is not over: its gatherer may be off for long.
    SELECT c.ticker FROM coverage c JOIN markets m ON m.ticker = c.ticker
    WHERE c.from_ts >= v_day_before AND c.from_ts < v_before
      AND coalesce(least(m.close_time, m.settlement_time), v_high) > p_hour
    UNION
    -- Nothing at all for longer than that: then every market that was open by the catalog.
    SELECT m.ticker FROM markets m
    WHERE NOT EXISTS (SELECT FROM recorded)
      AND coalesce(m.open_time, p_hour) < v_high AND coalesce(m.close_time, v_high) > p_hour
      AND m.first_seen_at < v_high
  ),
  covered AS (
    SELECT c.ticker, min(c.from_ts) AS since,
           sum(extract(epoch FROM least(c.to_ts, v_high) - c.from_ts) * 1000000)::bigint AS us
    FROM coverage c WHERE c.from_ts >= p_hour AND c.from_ts < v_high
    GROUP BY c.ticker
  )
  SELECT seen.ticker,
    greatest(0, coalesce(covered.us, 0), (extract(epoch FROM
      least(coalesce(m.close_time, v_high), v_high) - greatest(
        coalesce(m.open_time, p_hour), p_hour,
        -- A market that was first seen within the hour is wanted from then on; to follow it may take a minute.
        CASE WHEN m.first_seen_at > p_hour AND m.first_seen_at < v_high
             THEN least(covered.since, m.first_seen_at + INTERVAL '1 minute') END)
    ) * 1000000)::bigint),
    coalesce(covered.us, 0)
  FROM seen
  LEFT JOIN covered ON covered.ticker = seen.ticker
  LEFT JOIN markets m ON m.ticker = seen.ticker;
END $$;

COMMENT ON FUNCTION hour_coverage(timestamptz) IS 'One row per market of an hour: those recorded in it or followed in the hour before, those followed in the day before that were not closed or settled by then, and where nothing was recorded in either hour, all that the catalog had open: for how long it was open, and wanted, and how much of that coverage holds, in microseconds. A market that this platform saw first within the hour is wanted from the moment at which it was first followed, but from a minute after that first sight at the latest. A market that filters leave out is missed for a day as well.';

COMMENT ON FUNCTION hour_coverage_share(timestamptz) IS 'One row: the coverage share (0 … 1) of an hour, which is the part that coverage holds of the open time of the markets recorded in the hour or followed in the day before; see hour_coverage. NULL: no market was open. Where rows of the hour were dropped since, what its close recorded (is_recorded; NULL where that close recorded no share).';
