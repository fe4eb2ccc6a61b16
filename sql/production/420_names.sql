-- Production by the terms of docs/glossary.md; see common/080_names.sql.

SELECT use_names(true);
DROP FUNCTION use_names(boolean);

COMMENT ON TABLE book_checkpoints IS 'Books that folds start from: the book at the END of checkpoint_ts. Apply the deltas with exchange_ts > checkpoint_ts, all of one exchange_ts together.';
COMMENT ON INDEX book_checkpoints_of_market IS 'For the last checkpoint of one market.';
COMMENT ON COLUMN orderbook_snapshots.source_gatherer IS 'The gatherer whose stream or recovery brought the book (ws, rest_recovery); empty for rest, of which each market keeps one per minute.';
COMMENT ON COLUMN merge_statistics.first_observer IS 'Rows that the gatherer received first of all.';
COMMENT ON COLUMN book_proofs.checkpoint_checks IS 'In production: a checkpoint and the deltas after it give the next checkpoint, where all between is covered.';
COMMENT ON COLUMN book_proofs.checkpoint_failures IS 'Of these, the ones that came out otherwise.';
COMMENT ON COLUMN book_proofs.rest_undecided IS 'Polled books that could not be compared: a hole, no checkpoint before, or clocks too far apart.';
COMMENT ON COLUMN hour_closes.checkpoints IS 'Book checkpoints of the hour that the close has made.';
COMMENT ON COLUMN hour_closes.may_grow IS 'A stream that was still open had shown nothing later than the hour: its last moments may be claimed once it does, so the hour is closed again an hour later.';
COMMENT ON TABLE time_regressions IS 'Where the exchange''s time of a market went back within a stream. An empty ticker stands for the stream as a whole.';
COMMENT ON COLUMN trade_checks.skipped IS 'Objects of the listing that could not be read.';
COMMENT ON COLUMN merge_cursors.last_commit_batch_no IS 'The last batch with rows that was read.';
COMMENT ON COLUMN merge_cursors.last_commit_at IS 'When the gatherer committed that batch: another moment under its number means that the database was restored, and numbers anew.';
COMMENT ON COLUMN merge_cursors.token IS 'The token of batch batch_no: where the gatherer has another one under that number, or none, its database is not the one that was read, and is read from its beginning. NULL: the batch is older than tokens, and last_commit_at decides.';
COMMENT ON TABLE catalog_pending IS 'Objects that were merged while the catalog of a gatherer could not be read; they are read there when it answers again.';
COMMENT ON COLUMN dead_letters.quarantined_at IS 'When the row was put here, by production''s clock.';

CREATE OR REPLACE FUNCTION hour_coverage(p_hour timestamptz)
RETURNS TABLE (ticker text, open_us bigint, covered_us bigint)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
  v_before timestamptz := p_hour - INTERVAL '1 hour';
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
    UNION ALL
    -- Nothing at all for longer than that: then every market that was open by the catalog.
    SELECT m.ticker FROM markets m
    WHERE NOT EXISTS (SELECT FROM recorded)
      AND coalesce(m.open_time, p_hour) < v_high AND coalesce(m.close_time, v_high) > p_hour
  ),
  covered AS (
    SELECT c.ticker, sum(extract(epoch FROM least(c.to_ts, v_high) - c.from_ts) * 1000000)::bigint AS us
    FROM coverage c WHERE c.from_ts >= p_hour AND c.from_ts < v_high
    GROUP BY c.ticker
  )
  SELECT seen.ticker,
    greatest(0, coalesce(covered.us, 0), (extract(epoch FROM
      least(coalesce(m.close_time, v_high), v_high) - greatest(coalesce(m.open_time, p_hour), p_hour)
    ) * 1000000)::bigint),
    coalesce(covered.us, 0)
  FROM seen
  LEFT JOIN covered ON covered.ticker = seen.ticker
  LEFT JOIN markets m ON m.ticker = seen.ticker;
END $$;

CREATE OR REPLACE FUNCTION book_basis(p_ticker text, p_at timestamptz, p_look_back interval DEFAULT '24 hours')
RETURNS TABLE (state text, base text, base_ts timestamptz, uncovered_from timestamptz,
               yes_price_e4 integer[], yes_count_e2 bigint[], no_price_e4 integer[], no_count_e2 bigint[])
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
  v_low timestamptz := p_at - p_look_back;
  v_after timestamptz := p_at + INTERVAL '1 microsecond';
BEGIN
  RETURN QUERY
  WITH checkpoint AS (
    SELECT k.checkpoint_ts, k.yes_price_e4, k.yes_count_e2, k.no_price_e4, k.no_count_e2,
           (SELECT min(h.from_ts)
            FROM coverage_holes(p_ticker, k.checkpoint_ts + INTERVAL '1 microsecond', v_after) h) AS uncovered_from
    FROM book_checkpoints k
    WHERE k.ticker = p_ticker AND k.checkpoint_ts <= p_at AND k.checkpoint_ts > v_low
    ORDER BY k.checkpoint_ts DESC, k.gatherer, k.stream_id, k.seq LIMIT 1
  ), seen AS (
    -- A polled book is stored under its minute and was received within it.
    SELECT s.source, s.received_at, s.yes_price_e4, s.yes_count_e2, s.no_price_e4, s.no_count_e2
    FROM orderbook_snapshots s
    WHERE s.ticker = p_ticker AND s.snapshot_ts <= p_at AND s.snapshot_ts > v_low AND s.received_at <= p_at
    ORDER BY s.snapshot_ts DESC, s.received_at DESC LIMIT 1
  ), bases AS (
    SELECT 'checkpoint' AS base, k.checkpoint_ts AS base_ts, k.uncovered_from, k.uncovered_from IS NULL AS is_proven,
           k.yes_price_e4, k.yes_count_e2, k.no_price_e4, k.no_count_e2
    FROM checkpoint k
    UNION ALL
    SELECT s.source, s.received_at, (SELECT k.uncovered_from FROM checkpoint k), false,
           s.yes_price_e4, s.yes_count_e2, s.no_price_e4, s.no_count_e2
    FROM seen s
  ), best AS (
    SELECT b.* FROM bases b ORDER BY b.is_proven DESC, b.base_ts DESC LIMIT 1
  )
  SELECT CASE WHEN b.is_proven THEN 'proven' WHEN b.base IS NOT NULL THEN 'approximate' ELSE 'unknown' END,
         b.base, b.base_ts, b.uncovered_from,
         b.yes_price_e4, b.yes_count_e2, b.no_price_e4, b.no_count_e2
  FROM (SELECT 1) AS one LEFT JOIN best b ON true;
END $$;

CREATE OR REPLACE FUNCTION closed_rows(p_table text, p_from timestamptz, p_to timestamptz)
RETURNS TABLE (hour timestamptz, rows bigint, is_gone boolean, dropped_at timestamptz) LANGUAGE sql STABLE AS $$
  SELECT c.hour, n.rows,
         CASE WHEN d.hour IS NOT NULL THEN n.rows IS DISTINCT FROM 0 WHEN n.rows > 0 THEN NOT has_partition(p_table, c.hour)
              ELSE false END,
         d.dropped_at
  FROM hour_closes c
  LEFT JOIN dropped_hours d ON d.table_name = p_table AND d.hour = c.hour
  CROSS JOIN LATERAL (
    SELECT CASE WHEN p_table = 'book_checkpoints' THEN c.checkpoints ELSE (c.rows ->> p_table)::bigint END AS rows
  ) AS n
  WHERE c.hour >= date_trunc('hour', p_from, 'UTC') AND c.hour < p_to
  ORDER BY c.hour
$$;

CREATE OR REPLACE FUNCTION hour_coverage_share(p_hour timestamptz)
RETURNS TABLE (markets bigint, open_us bigint, covered_us bigint, share double precision, is_recorded boolean)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
  -- Which markets there were is known from their rows, and no longer when those were dropped.
  IF EXISTS (SELECT FROM dropped_hours d WHERE d.hour = p_hour AND d.table_name = 'coverage')
     OR EXISTS (SELECT FROM unnest(ARRAY['orderbook_deltas', 'orderbook_snapshots', 'book_checkpoints']) AS t (name),
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
COMMENT ON FUNCTION book_basis(text, timestamptz, interval) IS 'One row: what the book of a market at t is folded from, and how much that is worth. proven: a checkpoint, and every delta since is there. approximate: something is missing (from uncovered_from on, if there is a checkpoint), so the newest book seen is taken, polled ones included. unknown: no book within the look-back.';
