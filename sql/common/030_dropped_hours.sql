-- What is dropped leaves a line, so that nobody takes an hour whose rows were dropped for one without any.

CREATE TABLE IF NOT EXISTS dropped_hours (
  table_name text NOT NULL,
  hour timestamptz NOT NULL,
  dropped_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (table_name, hour)
);
COMMENT ON TABLE dropped_hours IS 'Hours of a time-series table whose rows were dropped, by drop_partitions_before. A partition without any row leaves no line.';

-- Drop whole partitions that end at or before p_before, and record their hours in the same transaction; returns how many
-- went. A drop needs the table for itself for a moment, and whoever writes would queue behind it: a partition that is
-- not to be had within 2 s is left for the next call.
CREATE OR REPLACE FUNCTION drop_partitions_before(p_table text, p_before timestamptz)
RETURNS integer LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
  part record;
  low timestamptz;
  high timestamptz;
  dropped integer := 0;
BEGIN
  IF server_mode() <> 'native' THEN
    FOR part IN EXECUTE format(
      'SELECT format(''%%I.%%I'', chunk_schema, chunk_name) AS relation, range_start, range_end'
      ' FROM timescaledb_information.chunks WHERE hypertable_schema = current_schema() AND hypertable_name = %L'
      ' AND range_end <= %L::timestamptz', p_table, p_before)
    LOOP
      PERFORM record_dropped(p_table, part.relation, part.range_start, part.range_end);
    END LOOP;
    EXECUTE format('SELECT count(*) FROM drop_chunks(%L::regclass, older_than => %L::timestamptz)', p_table, p_before)
      INTO dropped;
    RETURN dropped;
  END IF;
  FOR part IN
    SELECT c.oid::regclass::text AS relation, pg_get_expr(c.relpartbound, c.oid) AS bound
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = p_table::regclass
    ORDER BY c.relname
  LOOP
    low := substring(part.bound FROM $re$FROM \('([^']+)'\)$re$)::timestamptz;
    high := substring(part.bound FROM $re$TO \('([^']+)'\)$re$)::timestamptz;
    IF high IS NOT NULL AND high <= p_before THEN
      BEGIN
        -- Before the look at its rows: none may come between it and the drop.
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', part.relation);
        PERFORM record_dropped(p_table, part.relation, low, high);
        EXECUTE format('DROP TABLE %s', part.relation);
        dropped := dropped + 1;
      EXCEPTION WHEN lock_not_available THEN
        RETURN dropped;
      END;
    END IF;
  END LOOP;
  RETURN dropped;
END $$;
COMMENT ON FUNCTION drop_partitions_before(text, timestamptz) IS 'The way to drop old rows: whole partitions that end at or before the moment. Their hours are recorded in dropped_hours, which whatever speaks of these rows looks at.';

CREATE OR REPLACE FUNCTION record_dropped(p_table text, p_relation text, p_low timestamptz, p_high timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  has_rows boolean;
BEGIN
  EXECUTE format('SELECT EXISTS (SELECT FROM %s)', p_relation) INTO has_rows;
  IF NOT has_rows THEN RETURN; END IF;
  INSERT INTO dropped_hours (table_name, hour)
  SELECT p_table, h FROM generate_series(p_low, p_high - interval '1 microsecond', interval '1 hour') AS h
  ON CONFLICT (table_name, hour) DO UPDATE SET dropped_at = excluded.dropped_at;
END $$;
COMMENT ON FUNCTION record_dropped(text, text, timestamptz, timestamptz) IS 'Record the hours of a partition that is about to be dropped; only for drop_partitions_before.';
