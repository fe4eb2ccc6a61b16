-- One definition of a time-series table for every mode: a hypertable with TimescaleDB, a range-partitioned table without.

CREATE TABLE IF NOT EXISTS series_tables (
  table_name text PRIMARY KEY,
  time_column text NOT NULL,
  partition_span interval NOT NULL
);
COMMENT ON TABLE series_tables IS 'Time-series tables of this database, their time column and the span of one partition (chunk).';

CREATE OR REPLACE FUNCTION create_series_table(p_table text, p_columns text, p_time text, p_span interval)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO series_tables VALUES (p_table, p_time, p_span) ON CONFLICT DO NOTHING;
  IF to_regclass(p_table) IS NOT NULL THEN RETURN; END IF;
  IF server_mode() = 'native' THEN
    EXECUTE format('CREATE TABLE %I (%s) PARTITION BY RANGE (%I)', p_table, p_columns, p_time);
  ELSE
    EXECUTE format('CREATE TABLE %I (%s)', p_table, p_columns);
    EXECUTE format('SELECT create_hypertable(%L::regclass, by_range(%L, %L::interval), create_default_indexes => false)',
                   p_table, p_time, p_span);
  END IF;
END $$;

-- Make the partitions that hold [p_from, p_to]; returns how many were made. TimescaleDB makes its own.
-- A partition is built aside and attached: ATTACH lets readers and writers of the table go on, CREATE … PARTITION OF does not.
CREATE OR REPLACE FUNCTION ensure_partitions(p_table text, p_from timestamptz, p_to timestamptz)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  definition series_tables%ROWTYPE;
  low timestamptz;
  partition_name text;
  made integer := 0;
BEGIN
  IF server_mode() <> 'native' THEN RETURN 0; END IF;
  SELECT * INTO STRICT definition FROM series_tables WHERE table_name = p_table;
  PERFORM pg_advisory_xact_lock(hashtext('ensure_partitions'), hashtext(p_table));
  low := date_bin(definition.partition_span, p_from, TIMESTAMPTZ '2000-01-01 00:00:00+00');
  WHILE low <= p_to LOOP
    partition_name := p_table || '_p' || to_char(low AT TIME ZONE 'UTC', 'YYYYMMDDHH24');
    IF to_regclass(quote_ident(partition_name)) IS NULL THEN
      EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition_name, p_table);
      EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                     p_table, partition_name, low, low + definition.partition_span);
      made := made + 1;
    END IF;
    low := low + definition.partition_span;
  END LOOP;
  RETURN made;
END $$;

-- Drop whole partitions that end at or before p_before; returns how many went. A drop needs the table for itself for a
-- moment, and whoever writes would queue behind it: a partition that is not to be had within 2 s is left for the next call.
CREATE OR REPLACE FUNCTION drop_partitions_before(p_table text, p_before timestamptz)
RETURNS integer LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
  part record;
  high timestamptz;
  dropped integer := 0;
BEGIN
  IF server_mode() <> 'native' THEN
    EXECUTE format('SELECT count(*) FROM drop_chunks(%L::regclass, older_than => %L::timestamptz)', p_table, p_before)
      INTO dropped;
    RETURN dropped;
  END IF;
  FOR part IN
    SELECT c.oid::regclass AS relation, pg_get_expr(c.relpartbound, c.oid) AS bound
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = p_table::regclass
    ORDER BY c.relname
  LOOP
    high := substring(part.bound FROM $re$TO \('([^']+)'\)$re$)::timestamptz;
    IF high IS NOT NULL AND high <= p_before THEN
      BEGIN
        EXECUTE format('DROP TABLE %s', part.relation);
        dropped := dropped + 1;
      EXCEPTION WHEN lock_not_available THEN
        RETURN dropped;
      END;
    END IF;
  END LOOP;
  RETURN dropped;
END $$;
