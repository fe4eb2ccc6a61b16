-- What a close counted, set against what is there: what is said of an hour ends with its rows.

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

CREATE OR REPLACE FUNCTION closed_rows(p_table text, p_from timestamptz, p_to timestamptz)
RETURNS TABLE (hour timestamptz, rows bigint, is_gone boolean, dropped_at timestamptz) LANGUAGE sql STABLE AS $$
  SELECT c.hour, n.rows,
         CASE WHEN d.hour IS NOT NULL THEN n.rows IS DISTINCT FROM 0 WHEN n.rows > 0 THEN NOT has_partition(p_table, c.hour)
              ELSE false END,
         d.dropped_at
  FROM hour_closes c
  LEFT JOIN dropped_hours d ON d.table_name = p_table AND d.hour = c.hour
  CROSS JOIN LATERAL (
    SELECT CASE WHEN p_table = 'book_anchors' THEN c.anchors ELSE (c.rows ->> p_table)::bigint END AS rows
  ) AS n
  WHERE c.hour >= date_trunc('hour', p_from, 'UTC') AND c.hour < p_to
  ORDER BY c.hour
$$;
COMMENT ON FUNCTION closed_rows(text, timestamptz, timestamptz) IS 'One row per closed hour of [from, to): how many rows of a table its close counted (NULL: not counted), whether rows of it are gone, and when drop_partitions_before dropped them (NULL with is_gone: somebody took the partition away by hand). A close that finds at least as many rows again takes the drop back.';
