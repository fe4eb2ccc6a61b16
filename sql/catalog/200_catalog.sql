-- Series, events and markets as last known, and what was known before. `payload` is the exchange's whole object.
-- known_at: our clock, when the knowledge was obtained; newer knowledge wins wherever two sources meet.

CREATE TABLE IF NOT EXISTS series (
  ticker text PRIMARY KEY,
  title text,
  category text,
  frequency text,
  fee_type text,
  fee_multiplier double precision,
  last_updated timestamptz,
  exchange_index integer NOT NULL DEFAULT 0,
  payload jsonb NOT NULL,
  fingerprint bigint NOT NULL,
  first_seen_at timestamptz NOT NULL,
  known_at timestamptz NOT NULL
);

CREATE TABLE IF NOT EXISTS events (
  ticker text PRIMARY KEY,
  series_ticker text,
  title text,
  sub_title text,
  category text,
  collateral_return_type text,
  mutually_exclusive boolean,
  strike_date timestamptz,
  strike_period text,
  last_updated timestamptz,
  exchange_index integer NOT NULL DEFAULT 0,
  payload jsonb NOT NULL,
  fingerprint bigint NOT NULL,
  first_seen_at timestamptz NOT NULL,
  known_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS events_series ON events (series_ticker);

CREATE TABLE IF NOT EXISTS markets (
  ticker text PRIMARY KEY,
  event_ticker text NOT NULL,
  series_ticker text,
  market_type text,
  status text NOT NULL,
  title text,
  open_time timestamptz,
  close_time timestamptz,
  expected_expiration_time timestamptz,
  created_time timestamptz,
  updated_time timestamptz,
  settlement_time timestamptz,
  result text,
  settlement_value_e6 bigint,
  can_close_early boolean,
  is_provisional boolean,
  mve_collection_ticker text,
  exchange_index integer NOT NULL DEFAULT 0,
  price_level_structure text,
  price_ranges text,
  payload jsonb NOT NULL,
  fingerprint bigint NOT NULL,
  first_seen_at timestamptz NOT NULL,
  known_at timestamptz NOT NULL
);
COMMENT ON COLUMN markets.status IS 'initialized, inactive, active, closed, determined, disputed, amended, finalized; or vanished (the exchange deleted it).';
COMMENT ON COLUMN markets.fingerprint IS '64-bit hash of what describes the market; prices and volumes are left out, so that trading makes no history rows.';
CREATE INDEX IF NOT EXISTS markets_event ON markets (event_ticker);
CREATE INDEX IF NOT EXISTS markets_status ON markets (status, close_time);
CREATE INDEX IF NOT EXISTS markets_known_at ON markets (known_at);

-- One row per version: valid_from and valid_to by our clock; the open row (valid_to IS NULL) is the table above.
CREATE TABLE IF NOT EXISTS series_history (
  ticker text NOT NULL,
  valid_from timestamptz NOT NULL,
  valid_to timestamptz,
  fingerprint bigint NOT NULL,
  payload jsonb NOT NULL,
  PRIMARY KEY (ticker, valid_from)
);
CREATE INDEX IF NOT EXISTS series_history_valid_from ON series_history (valid_from);
CREATE TABLE IF NOT EXISTS events_history (LIKE series_history INCLUDING ALL);
CREATE TABLE IF NOT EXISTS markets_history (LIKE series_history INCLUDING ALL);
ALTER TABLE markets_history ADD COLUMN IF NOT EXISTS status text;

CREATE TABLE IF NOT EXISTS catalog_syncs (
  sync_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  what text NOT NULL,
  scope text NOT NULL,
  started_at timestamptz NOT NULL,
  finished_at timestamptz,
  rows_seen bigint,
  rows_changed bigint,
  error text
);
COMMENT ON TABLE catalog_syncs IS 'One row per sync of series, events or markets. scope: full, incremental, or a ticker. An incremental sync starts from the last finished one.';
CREATE INDEX IF NOT EXISTS catalog_syncs_last ON catalog_syncs (what, finished_at DESC);
