-- Questions that people ask of production, as functions; docs/queries.md shows each with an example.
-- Books are kept as bids of both outcomes, on the no-leg scale: a bid for no at 0.40 is an offer of yes at 0.60.
-- "At t" means at the end of that moment of the exchange's clock. Times without a zone are UTC in these databases.

CREATE INDEX IF NOT EXISTS trades_of_market ON trades (ticker, exchange_ts);
CREATE INDEX IF NOT EXISTS orderbook_snapshots_of_market ON orderbook_snapshots (ticker, snapshot_ts);
CREATE INDEX IF NOT EXISTS book_anchors_of_market ON book_anchors (ticker, anchor_ts);
COMMENT ON INDEX trades_of_market IS 'For the last trades of one market.';
COMMENT ON INDEX orderbook_snapshots_of_market IS 'For the last book of one market.';
COMMENT ON INDEX book_anchors_of_market IS 'For the last anchor of one market.';

-- units -------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION dollars(p_price_e4 bigint) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT round(p_price_e4 / 10000.0, 4)
$$;
COMMENT ON FUNCTION dollars(bigint) IS 'A price in 1/10,000 dollar as dollars, exactly.';

CREATE OR REPLACE FUNCTION contracts(p_count_e2 numeric) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT round(p_count_e2 / 100.0, 2)
$$;
COMMENT ON FUNCTION contracts(numeric) IS 'A size in 1/100 contract as contracts, exactly.';

-- what is complete --------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION coverage_holes(p_ticker text, p_from timestamptz, p_to timestamptz)
RETURNS TABLE (from_ts timestamptz, to_ts timestamptz) LANGUAGE sql STABLE AS $$
  SELECT lower(hole), upper(hole)
  FROM unnest(tstzmultirange(tstzrange(p_from, p_to)) - coalesce((
    -- Ranges are cut at hours, so that none begins before the hour of p_from and holds it.
    SELECT range_agg(tstzrange(c.from_ts, c.to_ts)) FROM coverage c
    WHERE c.ticker = p_ticker AND c.from_ts >= date_trunc('hour', p_from, 'UTC') AND c.from_ts < p_to
  ), tstzmultirange())) AS hole
  ORDER BY 1
$$;
COMMENT ON FUNCTION coverage_holes(text, timestamptz, timestamptz) IS 'When production may lack order-book deltas of a market: the parts of [from, to) that no claim covers: holes, hours that nobody has closed yet, and what came after the close of an hour that still runs.';

-- books -------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION book_basis(p_ticker text, p_at timestamptz, p_look_back interval DEFAULT '24 hours')
RETURNS TABLE (state text, base text, base_ts timestamptz, uncovered_from timestamptz,
               yes_price_e4 integer[], yes_count_e2 bigint[], no_price_e4 integer[], no_count_e2 bigint[])
LANGUAGE sql STABLE AS $$
  WITH anchor AS (
    SELECT a.anchor_ts, a.yes_price_e4, a.yes_count_e2, a.no_price_e4, a.no_count_e2,
           (SELECT min(h.from_ts) FROM coverage_holes(p_ticker, a.anchor_ts + INTERVAL '1 microsecond',
                                                      p_at + INTERVAL '1 microsecond') h) AS uncovered_from
    FROM book_anchors a
    WHERE a.ticker = p_ticker AND a.anchor_ts <= p_at AND a.anchor_ts > p_at - p_look_back
    ORDER BY a.anchor_ts DESC, a.gatherer, a.stream_id, a.seq LIMIT 1
  ), seen AS (
    -- A polled book is stored under its minute and was received within it.
    SELECT s.source, s.received_at, s.yes_price_e4, s.yes_count_e2, s.no_price_e4, s.no_count_e2
    FROM orderbook_snapshots s
    WHERE s.ticker = p_ticker AND s.snapshot_ts <= p_at AND s.snapshot_ts > p_at - p_look_back
      AND s.received_at <= p_at
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
  FROM (SELECT 1) AS one LEFT JOIN best b ON true
$$;
COMMENT ON FUNCTION book_basis(text, timestamptz, interval) IS 'One row: what the book of a market at t is folded from, and how much that is worth. proven: an anchor, and every delta since is there. approximate: something is missing (from uncovered_from on, if there is an anchor), so the newest book seen is taken, polled ones included. unknown: no book within the look-back.';

CREATE OR REPLACE FUNCTION book_at(p_ticker text, p_at timestamptz, p_look_back interval DEFAULT '24 hours')
RETURNS TABLE (side text, price_e4 integer, count_e2 bigint, state text, base_ts timestamptz)
LANGUAGE sql STABLE AS $$
  WITH basis AS MATERIALIZED (
    SELECT b.* FROM book_basis(p_ticker, p_at, p_look_back) b WHERE b.base IS NOT NULL
  ), changes AS (
    SELECT 'yes' AS side, l.price, l.count FROM basis b, unnest(b.yes_price_e4, b.yes_count_e2) AS l (price, count)
    UNION ALL
    SELECT 'no', l.price, l.count FROM basis b, unnest(b.no_price_e4, b.no_count_e2) AS l (price, count)
    UNION ALL
    SELECT d.side, d.price_e4, d.delta_e2 FROM orderbook_deltas d
    WHERE d.ticker = p_ticker AND d.exchange_ts > (SELECT b.base_ts FROM basis b) AND d.exchange_ts <= p_at
  ), levels AS (
    SELECT c.side, c.price, sum(c.count)::bigint AS size FROM changes c GROUP BY c.side, c.price HAVING sum(c.count) <> 0
  )
  -- A level below zero is what only a lost delta explains.
  SELECT l.side, l.price, l.size, CASE WHEN min(l.size) OVER () < 0 THEN 'approximate' ELSE b.state END, b.base_ts
  FROM levels l, basis b ORDER BY l.side DESC, l.price
$$;
COMMENT ON FUNCTION book_at(text, timestamptz, interval) IS 'The book of a market at the end of t: bids for yes and bids for no (no-leg scale), ascending by price, in 1/10,000 dollar and 1/100 contract. state: see book_basis. No rows: the book is empty, or unknown (ask book_basis).';

CREATE OR REPLACE FUNCTION yes_book_at(p_ticker text, p_at timestamptz, p_look_back interval DEFAULT '24 hours')
RETURNS TABLE (side text, price_dollars numeric, contracts numeric, state text) LANGUAGE sql STABLE AS $$
  SELECT CASE b.side WHEN 'yes' THEN 'bid' ELSE 'ask' END,
         dollars(CASE b.side WHEN 'yes' THEN b.price_e4 ELSE 10000 - b.price_e4 END), contracts(b.count_e2), b.state
  FROM book_at(p_ticker, p_at, p_look_back) b
  ORDER BY 1, CASE b.side WHEN 'yes' THEN -b.price_e4 ELSE 10000 - b.price_e4 END
$$;
COMMENT ON FUNCTION yes_book_at(text, timestamptz, interval) IS 'The same book seen from yes: asks and bids in dollars and contracts, best price first.';

CREATE OR REPLACE FUNCTION best_bid_offer(p_ticker text, p_at timestamptz, p_look_back interval DEFAULT '24 hours')
RETURNS TABLE (bid_dollars numeric, bid_contracts numeric, ask_dollars numeric, ask_contracts numeric,
               spread_dollars numeric, state text)
LANGUAGE sql STABLE AS $$
  WITH book AS MATERIALIZED (SELECT b.* FROM yes_book_at(p_ticker, p_at, p_look_back) b WHERE b.contracts > 0),
  bid AS (SELECT b.* FROM book b WHERE b.side = 'bid' ORDER BY b.price_dollars DESC LIMIT 1),
  ask AS (SELECT b.* FROM book b WHERE b.side = 'ask' ORDER BY b.price_dollars LIMIT 1)
  SELECT bid.price_dollars, bid.contracts, ask.price_dollars, ask.contracts, ask.price_dollars - bid.price_dollars,
         coalesce(bid.state, ask.state, (SELECT s.state FROM book_basis(p_ticker, p_at, p_look_back) s))
  FROM (SELECT 1) AS one LEFT JOIN bid ON true LEFT JOIN ask ON true
$$;
COMMENT ON FUNCTION best_bid_offer(text, timestamptz, interval) IS 'One row: the best yes bid and the best yes ask at the end of t, in dollars and contracts; NULL for an empty side. state: see book_basis.';

CREATE OR REPLACE FUNCTION latest_quotes(p_within interval DEFAULT '15 minutes')
RETURNS TABLE (ticker text, exchange_ts timestamptz, bid_dollars numeric, bid_contracts numeric, ask_dollars numeric,
               ask_contracts numeric, last_price_dollars numeric)
LANGUAGE sql STABLE AS $$
  SELECT DISTINCT ON (t.ticker) t.ticker, t.exchange_ts, dollars(t.yes_bid_e4), contracts(t.yes_bid_size_e2),
         dollars(t.yes_ask_e4), contracts(t.yes_ask_size_e2), dollars(t.price_e4)
  FROM tickers t WHERE t.exchange_ts > now() - p_within
  ORDER BY t.ticker, t.exchange_ts DESC, t.received_at DESC
$$;
COMMENT ON FUNCTION latest_quotes(interval) IS 'The latest bid and offer of every market whose ticker changed within the span, as the ticker channel said; for one market at any time, and with proof: best_bid_offer.';

-- trades ------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION last_trades(p_ticker text, p_count integer DEFAULT 20, p_until timestamptz DEFAULT 'infinity')
RETURNS TABLE (exchange_ts timestamptz, trade_id text, yes_price_dollars numeric, no_price_dollars numeric,
               contracts numeric, taker_side text, is_block_trade boolean, source text)
LANGUAGE sql STABLE AS $$
  SELECT t.exchange_ts, t.trade_id, dollars(t.yes_price_e4), dollars(t.no_price_e4), contracts(t.count_e2), t.taker_side,
         t.is_block_trade, t.source
  FROM trades t WHERE t.ticker = p_ticker AND t.exchange_ts <= p_until
  ORDER BY t.exchange_ts DESC, t.created_time DESC, t.trade_id DESC LIMIT p_count
$$;
COMMENT ON FUNCTION last_trades(text, integer, timestamptz) IS 'The last trades of a market up to a moment, newest first. source: ws (a stream brought it) or rest (filled from the exchange''s listing).';

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
           (array_agg(x.yes_price_e4 ORDER BY x.exchange_ts, x.created_time, x.trade_id)
              FILTER (WHERE NOT x.is_block_trade))[1] AS first_e4,
           min(x.yes_price_e4) FILTER (WHERE NOT x.is_block_trade) AS low_e4,
           max(x.yes_price_e4) FILTER (WHERE NOT x.is_block_trade) AS high_e4,
           (array_agg(x.yes_price_e4 ORDER BY x.exchange_ts DESC, x.created_time DESC, x.trade_id DESC)
              FILTER (WHERE NOT x.is_block_trade))[1] AS last_e4
    FROM trades x
    WHERE x.ticker = p_ticker AND x.exchange_ts >= h.hour AND x.exchange_ts < h.hour + INTERVAL '1 hour'
  ) AS t
  ORDER BY h.hour
$$;
COMMENT ON FUNCTION market_hours(text, timestamptz, timestamptz) IS 'One row per hour: how complete the record of a market is (share covered, verdict on its books, trades against the exchange''s listing), and what was traded; prices and trades without block trades. trades_state is that of the hour, or differs when the market''s own trades do.';

-- the catalog as it was known -----------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION series_as_known_at(p_at timestamptz)
RETURNS TABLE (ticker text, title text, category text, known_from timestamptz, known_until timestamptz, payload jsonb)
LANGUAGE sql STABLE AS $$
  SELECT h.ticker, h.payload ->> 'title', h.payload ->> 'category', h.valid_from, h.valid_to, h.payload
  FROM series_history h WHERE h.valid_from <= p_at AND (h.valid_to IS NULL OR h.valid_to > p_at)
$$;
COMMENT ON FUNCTION series_as_known_at(timestamptz) IS 'Every series as this platform knew it at a moment of its own clock; payload is the exchange''s object of then.';

CREATE OR REPLACE FUNCTION events_as_known_at(p_at timestamptz)
RETURNS TABLE (ticker text, series_ticker text, title text, category text, known_from timestamptz,
               known_until timestamptz, payload jsonb)
LANGUAGE sql STABLE AS $$
  SELECT h.ticker, h.payload ->> 'series_ticker', h.payload ->> 'title', h.payload ->> 'category', h.valid_from,
         h.valid_to, h.payload
  FROM events_history h WHERE h.valid_from <= p_at AND (h.valid_to IS NULL OR h.valid_to > p_at)
$$;
COMMENT ON FUNCTION events_as_known_at(timestamptz) IS 'Every event as this platform knew it at a moment of its own clock; payload is the exchange''s object of then.';

CREATE OR REPLACE FUNCTION markets_as_known_at(p_at timestamptz)
RETURNS TABLE (ticker text, event_ticker text, status text, title text, open_time timestamptz, close_time timestamptz,
               result text, known_from timestamptz, known_until timestamptz, payload jsonb)
LANGUAGE sql STABLE AS $$
  SELECT h.ticker, h.payload ->> 'event_ticker', coalesce(h.status, h.payload ->> 'status'), h.payload ->> 'title',
         nullif(h.payload ->> 'open_time', '')::timestamptz, nullif(h.payload ->> 'close_time', '')::timestamptz,
         nullif(h.payload ->> 'result', ''), h.valid_from, h.valid_to, h.payload
  FROM markets_history h WHERE h.valid_from <= p_at AND (h.valid_to IS NULL OR h.valid_to > p_at)
$$;
COMMENT ON FUNCTION markets_as_known_at(timestamptz) IS 'Every market as this platform knew it at a moment of its own clock: what a decision made then could know. Later corrections and results are not in it.';
