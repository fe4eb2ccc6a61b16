-- Rows of one market and moment follow each other as they happened: by the exchange's time to the microsecond where its
-- listing gave it (the close of an hour reads it for every trade), then as their stream sent them. Rows of one moment come
-- from one stream where one has them all. A trade's identifier is random: as an order it made two of a hundred candles wrong.

CREATE OR REPLACE FUNCTION latest_quotes(p_within interval DEFAULT '15 minutes')
RETURNS TABLE (ticker text, exchange_ts timestamptz, bid_dollars numeric, bid_contracts numeric, ask_dollars numeric,
               ask_contracts numeric, last_price_dollars numeric)
LANGUAGE sql STABLE AS $$
  SELECT DISTINCT ON (t.ticker) t.ticker, t.exchange_ts, dollars(t.yes_bid_e4), contracts(t.yes_bid_size_e2),
         dollars(t.yes_ask_e4), contracts(t.yes_ask_size_e2), dollars(t.price_e4)
  FROM tickers t WHERE t.exchange_ts > now() - p_within
  ORDER BY t.ticker, t.exchange_ts DESC, t.gatherer DESC, t.stream_id DESC, t.seq DESC
$$;

CREATE OR REPLACE FUNCTION last_trades(p_ticker text, p_count integer DEFAULT 20, p_until timestamptz DEFAULT 'infinity')
RETURNS TABLE (exchange_ts timestamptz, trade_id text, yes_price_dollars numeric, no_price_dollars numeric,
               contracts numeric, taker_side text, is_block_trade boolean, source text)
LANGUAGE sql STABLE AS $$
  SELECT t.exchange_ts, t.trade_id, dollars(t.yes_price_e4), dollars(t.no_price_e4), contracts(t.count_e2), t.taker_side,
         t.is_block_trade, t.source
  FROM trades t WHERE t.ticker = p_ticker AND t.exchange_ts <= p_until
  ORDER BY t.exchange_ts DESC, t.created_time DESC, t.gatherer DESC, t.stream_id DESC, t.seq DESC LIMIT p_count
$$;

CREATE OR REPLACE FUNCTION market_hours(p_ticker text, p_from timestamptz, p_to timestamptz)
RETURNS TABLE (hour timestamptz, is_closed boolean, covered_share numeric, book_verdict text, trades_state text,
               trades bigint, contracts numeric, block_contracts numeric, first_dollars numeric, low_dollars numeric,
               high_dollars numeric, last_dollars numeric)
LANGUAGE sql STABLE AS $$
  SELECT h.hour, c.hour IS NOT NULL,
         (SELECT round(coalesce(sum(extract(epoch FROM r.to_ts - r.from_ts)), 0) / 3600, 6) FROM coverage r
          WHERE r.ticker = p_ticker AND r.from_ts >= h.hour AND r.from_ts < h.hour + INTERVAL '1 hour'),
         (SELECT p.verdict FROM book_proofs p WHERE p.ticker = p_ticker AND p.hour = h.hour),
         coalesce((SELECT max(p.state) FILTER (WHERE p.state = 'differs') FROM trade_parity p
                   WHERE p.ticker = p_ticker AND p.hour = h.hour), k.state, 'not checked'),
         t.trades, contracts(t.count_e2), contracts(t.block_e2), dollars(t.first_e4), dollars(t.low_e4),
         dollars(t.high_e4), dollars(t.last_e4)
  FROM generate_series(date_trunc('hour', p_from, 'UTC'), p_to - INTERVAL '1 microsecond', INTERVAL '1 hour') AS h (hour)
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
  ) AS t
  ORDER BY h.hour
$$;
