-- The tables of the catalog of the lake's Iceberg tables, so that the login that registers needs no right to create any.
-- Their columns are those of pyiceberg's SQL catalog, which makes them itself where they are absent.

CREATE TABLE IF NOT EXISTS iceberg.iceberg_tables (
  catalog_name varchar(255) NOT NULL,
  table_namespace varchar(255) NOT NULL,
  table_name varchar(255) NOT NULL,
  metadata_location varchar(1000),
  previous_metadata_location varchar(1000),
  iceberg_type varchar(5),
  PRIMARY KEY (catalog_name, table_namespace, table_name)
);
COMMENT ON TABLE iceberg.iceberg_tables IS 'One row per Iceberg table of the lake: its newest metadata file.';

CREATE TABLE IF NOT EXISTS iceberg.iceberg_namespace_properties (
  catalog_name varchar(255) NOT NULL,
  namespace varchar(255) NOT NULL,
  property_key varchar(255) NOT NULL,
  property_value varchar(1000) NOT NULL,
  PRIMARY KEY (catalog_name, namespace, property_key)
);
COMMENT ON TABLE iceberg.iceberg_namespace_properties IS 'One row per property of a namespace of Iceberg tables.';
