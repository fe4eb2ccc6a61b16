-- Every message once, whichever gatherers saw it. gatherer, stream_id, seq and received_at are those of the witness that
-- was merged first. Prices: 1/10,000 dollar (_e4). Sizes: 1/100 contract (_e2). Times: UTC.

SELECT create_series_table('orderbook_deltas', $c$
  exchange_ts timestamptz NOT NULL,
  ticker text NOT NULL,
  side text NOT NULL,
  price_e4 integer NOT NULL,
  delta_e2 bigint NOT NULL,
  occurrence integer NOT NULL,
  gatherer text NOT NULL,
  stream_id bigint NOT NULL,
  seq bigint NOT NULL,
  received_at timestamptz NOT NULL,
  PRIMARY KEY (exchange_ts, ticker, side, price_e4, delta_e2, occurrence)
$c$, 'exchange_ts', '1 hour');
COMMENT ON TABLE orderbook_deltas IS 'One row per order-book change. seq is not in the key: it counts what one connection was sent and differs between gatherers. occurrence tells equal changes of one timestamp apart.';

SELECT create_series_table('trades', $c$
  exchange_ts timestamptz NOT NULL,
  ticker text NOT NULL,
  trade_id text NOT NULL,
  yes_price_e4 integer NOT NULL,
  no_price_e4 integer NOT NULL,
  count_e2 bigint NOT NULL,
  taker_side text,
  is_block_trade boolean NOT NULL,
  created_time timestamptz,
  source text NOT NULL,
  gatherer text NOT NULL,
  stream_id bigint NOT NULL,
  seq bigint NOT NULL,
  received_at timestamptz NOT NULL,
  PRIMARY KEY (exchange_ts, ticker, trade_id)
$c$, 'exchange_ts', '1 day');

SELECT create_series_table('tickers', $c$
  exchange_ts timestamptz NOT NULL,
  ticker text NOT NULL,
  fingerprint bigint NOT NULL,
  price_e4 integer,
  yes_bid_e4 integer,
  yes_ask_e4 integer,
  yes_bid_size_e2 bigint,
  yes_ask_size_e2 bigint,
  last_trade_size_e2 bigint,
  volume_e2 bigint,
  open_interest_e2 bigint,
  dollar_volume bigint,
  dollar_open_interest bigint,
  gatherer text NOT NULL,
  stream_id bigint NOT NULL,
  seq bigint NOT NULL,
  received_at timestamptz NOT NULL,
  PRIMARY KEY (exchange_ts, ticker, fingerprint)
$c$, 'exchange_ts', '1 day');

SELECT create_series_table('orderbook_snapshots', $c$
  snapshot_ts timestamptz NOT NULL,
  ticker text NOT NULL,
  source text NOT NULL,
  witness text NOT NULL,
  stream_id bigint NOT NULL,
  seq bigint NOT NULL,
  gatherer text NOT NULL,
  yes_price_e4 integer[] NOT NULL,
  yes_count_e2 bigint[] NOT NULL,
  no_price_e4 integer[] NOT NULL,
  no_count_e2 bigint[] NOT NULL,
  requested_at timestamptz,
  received_at timestamptz NOT NULL,
  PRIMARY KEY (snapshot_ts, ticker, source, witness, stream_id, seq)
$c$, 'snapshot_ts', '1 day');
COMMENT ON COLUMN orderbook_snapshots.witness IS 'The gatherer for ws and rest_recovery; empty for rest, of which each market keeps one per minute.';

SELECT create_series_table('market_lifecycle', $c$
  received_at timestamptz NOT NULL,
  ticker text NOT NULL,
  fingerprint bigint NOT NULL,
  event_type text NOT NULL,
  exchange_ts timestamptz,
  content jsonb NOT NULL,
  gatherer text NOT NULL,
  stream_id bigint NOT NULL,
  seq bigint NOT NULL,
  PRIMARY KEY (received_at, ticker, fingerprint)
$c$, 'received_at', '1 day');
COMMENT ON TABLE market_lifecycle IS 'One row per lifecycle event; equal content of one ticker within 5 minutes is one event.';

SELECT create_series_table('book_anchors', $c$
  anchor_ts timestamptz NOT NULL,
  ticker text NOT NULL,
  gatherer text NOT NULL,
  stream_id bigint NOT NULL,
  seq bigint NOT NULL,
  yes_price_e4 integer[] NOT NULL,
  yes_count_e2 bigint[] NOT NULL,
  no_price_e4 integer[] NOT NULL,
  no_count_e2 bigint[] NOT NULL,
  PRIMARY KEY (anchor_ts, ticker, gatherer, stream_id, seq)
$c$, 'anchor_ts', '1 day');
COMMENT ON TABLE book_anchors IS 'Books that folds start from: the book at the END of anchor_ts. Apply the deltas with exchange_ts > anchor_ts, all of one exchange_ts together.';
