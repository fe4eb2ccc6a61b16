-- Tables and columns by the terms of docs/glossary.md: this file renames those of common/, 193 those of a gatherer's
-- database, 420 those of production. Stop all services first, then migrate: statements of the version before name what
-- is gone then.
--
-- Files of lower numbers speak of the names that they made. Where they are applied again by hand, the names they know
-- must be there, so this file, which comes before those of the other folders, gives them back; 193 and 420 take them
-- away again. Whoever applies this file by hand applies the files after it too.

CREATE OR REPLACE FUNCTION use_names(p_new boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  word record;
  relation name;
  table_now text;
BEGIN
  FOR word IN
    SELECT CASE WHEN p_new THEN w.before ELSE w.after END AS was, CASE WHEN p_new THEN w.after ELSE w.before END AS becomes
    FROM (VALUES
      ('memberships', 'book_subscriptions'),
      ('book_anchors', 'book_checkpoints'),
      ('time_steps_back', 'time_regressions'),
      ('catalog_owed', 'catalog_pending')
    ) AS w (before, after)
    WHERE to_regclass(quote_ident(CASE WHEN p_new THEN w.before ELSE w.after END)) IS NOT NULL
  LOOP
    -- The table, its partitions (their names are made from the table's) and all their indexes.
    FOR relation IN
      SELECT c.relname FROM pg_class c
      WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'i', 'I')
        AND (c.relname = word.was OR starts_with(c.relname::text, word.was || '_'))
    LOOP
      EXECUTE format('ALTER TABLE %I RENAME TO %I', relation, word.becomes || substr(relation::text, length(word.was) + 1));
    END LOOP;
    UPDATE series_tables SET table_name = word.becomes WHERE table_name = word.was;
    UPDATE dropped_hours SET table_name = word.becomes WHERE table_name = word.was;
    IF to_regclass('hour_activity') IS NOT NULL THEN
      UPDATE hour_activity SET table_name = word.becomes WHERE table_name = word.was;
    END IF;
  END LOOP;

  FOR word IN
    SELECT w.relations, CASE WHEN p_new THEN w.before ELSE w.after END AS was,
           CASE WHEN p_new THEN w.after ELSE w.before END AS becomes
    FROM (VALUES
      (ARRAY['snapshot_polls'], 'markets_wanted', 'markets_desired'),
      (ARRAY['snapshot_polls'], 'markets_asked', 'markets_requested'),
      (ARRAY['book_anchors', 'book_checkpoints'], 'anchor_ts', 'checkpoint_ts'),
      (ARRAY['orderbook_snapshots'], 'witness', 'source_gatherer'),
      (ARRAY['merge_statistics'], 'first_witness', 'first_observer'),
      (ARRAY['book_proofs'], 'anchor_checks', 'checkpoint_checks'),
      (ARRAY['book_proofs'], 'anchor_failures', 'checkpoint_failures'),
      (ARRAY['hour_closes'], 'anchors', 'checkpoints'),
      (ARRAY['hour_closes'], 'unsettled', 'may_grow'),
      (ARRAY['trade_checks'], 'left_out', 'skipped'),
      (ARRAY['merge_cursors'], 'mark_batch_no', 'last_commit_batch_no'),
      (ARRAY['merge_cursors'], 'mark_committed_at', 'last_commit_at'),
      (ARRAY['dead_letters'], 'put_at', 'quarantined_at')
    ) AS w (relations, before, after)
  LOOP
    SELECT a.attrelid::regclass::text INTO table_now FROM pg_attribute a, unnest(word.relations) AS r (name)
    WHERE a.attrelid = to_regclass(quote_ident(r.name)) AND a.attname = word.was AND NOT a.attisdropped;
    IF table_now IS NOT NULL THEN
      EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO %I', table_now, word.was, word.becomes);
      UPDATE series_tables SET time_column = word.becomes
      WHERE quote_ident(table_name) = table_now AND time_column = word.was;
    END IF;
  END LOOP;
END $$;

SELECT use_names(false);

DO $$ BEGIN
  IF to_regclass('service_switches') IS NULL THEN
    ALTER TABLE desired_services RENAME TO service_switches;
    ALTER INDEX desired_services_pkey RENAME TO service_switches_pkey;
    ALTER TABLE service_switches RENAME COLUMN running TO enabled;
  ELSIF to_regclass('desired_services') IS NOT NULL THEN
    -- 020 was applied again and has made it once more.
    INSERT INTO service_switches (service, enabled, reason, changed_at)
    SELECT service, running, reason, changed_at FROM desired_services ON CONFLICT DO NOTHING;
    DROP TABLE desired_services;
  END IF;
END $$;
COMMENT ON TABLE service_switches IS 'The off switch of long-running services: one without a row, or with enabled = true, is kept alive. Names: gatherer/NAME, deduplicator.';
