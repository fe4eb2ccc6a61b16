-- The share of an hour that a market's record covers is one of its open time, here as everywhere; and figures of rows that
-- were dropped are unknown, not zero.

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
         round(s.covered_s / nullif(greatest(s.open_s, s.covered_s), 0), 6),
         (SELECT p.verdict FROM book_proofs p
          WHERE p.ticker = p_ticker AND p.hour = h.hour AND p.hour >= v_low AND p.hour < v_high),
         coalesce((SELECT max(p.state) FILTER (WHERE p.state = 'differs') FROM trade_parity p
                   WHERE p.ticker = p_ticker AND p.hour = h.hour), k.state, 'not checked'),
         CASE WHEN g.no_trades THEN NULL ELSE t.trades END,
         CASE WHEN g.no_trades THEN NULL ELSE contracts(t.count_e2) END,
         CASE WHEN g.no_trades THEN NULL ELSE contracts(t.block_e2) END,
         dollars(t.first_e4), dollars(t.low_e4), dollars(t.high_e4), dollars(t.last_e4)
  FROM generate_series(v_low, v_last, INTERVAL '1 hour') AS h (hour)
  LEFT JOIN hour_closes c ON c.hour = h.hour
  LEFT JOIN trade_checks k ON k.hour = h.hour
  LEFT JOIN markets m ON m.ticker = p_ticker
  CROSS JOIN LATERAL (
    SELECT greatest(0, extract(epoch FROM least(m.close_time, h.hour + INTERVAL '1 hour') - greatest(m.open_time, h.hour)))
             AS open_s,
           (SELECT coalesce(sum(extract(epoch FROM r.to_ts - r.from_ts)), 0) FROM coverage r
            WHERE r.ticker = p_ticker AND r.from_ts >= h.hour AND r.from_ts < h.hour + INTERVAL '1 hour'
              AND r.from_ts >= v_low AND r.from_ts < v_high) AS covered_s
  ) AS s
  CROSS JOIN LATERAL (
    SELECT EXISTS (SELECT FROM closed_rows('trades', h.hour, h.hour + INTERVAL '1 hour') w WHERE w.is_gone) AS no_trades
  ) AS g
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
COMMENT ON FUNCTION market_hours(text, timestamptz, timestamptz) IS 'One row per hour: how complete the record of a market is (share of its open time that is covered, NULL where it was not open; verdict on its books; trades against the exchange''s listing), and what was traded; prices and trades without block trades. trades_state is that of the hour, or differs when the market''s own trades do. What was traded is NULL where the trades of the hour were dropped since.';
