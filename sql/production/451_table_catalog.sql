-- A place for the catalog of the lake's Iceberg tables, whose own tables are made by the program that registers.

CREATE SCHEMA IF NOT EXISTS iceberg;
COMMENT ON SCHEMA iceberg IS 'The SQL catalog of the lake''s Iceberg tables: which metadata file is the newest of each table. Filled by kalshi-platform catalog register and the asset lake/tables.';
