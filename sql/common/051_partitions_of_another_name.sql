-- ensure_partitions of 040 again: where a partition of another name holds the time already, it takes the rows.

CREATE OR REPLACE FUNCTION ensure_partitions(p_table text, p_from timestamptz, p_to timestamptz)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  definition series_tables%ROWTYPE;
  low timestamptz;
  partition_name text;
  relation regclass;
  made integer := 0;
BEGIN
  IF server_mode() <> 'native' THEN RETURN 0; END IF;
  SELECT * INTO STRICT definition FROM series_tables WHERE table_name = p_table;
  PERFORM pg_advisory_xact_lock(hashtext('ensure_partitions'), hashtext(p_table));
  low := date_bin(definition.partition_span, p_from, TIMESTAMPTZ '2000-01-01 00:00:00+00');
  WHILE low <= p_to LOOP
    partition_name := p_table || '_p' || to_char(low AT TIME ZONE 'UTC', 'YYYYMMDDHH24');
    relation := to_regclass(quote_ident(partition_name));
    IF relation IS NULL OR NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = relation
                                       AND i.inhparent = to_regclass(quote_ident(p_table)) AND NOT i.inhdetachpending) THEN
      BEGIN
        IF relation IS NULL THEN
          EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition_name, p_table);
        END IF;
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       p_table, partition_name, low, low + definition.partition_span);
        made := made + 1;
      EXCEPTION
        -- It would overlap another one. Rows that this one does not take either are refused one by one.
        WHEN invalid_object_definition THEN NULL;
        WHEN transaction_rollback OR insufficient_resources OR object_not_in_prerequisite_state OR lock_not_available
          OR operator_intervention THEN RAISE;
        WHEN OTHERS THEN
          IF relation IS NULL THEN RAISE; END IF;
          RAISE EXCEPTION 'table % is no partition of % and cannot be attached as one: %; drop or rename it',
            partition_name, p_table, SQLERRM USING ERRCODE = 'check_violation';
      END;
    END IF;
    low := low + definition.partition_span;
  END LOOP;
  RETURN made;
END $$;
