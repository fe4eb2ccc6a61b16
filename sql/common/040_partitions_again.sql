-- Make the partitions that hold [p_from, p_to]; returns how many were made. TimescaleDB makes its own.
-- A partition is built aside and attached: ATTACH lets readers and writers of the table go on, CREATE … PARTITION OF does not.
-- A table of the partition's name that is no partition was detached by somebody, or left where a making broke off: it is
-- attached again where it fits. Where it does not, the refusal is that of a row without a partition (23514).
CREATE OR REPLACE FUNCTION ensure_partitions(p_table text, p_from timestamptz, p_to timestamptz)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  definition series_tables%ROWTYPE;
  low timestamptz;
  partition_name text;
  relation regclass;
  attach text;
  made integer := 0;
BEGIN
  IF server_mode() <> 'native' THEN RETURN 0; END IF;
  SELECT * INTO STRICT definition FROM series_tables WHERE table_name = p_table;
  PERFORM pg_advisory_xact_lock(hashtext('ensure_partitions'), hashtext(p_table));
  low := date_bin(definition.partition_span, p_from, TIMESTAMPTZ '2000-01-01 00:00:00+00');
  WHILE low <= p_to LOOP
    partition_name := p_table || '_p' || to_char(low AT TIME ZONE 'UTC', 'YYYYMMDDHH24');
    relation := to_regclass(quote_ident(partition_name));
    attach := format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                     p_table, partition_name, low, low + definition.partition_span);
    IF relation IS NULL THEN
      EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition_name, p_table);
      EXECUTE attach;
      made := made + 1;
    ELSIF NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = relation AND i.inhparent = to_regclass(quote_ident(p_table))
                      AND NOT i.inhdetachpending) THEN
      BEGIN
        EXECUTE attach;
        made := made + 1;
      EXCEPTION
        WHEN transaction_rollback OR insufficient_resources OR object_not_in_prerequisite_state OR lock_not_available
          OR operator_intervention THEN RAISE;
        WHEN OTHERS THEN
          RAISE EXCEPTION 'table % is no partition of % and cannot be attached as one: %; drop or rename it',
            partition_name, p_table, SQLERRM USING ERRCODE = 'check_violation';
      END;
    END IF;
    low := low + definition.partition_span;
  END LOOP;
  RETURN made;
END $$;
