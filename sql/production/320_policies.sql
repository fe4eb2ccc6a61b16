-- Compression where TimescaleDB can do it; nothing elsewhere. Late rows may come for a day, so it waits that long.
DO $$ BEGIN
  IF server_mode() <> 'timescale' THEN RETURN; END IF;
  ALTER TABLE orderbook_deltas SET (timescaledb.compress, timescaledb.compress_segmentby = 'ticker',
                                    timescaledb.compress_orderby = 'exchange_ts, side, price_e4, delta_e2, occurrence');
  ALTER TABLE trades SET (timescaledb.compress, timescaledb.compress_segmentby = 'ticker',
                          timescaledb.compress_orderby = 'exchange_ts, trade_id');
  ALTER TABLE tickers SET (timescaledb.compress, timescaledb.compress_segmentby = 'ticker',
                           timescaledb.compress_orderby = 'exchange_ts, fingerprint');
  PERFORM add_compression_policy('orderbook_deltas', INTERVAL '1 day', if_not_exists => true);
  PERFORM add_compression_policy('trades', INTERVAL '7 days', if_not_exists => true);
  PERFORM add_compression_policy('tickers', INTERVAL '7 days', if_not_exists => true);
END $$;
