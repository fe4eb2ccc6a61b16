-- What the ledger recorded, set against what is there: a source that has lost rows is recognised by its own counts.

CREATE OR REPLACE FUNCTION missing_rows(p_table text, p_from timestamptz, p_to timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
DECLARE
  recorded bigint;
  present bigint;
BEGIN
  SELECT sum(b.rows) INTO recorded FROM batches b
  WHERE b.table_name = p_table AND b.time_min >= p_from AND b.time_max >= p_from AND b.time_max < p_to AND b.time_min < p_to;
  IF coalesce(recorded, 0) = 0 THEN RETURN 0; END IF;
  EXECUTE (
    SELECT format(
      'SELECT count(*) FROM %1$I t WHERE t.%2$I >= %3$L::timestamptz AND t.%2$I < %4$L::timestamptz AND t.batch_no IN'
      ' (SELECT b.batch_no FROM batches b WHERE b.table_name = %1$L AND b.time_min >= %3$L::timestamptz'
      ' AND b.time_max >= %3$L::timestamptz AND b.time_max < %4$L::timestamptz AND b.time_min < %4$L::timestamptz)',
      p_table, s.time_column, p_from, p_to)
    FROM series_tables s WHERE s.table_name = p_table) INTO present;
  RETURN greatest(0, recorded - present);
END $$;
COMMENT ON FUNCTION missing_rows(text, timestamptz, timestamptz) IS 'How many rows of a table fewer are there than the batches recorded that lie in [from, to) as a whole.';

CREATE OR REPLACE FUNCTION hours_gone(p_table text, p_from timestamptz, p_to timestamptz) RETURNS SETOF timestamptz
LANGUAGE sql STABLE AS $$
  SELECT h FROM generate_series(date_trunc('hour', p_from, 'UTC'), p_to - INTERVAL '1 microsecond', INTERVAL '1 hour') AS h
  WHERE EXISTS (SELECT FROM dropped_hours d WHERE d.table_name = p_table AND d.hour = h)
     OR (NOT has_partition(p_table, h)
         AND EXISTS (SELECT FROM batches b WHERE b.table_name = p_table AND b.rows > 0 AND b.time_min >= h
                     AND b.time_max >= h AND b.time_max < h + INTERVAL '1 hour' AND b.time_min < h + INTERVAL '1 hour'))
$$;
COMMENT ON FUNCTION hours_gone(text, timestamptz, timestamptz) IS 'Hours of [from, to) of a table whose rows were dropped, or taken away with their partition. Cheaper than missing_rows: no row is read.';
