-- The questions of 350 to 361 again, so that each touches the partitions of its own time, however many there are.
--
-- A partition that is not ruled out while a statement is planned is locked until the transaction ends, and the lock
-- table is finite. The planner rules partitions out by constants: neither now(), nor a time computed from a timestamptz,
-- nor a column, nor a parameter of a plan that is kept is one. So moments are computed first, and every statement is
-- planned with them as they are. In times ranges have two ends.

-- what is complete --------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION coverage_holes(p_ticker text, p_from timestamptz, p_to timestamptz)
RETURNS TABLE (from_ts timestamptz, to_ts timestamptz)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
  -- Ranges are cut at hours, so that none begins before the hour of p_from and holds it.
  v_low timestamptz := date_trunc('hour', p_from, 'UTC');
BEGIN
  RETURN QUERY
  SELECT lower(hole), upper(hole)
  FROM unnest(tstzmultirange(tstzrange(p_from, p_to)) - coalesce((
    SELECT range_agg(tstzrange(c.from_ts, c.to_ts)) FROM coverage c
    WHERE c.ticker = p_ticker AND c.from_ts >= v_low AND c.from_ts < p_to
  ), tstzmultirange())) AS hole
  ORDER BY 1;
END $$;

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
    SELECT a.ticker FROM book_anchors a WHERE a.anchor_ts >= v_before AND a.anchor_ts < v_high
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

-- books -------------------------------------------------------------------------------------------------------------

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
  WITH anchor AS (
    SELECT a.anchor_ts, a.yes_price_e4, a.yes_count_e2, a.no_price_e4, a.no_count_e2,
           (SELECT min(h.from_ts)
            FROM coverage_holes(p_ticker, a.anchor_ts + INTERVAL '1 microsecond', v_after) h) AS uncovered_from
    FROM book_anchors a
    WHERE a.ticker = p_ticker AND a.anchor_ts <= p_at AND a.anchor_ts > v_low
    ORDER BY a.anchor_ts DESC, a.gatherer, a.stream_id, a.seq LIMIT 1
  ), seen AS (
    -- A polled book is stored under its minute and was received within it.
    SELECT s.source, s.received_at, s.yes_price_e4, s.yes_count_e2, s.no_price_e4, s.no_count_e2
    FROM orderbook_snapshots s
    WHERE s.ticker = p_ticker AND s.snapshot_ts <= p_at AND s.snapshot_ts > v_low AND s.received_at <= p_at
    ORDER BY s.snapshot_ts DESC, s.received_at DESC LIMIT 1
  ), bases AS (
    SELECT 'anchor' AS base, a.anchor_ts AS base_ts, a.uncovered_from, a.uncovered_from IS NULL AS is_proven,
           a.yes_price_e4, a.yes_count_e2, a.no_price_e4, a.no_count_e2
    FROM anchor a
    UNION ALL
    SELECT s.source, s.received_at, (SELECT a.uncovered_from FROM anchor a), false,
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

CREATE OR REPLACE FUNCTION book_at(p_ticker text, p_at timestamptz, p_look_back interval DEFAULT '24 hours')
RETURNS TABLE (side text, price_e4 integer, count_e2 bigint, state text, base_ts timestamptz)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
  v_basis record;
  v_base_ts timestamptz;
BEGIN
  SELECT b.* INTO v_basis FROM book_basis(p_ticker, p_at, p_look_back) b;
  IF v_basis.base IS NULL THEN RETURN; END IF;
  v_base_ts := v_basis.base_ts;
  RETURN QUERY
  WITH changes AS (
    SELECT 'yes' AS side, l.price, l.count FROM unnest(v_basis.yes_price_e4, v_basis.yes_count_e2) AS l (price, count)
    UNION ALL
    SELECT 'no', l.price, l.count FROM unnest(v_basis.no_price_e4, v_basis.no_count_e2) AS l (price, count)
    UNION ALL
    SELECT d.side, d.price_e4, d.delta_e2 FROM orderbook_deltas d
    WHERE d.ticker = p_ticker AND d.exchange_ts > v_base_ts AND d.exchange_ts <= p_at
  ), levels AS (
    SELECT c.side, c.price, sum(c.count)::bigint AS size FROM changes c GROUP BY c.side, c.price HAVING sum(c.count) <> 0
  )
  -- A level below zero is what only a lost delta explains.
  SELECT l.side, l.price, l.size, CASE WHEN min(l.size) OVER () < 0 THEN 'approximate' ELSE v_basis.state END, v_base_ts
  FROM levels l ORDER BY l.side DESC, l.price;
END $$;

CREATE OR REPLACE FUNCTION latest_quotes(p_within interval DEFAULT '15 minutes')
RETURNS TABLE (ticker text, exchange_ts timestamptz, bid_dollars numeric, bid_contracts numeric, ask_dollars numeric,
               ask_contracts numeric, last_price_dollars numeric)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
  v_low timestamptz := now() - p_within;
BEGIN
  RETURN QUERY
  SELECT DISTINCT ON (t.ticker) t.ticker, t.exchange_ts, dollars(t.yes_bid_e4), contracts(t.yes_bid_size_e2),
         dollars(t.yes_ask_e4), contracts(t.yes_ask_size_e2), dollars(t.price_e4)
  FROM tickers t WHERE t.exchange_ts > v_low
  ORDER BY t.ticker, t.exchange_ts DESC, t.gatherer DESC, t.stream_id DESC, t.seq DESC;
END $$;

-- trades ------------------------------------------------------------------------------------------------------------

-- From the end back, in spans that double until there are enough: a busy market is answered by its last day.
CREATE OR REPLACE FUNCTION last_trades(p_ticker text, p_count integer DEFAULT 20, p_until timestamptz DEFAULT 'infinity')
RETURNS TABLE (exchange_ts timestamptz, trade_id text, yes_price_dollars numeric, no_price_dollars numeric,
               contracts numeric, taker_side text, is_block_trade boolean, source text)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
  v_high timestamptz := p_until;
  v_span interval := INTERVAL '1 day';
  v_low timestamptz := least(p_until, now()) - v_span;
  -- No market was traded before the exchange made it, and none before there was an exchange.
  v_first timestamptz := coalesce((SELECT m.created_time - INTERVAL '1 day' FROM markets m WHERE m.ticker = p_ticker),
                                  TIMESTAMPTZ '2021-01-01 00:00:00+00');
  v_left integer := p_count;
  v_found bigint;
BEGIN
  WHILE v_left IS NULL OR v_left > 0 LOOP
    RETURN QUERY
    SELECT t.exchange_ts, t.trade_id, dollars(t.yes_price_e4), dollars(t.no_price_e4), contracts(t.count_e2),
           t.taker_side, t.is_block_trade, t.source
    FROM trades t WHERE t.ticker = p_ticker AND t.exchange_ts <= v_high AND t.exchange_ts > v_low
    ORDER BY t.exchange_ts DESC, t.created_time DESC, t.gatherer DESC, t.stream_id DESC, t.seq DESC LIMIT v_left;
    EXIT WHEN v_low <= v_first;
    GET DIAGNOSTICS v_found = ROW_COUNT;
    v_left := v_left - v_found;
    v_high := v_low;
    v_span := v_span * 2;
    v_low := v_low - v_span;
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION market_hours(p_ticker text, p_from timestamptz, p_to timestamptz)
RETURNS TABLE (hour timestamptz, is_closed boolean, covered_share numeric, book_verdict text, trades_state text,
               trades bigint, contracts numeric, block_contracts numeric, first_dollars numeric, low_dollars numeric,
               high_dollars numeric, last_dollars numeric)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
  v_low timestamptz := date_trunc('hour', p_from, 'UTC');
  v_last timestamptz := p_to - INTERVAL '1 microsecond';
  v_high timestamptz := date_trunc('hour', v_last, 'UTC') + INTERVAL '1 hour';
BEGIN
  RETURN QUERY
  SELECT h.hour, c.hour IS NOT NULL,
         (SELECT round(coalesce(sum(extract(epoch FROM r.to_ts - r.from_ts)), 0) / 3600, 6) FROM coverage r
          WHERE r.ticker = p_ticker AND r.from_ts >= h.hour AND r.from_ts < h.hour + INTERVAL '1 hour'
            AND r.from_ts >= v_low AND r.from_ts < v_high),
         (SELECT p.verdict FROM book_proofs p
          WHERE p.ticker = p_ticker AND p.hour = h.hour AND p.hour >= v_low AND p.hour < v_high),
         coalesce((SELECT max(p.state) FILTER (WHERE p.state = 'differs') FROM trade_parity p
                   WHERE p.ticker = p_ticker AND p.hour = h.hour), k.state, 'not checked'),
         t.trades, contracts(t.count_e2), contracts(t.block_e2), dollars(t.first_e4), dollars(t.low_e4),
         dollars(t.high_e4), dollars(t.last_e4)
  FROM generate_series(v_low, v_last, INTERVAL '1 hour') AS h (hour)
  LEFT JOIN hour_closes c ON c.hour = h.hour
  LEFT JOIN trade_checks k ON k.hour = h.hour
  CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE NOT x.is_block_trade) AS trades,
           coalesce(sum(x.count_e2) FILTER (WHERE NOT x.is_block_trade), 0) AS count_e2,
           coalesce(sum(x.count_e2) FILTER (WHERE x.is_block_trade), 0) AS block_e2,
           (array_agg(x.yes_price_e4 ORDER BY x.exchange_ts, x.created_time, x.gatherer, x.stream_id, x.seq)
              FILTER (WHERE NOT x.is_block_trade))[1] AS first_e4,
           min(x.yes_price_e4) FILTER (WHERE NOT x.is_block_trade) AS low_e4,
           max(x.yes_price_e4) FILTER (WHERE NOT x.is_block_trade) AS high_e4,
           (array_agg(x.yes_price_e4 ORDER BY x.exchange_ts DESC, x.created_time DESC, x.gatherer DESC, x.stream_id DESC,
                                       x.seq DESC)
              FILTER (WHERE NOT x.is_block_trade))[1] AS last_e4
    FROM trades x
    WHERE x.ticker = p_ticker AND x.exchange_ts >= h.hour AND x.exchange_ts < h.hour + INTERVAL '1 hour'
      AND x.exchange_ts >= v_low AND x.exchange_ts < v_high
  ) AS t
  ORDER BY h.hour;
END $$;
