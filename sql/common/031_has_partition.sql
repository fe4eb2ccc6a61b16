-- Whether the partition that holds an hour of a table is there, with anything in it. Asked of the catalog where it can
-- be, so that no partition is locked for the question.
CREATE OR REPLACE FUNCTION has_partition(p_table text, p_hour timestamptz) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
  found boolean;
BEGIN
  IF server_mode() = 'native' THEN
    RETURN EXISTS (
      SELECT FROM series_tables s
      JOIN pg_inherits i ON i.inhparent = to_regclass(quote_ident(s.table_name)) AND i.inhrelid = to_regclass(quote_ident(
        s.table_name || '_p' || to_char(date_bin(s.partition_span, p_hour, TIMESTAMPTZ '2000-01-01 00:00:00+00')
                                        AT TIME ZONE 'UTC', 'YYYYMMDDHH24')))
      WHERE s.table_name = p_table AND pg_relation_size(i.inhrelid) > 0);
  END IF;
  EXECUTE (SELECT format('SELECT EXISTS (SELECT FROM %I WHERE %I >= %L::timestamptz AND %I < %L::timestamptz)',
                         s.table_name, s.time_column, p_hour, s.time_column, p_hour + interval '1 hour')
           FROM series_tables s WHERE s.table_name = p_table) INTO found;
  RETURN found;
END $$;
COMMENT ON FUNCTION has_partition(text, timestamptz) IS 'Whether the partition that holds the hour of a table is attached and holds anything (with TimescaleDB: whether a row of the hour is there).';
