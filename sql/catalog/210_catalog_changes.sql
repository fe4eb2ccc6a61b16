-- What of a catalog changed since somebody looked: every row carries the number of the transaction that wrote it last.
-- The number is taken under a row lock that is held to commit, so numbers become visible in order and a reader past one
-- misses nothing. A database that was restored gives numbers again; a random token beside each tells them apart.
-- Triggers do it, so that no writer can forget it.

CREATE TABLE IF NOT EXISTS catalog_counter (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  last_change_no bigint NOT NULL
);
COMMENT ON TABLE catalog_counter IS 'One row: the number of the newest transaction that wrote series, events, markets or their history.';
INSERT INTO catalog_counter (last_change_no) VALUES (0) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS catalog_changes (
  change_no bigint PRIMARY KEY,
  token uuid NOT NULL DEFAULT gen_random_uuid()
);
COMMENT ON TABLE catalog_changes IS 'The token of each of the last 100,000 numbers: who stands at a number with another token, or at one that has none any more, reads the catalog from its beginning.';
INSERT INTO catalog_changes (change_no)
SELECT last_change_no FROM catalog_counter WHERE NOT EXISTS (SELECT FROM catalog_changes);

CREATE OR REPLACE FUNCTION catalog_change_no() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  number bigint;
BEGIN
  -- Whether this transaction has its number: it is the one that wrote the counter last.
  SELECT last_change_no INTO number FROM catalog_counter WHERE xmin = pg_current_xact_id()::xid;
  IF FOUND THEN RETURN number; END IF;
  UPDATE catalog_counter SET last_change_no = last_change_no + 1 RETURNING last_change_no INTO number;
  INSERT INTO catalog_changes (change_no) VALUES (number);
  DELETE FROM catalog_changes WHERE change_no = number - 100000;
  RETURN number;
END $$;
COMMENT ON FUNCTION catalog_change_no() IS 'The number of this transaction, taken at its first change.';

CREATE OR REPLACE FUNCTION number_catalog_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.change_no := catalog_change_no();
  RETURN NEW;
END $$;

DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['series', 'events', 'markets', 'series_history', 'events_history', 'markets_history'] LOOP
    EXECUTE format('ALTER TABLE %I ADD COLUMN IF NOT EXISTS change_no bigint NOT NULL DEFAULT 0', name);
    EXECUTE format('COMMENT ON COLUMN %I.change_no IS %L', name,
                   'The transaction of this database that wrote the row last, see catalog_changes. 0: before they were numbered.');
    EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON %I (change_no, ticker)', name || '_change', name);
    EXECUTE format('DROP TRIGGER IF EXISTS number_change ON %I', name);
    EXECUTE format('CREATE TRIGGER number_change BEFORE INSERT OR UPDATE ON %I'
                   ' FOR EACH ROW EXECUTE FUNCTION number_catalog_change()', name);
  END LOOP;
END $$;
