-- The questions of 140 again: of the ledger they read the lines of their own time, by the index that 180 has made.

CREATE OR REPLACE FUNCTION missing_rows(p_table text, p_from timestamptz, p_to timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
DECLARE
  numbers bigint[];
  recorded bigint;
  present bigint;
BEGIN
  SELECT array_agg(b.batch_no), sum(b.rows) INTO numbers, recorded FROM batches b
  WHERE b.table_name = p_table AND b.rows > 0
    AND tstzrange(least(b.time_min, b.time_max), greatest(b.time_min, b.time_max), '[]') && tstzrange(p_from, p_to)
    AND least(b.time_min, b.time_max) >= p_from AND greatest(b.time_min, b.time_max) < p_to;
  IF coalesce(recorded, 0) = 0 THEN RETURN 0; END IF;
  EXECUTE (
    SELECT format('SELECT count(*) FROM %I t WHERE t.%I >= %L::timestamptz AND t.%I < %L::timestamptz AND t.batch_no = ANY ($1)',
                  p_table, s.time_column, p_from, s.time_column, p_to)
    FROM series_tables s WHERE s.table_name = p_table) INTO present USING numbers;
  RETURN greatest(0, recorded - present);
END $$;

CREATE OR REPLACE FUNCTION hours_gone(p_table text, p_from timestamptz, p_to timestamptz) RETURNS SETOF timestamptz
LANGUAGE sql STABLE AS $$
  SELECT h FROM generate_series(date_trunc('hour', p_from, 'UTC'), p_to - INTERVAL '1 microsecond', INTERVAL '1 hour') AS h
  WHERE EXISTS (SELECT FROM dropped_hours d WHERE d.table_name = p_table AND d.hour = h)
     OR (NOT has_partition(p_table, h)
         AND EXISTS (SELECT FROM batches b WHERE b.table_name = p_table AND b.rows > 0
                     AND tstzrange(least(b.time_min, b.time_max), greatest(b.time_min, b.time_max), '[]')
                         && tstzrange(h, h + INTERVAL '1 hour')
                     AND least(b.time_min, b.time_max) >= h AND greatest(b.time_min, b.time_max) < h + INTERVAL '1 hour'))
$$;
