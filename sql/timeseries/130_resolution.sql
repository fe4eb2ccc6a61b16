-- How often the book of a market was really stored by the polls, from the stored books themselves: it costs nothing to
-- keep and cannot differ from what is there. A poll of 20,000 markets a minute is 1.2 million rows an hour; ask for the
-- span that matters.

CREATE OR REPLACE FUNCTION book_resolution(low timestamptz, high timestamptz, of_ticker text DEFAULT NULL)
RETURNS TABLE (ticker text, hour timestamptz, books bigint, longest_gap_s double precision)
LANGUAGE sql STABLE AS $f$
  SELECT polled.ticker, date_trunc('hour', polled.snapshot_ts), count(*), max(polled.gap_s)::double precision
  FROM (
    SELECT s.ticker, s.snapshot_ts,
      extract(epoch FROM s.snapshot_ts - lag(s.snapshot_ts) OVER (PARTITION BY s.ticker ORDER BY s.snapshot_ts)) AS gap_s
    FROM orderbook_snapshots s
    WHERE s.source = 'rest' AND s.snapshot_ts >= low AND s.snapshot_ts < high
      AND (of_ticker IS NULL OR s.ticker = of_ticker)
  ) polled
  GROUP BY 1, 2 ORDER BY 1, 2
$f$;
COMMENT ON FUNCTION book_resolution IS 'Books stored by the minute''s polls in [low, high): one row per market and hour. books: how many; longest_gap_s: the longest time between two of them, NULL for the first of the span alone.';
