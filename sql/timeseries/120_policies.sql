-- Compression and retention where TimescaleDB can do them; nothing elsewhere.
DO $$ BEGIN
  IF server_mode() <> 'timescale' THEN RETURN; END IF;
  ALTER TABLE orderbook_deltas SET (timescaledb.compress, timescaledb.compress_segmentby = 'ticker',
                                    timescaledb.compress_orderby = 'exchange_ts, stream_id, seq');
  ALTER TABLE trades SET (timescaledb.compress, timescaledb.compress_segmentby = 'ticker',
                          timescaledb.compress_orderby = 'exchange_ts, trade_id');
  ALTER TABLE tickers SET (timescaledb.compress, timescaledb.compress_segmentby = 'ticker',
                           timescaledb.compress_orderby = 'exchange_ts, fingerprint');
  PERFORM add_compression_policy('orderbook_deltas', INTERVAL '2 hours', if_not_exists => true);
  PERFORM add_compression_policy('trades', INTERVAL '7 days', if_not_exists => true);
  PERFORM add_compression_policy('tickers', INTERVAL '7 days', if_not_exists => true);
END $$;
