-- Whether production holds the trades that the exchange itself lists, hour by hour and market by market.

CREATE TABLE IF NOT EXISTS trade_checks (
  hour timestamptz PRIMARY KEY,
  state text NOT NULL,
  checked_at timestamptz NOT NULL,
  reason text,
  production_count bigint NOT NULL DEFAULT 0,
  rest_count bigint NOT NULL DEFAULT 0,
  inserted bigint NOT NULL DEFAULT 0,
  only_in_production bigint NOT NULL DEFAULT 0,
  differing bigint NOT NULL DEFAULT 0,
  left_out bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE trade_checks IS 'One row per hour: the last comparison of production''s trades with the exchange''s listing (GET /markets/trades, /historical/trades).';
COMMENT ON COLUMN trade_checks.state IS 'complete: every listed trade was there. filled: it is now, the missing ones were inserted. differs: production has trades or values that the listing has not. partial: the listing could not be read whole. not checked: nobody could ask the exchange.';
COMMENT ON COLUMN trade_checks.checked_at IS 'When the comparison was made, or given up, by production''s clock.';
COMMENT ON COLUMN trade_checks.reason IS 'Why the hour was not checked, or what the listing lacked.';
COMMENT ON COLUMN trade_checks.production_count IS 'Trades of the hour in production before the comparison, block trades included.';
COMMENT ON COLUMN trade_checks.rest_count IS 'Trades of the hour that the exchange lists, block trades included.';
COMMENT ON COLUMN trade_checks.inserted IS 'Listed trades that production lacked and got, with source rest.';
COMMENT ON COLUMN trade_checks.only_in_production IS 'Trades of production that the exchange does not list.';
COMMENT ON COLUMN trade_checks.differing IS 'Trades on both sides whose size, price or kind is not the same.';
COMMENT ON COLUMN trade_checks.left_out IS 'Objects of the listing that could not be read.';

CREATE TABLE IF NOT EXISTS trade_parity (
  hour timestamptz NOT NULL,
  ticker text NOT NULL,
  is_block_trade boolean NOT NULL,
  production_count bigint NOT NULL,
  production_volume_e2 bigint NOT NULL,
  rest_count bigint NOT NULL,
  rest_volume_e2 bigint NOT NULL,
  inserted bigint NOT NULL,
  only_in_production bigint NOT NULL,
  differing bigint NOT NULL,
  from_rest bigint NOT NULL,
  state text NOT NULL,
  checked_at timestamptz NOT NULL,
  PRIMARY KEY (hour, ticker, is_block_trade)
);
COMMENT ON TABLE trade_parity IS 'One row per market-hour with a trade on either side, block trades apart: they are agreed off the book and never touch it.';
COMMENT ON COLUMN trade_parity.is_block_trade IS 'Whether the row speaks of the block trades of the market-hour, or of all others.';
COMMENT ON COLUMN trade_parity.production_count IS 'Trades in production before the comparison.';
COMMENT ON COLUMN trade_parity.production_volume_e2 IS 'Their size in 1/100 contract.';
COMMENT ON COLUMN trade_parity.rest_count IS 'Trades that the exchange lists.';
COMMENT ON COLUMN trade_parity.rest_volume_e2 IS 'Their size in 1/100 contract.';
COMMENT ON COLUMN trade_parity.inserted IS 'Listed trades that production lacked and got, with source rest.';
COMMENT ON COLUMN trade_parity.only_in_production IS 'Trades of production that the exchange does not list, by trade_id.';
COMMENT ON COLUMN trade_parity.differing IS 'Trades on both sides whose size, price or kind is not the same; production''s stay as they are.';
COMMENT ON COLUMN trade_parity.from_rest IS 'Trades of production that no stream brought: filled by this comparison or an earlier one.';
COMMENT ON COLUMN trade_parity.state IS 'complete, filled or differs; see trade_checks.state.';
COMMENT ON COLUMN trade_parity.checked_at IS 'When the comparison was made, by production''s clock.';

-- A listing while it is read, page by page. It holds nothing that cannot be asked for again, so it is not logged.
CREATE UNLOGGED TABLE IF NOT EXISTS trade_listing (
  hour timestamptz NOT NULL,
  exchange_ts timestamptz NOT NULL,
  ticker text NOT NULL,
  trade_id text NOT NULL,
  yes_price_e4 integer NOT NULL,
  no_price_e4 integer NOT NULL,
  count_e2 bigint NOT NULL,
  taker_side text,
  is_block_trade boolean NOT NULL,
  created_time timestamptz,
  received_at timestamptz NOT NULL,
  PRIMARY KEY (hour, ticker, trade_id)
);
COMMENT ON TABLE trade_listing IS 'Trades of an hour (and a minute around it) as the exchange lists them, while they are compared; empty otherwise.';
