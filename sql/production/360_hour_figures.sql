-- How complete an hour is, one row per market that should be in it. Asset checks, their figures and the lake's
-- manifests all read this, so they cannot disagree.

CREATE OR REPLACE FUNCTION hour_coverage(p_hour timestamptz)
RETURNS TABLE (ticker text, open_us bigint, covered_us bigint)
LANGUAGE sql STABLE PARALLEL SAFE AS $f$
  WITH bounds AS (SELECT p_hour AS low, p_hour + interval '1 hour' AS high),
  recorded AS (
    SELECT d.ticker FROM orderbook_deltas d, bounds WHERE d.exchange_ts >= bounds.low AND d.exchange_ts < bounds.high
    UNION
    SELECT s.ticker FROM orderbook_snapshots s, bounds WHERE s.snapshot_ts >= bounds.low AND s.snapshot_ts < bounds.high
    UNION
    -- A market that was followed in the hour before is missed where nothing of it is in this one.
    SELECT c.ticker FROM coverage c, bounds
    WHERE c.from_ts >= bounds.low - interval '1 hour' AND c.from_ts < bounds.high
    UNION
    SELECT a.ticker FROM book_anchors a, bounds
    WHERE a.anchor_ts >= bounds.low - interval '1 hour' AND a.anchor_ts < bounds.high
  ),
  seen AS (
    SELECT r.ticker FROM recorded r
    UNION ALL
    -- Nothing at all for longer than that: then every market that was open by the catalog.
    SELECT m.ticker FROM markets m, bounds
    WHERE NOT EXISTS (SELECT FROM recorded)
      AND coalesce(m.open_time, bounds.low) < bounds.high AND coalesce(m.close_time, bounds.high) > bounds.low
  ),
  covered AS (
    SELECT c.ticker, sum(extract(epoch FROM least(c.to_ts, bounds.high) - c.from_ts) * 1000000)::bigint AS us
    FROM coverage c, bounds WHERE c.from_ts >= bounds.low AND c.from_ts < bounds.high
    GROUP BY c.ticker
  )
  SELECT seen.ticker,
    greatest(0, coalesce(covered.us, 0), (extract(epoch FROM
      least(coalesce(m.close_time, bounds.high), bounds.high) - greatest(coalesce(m.open_time, bounds.low), bounds.low)
    ) * 1000000)::bigint),
    coalesce(covered.us, 0)
  FROM seen CROSS JOIN bounds
  LEFT JOIN covered ON covered.ticker = seen.ticker
  LEFT JOIN markets m ON m.ticker = seen.ticker
$f$;
COMMENT ON FUNCTION hour_coverage(timestamptz) IS
  'Markets recorded in the hour that begins at the argument or followed in the one before (without any: those open by the catalog): microseconds of it in which the market was open by the catalog (all of it where the catalog does not know), and those that are covered.';
