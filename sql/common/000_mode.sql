-- Which kind of server this is, decided once per database and compared at every start.
-- Apply with: psql -1 -f 000_mode.sql   (each file is one transaction and may be applied again)

-- The extension is created only where it is preloaded: elsewhere CREATE EXTENSION would end the session.
-- SET kalshi.use_timescale = 'off' before applying keeps native partitions on a server that has the extension.
DO $$ BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'timescaledb')
     AND current_setting('kalshi.use_timescale', true) IS DISTINCT FROM 'off'
     AND EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'timescaledb')
     AND current_setting('shared_preload_libraries') LIKE '%timescaledb%'
  THEN
    CREATE EXTENSION timescaledb;
  END IF;
END $$;

-- 'native' = range partitions, 'timescale' = hypertables with the columnstore, 'timescale-apache' = hypertables only.
CREATE OR REPLACE FUNCTION server_mode() RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE
    WHEN NOT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'timescaledb') THEN 'native'
    WHEN current_setting('timescaledb.license', true) = 'apache' THEN 'timescale-apache'
    ELSE 'timescale' END
$$;

CREATE TABLE IF NOT EXISTS schema_meta (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  mode text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE schema_meta IS 'One row: the mode this database was made in. It never changes; another mode needs a new database.';
INSERT INTO schema_meta (mode) VALUES (server_mode()) ON CONFLICT DO NOTHING;
