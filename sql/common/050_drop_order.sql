-- drop_partitions_before of 030 again: it takes the table before the partition, as whoever reads or writes does. The other
-- way round a statement that already held the table, and came to the partition, waited for the drop, and the drop for it.

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
        EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', p_table);
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
