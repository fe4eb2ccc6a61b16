-- How far the catalog of each gatherer was read.

CREATE TABLE IF NOT EXISTS catalog_cursors (
  gatherer text PRIMARY KEY,
  change_no bigint NOT NULL,
  token uuid NOT NULL,
  merged_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE catalog_cursors IS 'Up to which change of its catalog each gatherer was read. A row taken away here has that catalog read from its beginning by the next merge.';
COMMENT ON COLUMN catalog_cursors.token IS 'The token of that change: a catalog that has another one under the number was restored or made anew, and is read from its beginning.';

CREATE TABLE IF NOT EXISTS catalog_owed (
  gatherer text NOT NULL,
  table_name text NOT NULL,
  ticker text NOT NULL,
  PRIMARY KEY (gatherer, table_name, ticker)
);
COMMENT ON TABLE catalog_owed IS 'Objects that were merged while a gatherer could not be asked what it knows of them; it is asked when it answers again.';
