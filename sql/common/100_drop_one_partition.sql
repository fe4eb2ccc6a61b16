-- For retention, which decides partition by partition: which partitions a table has, and the drop of one of them.
-- drop_partitions_before (050) drops whatever is old enough; this drops what was verified elsewhere, and nothing else.

CREATE OR REPLACE FUNCTION table_partitions(p_table text)
RETURNS TABLE (relation text, low timestamptz, high timestamptz, bytes bigint) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
  IF server_mode() = 'native' THEN
    RETURN QUERY
    SELECT p.relation, p.low, p.high, p.bytes FROM (
      SELECT c.oid::regclass::text AS relation,
             substring(pg_get_expr(c.relpartbound, c.oid) FROM $re$FROM \('([^']+)'\)$re$)::timestamptz AS low,
             substring(pg_get_expr(c.relpartbound, c.oid) FROM $re$TO \('([^']+)'\)$re$)::timestamptz AS high,
             coalesce(pg_total_relation_size(c.oid), 0) AS bytes
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
      WHERE i.inhparent = to_regclass(quote_ident(p_table)) AND NOT i.inhdetachpending
    ) AS p
    WHERE p.low IS NOT NULL AND p.high IS NOT NULL ORDER BY p.low;
  ELSE
    -- Their views are not there without the extension: hence EXECUTE.
    RETURN QUERY EXECUTE format(
      'SELECT format(''%%I.%%I'', c.chunk_schema, c.chunk_name), c.range_start, c.range_end, coalesce(s.total_bytes, 0)::bigint'
      ' FROM timescaledb_information.chunks c LEFT JOIN chunks_detailed_size(%L::regclass) s USING (chunk_schema, chunk_name)'
      ' WHERE c.hypertable_schema = current_schema() AND c.hypertable_name = %L ORDER BY c.range_start',
      p_table, p_table);
  END IF;
END $$;
COMMENT ON FUNCTION table_partitions(text) IS 'One row per partition (chunk) of a time-series table: its name, its time span [low, high), and its bytes with indexes, compressed where it is.';

-- Readers and writers take the table before the partition, and so does this. The caller sets lock_timeout: whoever comes
-- meanwhile waits as long as this does.
CREATE OR REPLACE FUNCTION lock_partition(p_table text, p_low timestamptz, p_high timestamptz)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  found text;
BEGIN
  EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', p_table);
  SELECT p.relation INTO found FROM table_partitions(p_table) p WHERE p.low = p_low AND p.high = p_high;
  IF found IS NULL THEN RETURN false; END IF;
  EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', found);
  RETURN true;
END $$;
COMMENT ON FUNCTION lock_partition(text, timestamptz, timestamptz) IS 'Take the partition of exactly this span for this transaction alone, and its table; false where there is none. Until the end of the transaction nobody reads or writes the table: keep it short.';

CREATE OR REPLACE FUNCTION drop_partition(p_table text, p_low timestamptz, p_high timestamptz)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  found text;
BEGIN
  IF NOT lock_partition(p_table, p_low, p_high) THEN RETURN false; END IF;
  SELECT p.relation INTO STRICT found FROM table_partitions(p_table) p WHERE p.low = p_low AND p.high = p_high;
  PERFORM record_dropped(p_table, found, p_low, p_high);
  IF server_mode() = 'native' THEN
    EXECUTE format('DROP TABLE %s', found);
  ELSE
    EXECUTE format('SELECT drop_chunks(%L::regclass, older_than => %L::timestamptz, newer_than => %L::timestamptz)',
                   p_table, p_high, p_low);
  END IF;
  RETURN true;
END $$;
COMMENT ON FUNCTION drop_partition(text, timestamptz, timestamptz) IS 'Drop the partition of exactly this span and record its hours in dropped_hours, in one transaction; false where there is none. It does not look at the lake: retention does, before it calls this.';
