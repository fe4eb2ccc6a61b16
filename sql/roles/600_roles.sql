-- Least privilege: what each service may do in this database. Roles without a login hold the privileges; the logins of
-- services and people are made members of them, once for each server:
--
--   CREATE ROLE g1_capture LOGIN PASSWORD '…' IN ROLE kalshi_capture;
--   CREATE ROLE platform LOGIN PASSWORD '…' IN ROLE kalshi_merge, kalshi_retention;
--   CREATE ROLE analyst LOGIN PASSWORD '…' IN ROLE kalshi_reader;
--
--   kalshi_capture    a gatherer: adds to its own two databases; it cannot change or remove a message once it is stored
--   kalshi_merge      the merge, closes and exports: reads gatherers' databases, writes production
--   kalshi_retention  removes old rows from gatherers' databases and from production
--   kalshi_reader     reads
--
-- Whoever applies the files of sql/ owns the tables. What needs an owner (partitions are made and dropped) is done by
-- functions that run with the owner's rights, for those roles that need it.

-- A partition is locked, and dropped, of a time-series table and of nothing else: these two run with the owner's rights.
CREATE OR REPLACE FUNCTION is_series_table(p_table text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF to_regclass('series_tables') IS NULL THEN RETURN false; END IF;
  RETURN EXISTS (SELECT FROM series_tables s WHERE s.table_name = p_table);
END $$;
COMMENT ON FUNCTION is_series_table(text) IS 'Whether this is a time-series table of this database.';

DO $$ BEGIN
  IF to_regclass('series_tables') IS NULL THEN RETURN; END IF;  -- a catalog has none

  -- lock_partition of common/100 again.
  CREATE OR REPLACE FUNCTION lock_partition(p_table text, p_low timestamptz, p_high timestamptz)
  RETURNS boolean LANGUAGE plpgsql AS $f$
  DECLARE
    found text;
  BEGIN
    IF NOT is_series_table(p_table) THEN RETURN false; END IF;
    EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', p_table);
    SELECT p.relation INTO found FROM table_partitions(p_table) p WHERE p.low = p_low AND p.high = p_high;
    IF found IS NULL THEN RETURN false; END IF;
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', found);
    RETURN true;
  END $f$;
END $$;

-- What each role may do with each table: letters as psql's \dp prints them (r SELECT, a INSERT, w UPDATE, d DELETE).
-- A table that is not named has the privileges of the last line of its kind of database.
CREATE OR REPLACE FUNCTION role_privileges()
RETURNS TABLE (relation regclass, role_name name, privileges text) LANGUAGE sql STABLE AS $$
  WITH kind AS (
    SELECT CASE WHEN to_regclass('hour_closes') IS NOT NULL THEN 'production'
                WHEN to_regclass('batch_counter') IS NOT NULL THEN 'timeseries' ELSE 'catalog' END AS name
  ), rules (kind, tables, capture, merge, retention, reader) AS (VALUES
    ('timeseries', '{orderbook_deltas,orderbook_snapshots,trades,tickers,market_lifecycle,dead_letters}'::name[],
                   'ra', 'r', 'r', 'r'),
    ('timeseries', '{batches,sequence_gaps,unknown_frames,snapshot_polls}', 'ra', 'r', 'rd', 'r'),
    ('timeseries', '{sessions,streams,stream_segments,book_subscriptions,heartbeats}', 'raw', 'r', 'rd', 'r'),
    ('timeseries', '{batch_counter}', 'rw', 'r', 'r', 'r'),
    ('timeseries', '{dropped_hours}', 'r', 'r', 'rd', 'r'),
    ('timeseries', '{schema_meta,schema_migrations,series_tables}', 'r', 'r', 'r', 'r'),
    ('timeseries', NULL, 'raw', 'r', 'r', 'r'),
    ('catalog', '{catalog_changes}', 'rad', 'r', 'r', 'r'),
    ('catalog', '{catalog_counter}', 'rw', 'r', 'r', 'r'),
    ('catalog', '{catalog_syncs}', 'raw', 'r', 'rd', 'r'),
    ('catalog', '{schema_migrations}', 'r', 'r', 'r', 'r'),
    ('catalog', NULL, 'raw', 'r', 'r', 'r'),
    ('production', '{orderbook_deltas,orderbook_snapshots,trades,tickers,market_lifecycle}', '', 'ra', 'r', 'r'),
    ('production', '{series,events,markets,merge_cursors,catalog_cursors,hour_closes,hour_activity,service_switches}',
                   '', 'raw', 'r', 'r'),
    ('production', '{merge_counter,catalog_counter}', '', 'rw', 'r', 'r'),
    ('production', '{closed_streams,time_regressions,misdated_deltas,merge_statistics,close_alarms,trade_checks,'
                   'trade_parity,merge_alarms,dead_letters,heartbeats,catalog_syncs}', '', 'rawd', 'rd', 'r'),
    ('production', '{lake_verifications}', '', 'r', 'rawd', 'r'),
    ('production', '{schema_meta,schema_migrations,series_tables}', '', 'r', 'r', 'r'),
    ('production', NULL, '', 'rawd', 'r', 'r')
  ), ours AS (
    SELECT c.oid::regclass AS relation, c.relname, c.relkind FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
      -- Of whoever owns ours: what others made in this schema is their own affair.
      AND c.relowner = (SELECT m.relowner FROM pg_class m
                        WHERE m.oid = coalesce(to_regclass('hour_closes'), to_regclass('batch_counter'),
                                               to_regclass('catalog_counter')))
      -- And so is what an extension made.
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  ), ruled AS (
    SELECT o.relation, o.relkind, r.* FROM ours o CROSS JOIN kind k CROSS JOIN LATERAL (
      SELECT r.capture, r.merge, r.retention, r.reader FROM rules r
      WHERE r.kind = k.name AND (r.tables IS NULL OR o.relname = ANY (r.tables)) ORDER BY r.tables IS NULL LIMIT 1
    ) AS r
  )
  SELECT r.relation, p.role_name, CASE WHEN r.relkind IN ('v', 'm') THEN left(p.privileges, 1) ELSE p.privileges END
  FROM ruled r CROSS JOIN LATERAL (VALUES
    ('kalshi_capture'::name, r.capture), ('kalshi_merge', r.merge), ('kalshi_retention', r.retention),
    ('kalshi_reader', r.reader)
  ) AS p (role_name, privileges)
$$;
COMMENT ON FUNCTION role_privileges() IS 'What each role may do with each table of this database: r SELECT, a INSERT, w UPDATE, d DELETE.';

-- Which functions run with the owner's rights, and for whom. Everybody may call the others, with rights of their own.
CREATE OR REPLACE FUNCTION role_functions()
RETURNS TABLE (signature regprocedure, role_name name) LANGUAGE sql STABLE AS $$
  SELECT to_regprocedure(f.signature), f.role_name FROM (VALUES
    ('ensure_partitions(text,timestamptz,timestamptz)',
     CASE WHEN to_regclass('hour_closes') IS NULL THEN 'kalshi_capture'::name ELSE 'kalshi_merge' END),
    ('drop_old_dead_letters(timestamptz,integer)', 'kalshi_capture'),
    ('lock_partition(text,timestamptz,timestamptz)', 'kalshi_retention'),
    ('drop_partition(text,timestamptz,timestamptz)', 'kalshi_retention')
  ) AS f (signature, role_name)
  WHERE to_regprocedure(f.signature) IS NOT NULL
$$;
COMMENT ON FUNCTION role_functions() IS 'The functions that run with the owner''s rights, and the role that may call each.';

-- Bring the privileges of this database to what role_privileges and role_functions say, and change nothing that is so
-- already; returns the roles that are absent and that the caller may not create. `kalshi-platform migrate` calls it each
-- time, so that tables of later files, and roles that were made since, get theirs.
CREATE OR REPLACE FUNCTION grant_roles() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
  roles CONSTANT name[] := ARRAY['kalshi_capture', 'kalshi_merge', 'kalshi_retention', 'kalshi_reader'];
  present name[];
  role name;
  wanted record;
BEGIN
  FOREACH role IN ARRAY roles LOOP
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN CONTINUE; END IF;
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN', role);
    EXCEPTION
      WHEN duplicate_object OR unique_violation THEN NULL;  -- another database of the server is migrated meanwhile
      WHEN insufficient_privilege THEN NULL;
    END;
  END LOOP;
  SELECT coalesce(array_agg(r.rolname), '{}') INTO present FROM pg_roles r WHERE r.rolname = ANY (roles);

  -- Nobody but owners makes tables beside ours, which a function could take for them. So it is since PostgreSQL 15.
  IF has_schema_privilege('public', current_schema(), 'CREATE') THEN
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema());
  END IF;

  FOREACH role IN ARRAY present LOOP
    -- PUBLIC has these unless an administrator took them.
    IF NOT has_schema_privilege(role, current_schema(), 'USAGE') THEN
      EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role);
    END IF;
    IF role <> 'kalshi_reader' AND NOT has_database_privilege(role, current_database(), 'TEMPORARY') THEN
      EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), role);
    END IF;
  END LOOP;

  FOR wanted IN
    SELECT w.relation, w.role_name, w.verbs FROM (
      SELECT p.relation, p.role_name, coalesce(string_agg(v.verb, ', ' ORDER BY v.verb), '') AS verbs
      FROM role_privileges() p LEFT JOIN (VALUES ('r', 'SELECT'), ('a', 'INSERT'), ('w', 'UPDATE'), ('d', 'DELETE'))
        AS v (letter, verb) ON strpos(p.privileges, v.letter) > 0
      WHERE p.role_name = ANY (present) GROUP BY p.relation, p.role_name
    ) AS w
    JOIN pg_class c ON c.oid = w.relation
    WHERE w.verbs <> coalesce((
      SELECT string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type)
      FROM aclexplode(c.relacl) a JOIN pg_roles g ON g.oid = a.grantee WHERE g.rolname = w.role_name), '')
  LOOP
    EXECUTE format('REVOKE ALL ON %s FROM %I', wanted.relation, wanted.role_name);
    IF wanted.verbs <> '' THEN
      EXECUTE format('GRANT %s ON %s TO %I', wanted.verbs, wanted.relation, wanted.role_name);
    END IF;
  END LOOP;

  -- The one column of a message that the close fills in afterwards.
  IF to_regclass('hour_closes') IS NOT NULL AND 'kalshi_merge' = ANY (present)
     AND NOT has_column_privilege('kalshi_merge', 'trades', 'created_time', 'UPDATE') THEN
    GRANT UPDATE (created_time) ON trades TO kalshi_merge;
  END IF;

  IF to_regnamespace('iceberg') IS NOT NULL AND to_regclass('iceberg.iceberg_tables') IS NOT NULL THEN
    FOREACH role IN ARRAY present LOOP
      IF role IN ('kalshi_merge', 'kalshi_reader') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA iceberg TO %I', role);
        EXECUTE format('GRANT %s ON iceberg.iceberg_tables, iceberg.iceberg_namespace_properties TO %I',
                       CASE role WHEN 'kalshi_merge' THEN 'SELECT, INSERT, UPDATE, DELETE' ELSE 'SELECT' END, role);
      END IF;
    END LOOP;
  END IF;

  FOR wanted IN SELECT f.signature, f.role_name FROM role_functions() f
  LOOP
    -- Temporary objects come last, and only where named: a caller's table of the same name is not taken for ours.
    EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = %I, pg_temp', wanted.signature, current_schema());
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', wanted.signature);
    IF wanted.role_name = ANY (present) THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', wanted.signature, wanted.role_name);
    END IF;
  END LOOP;

  RETURN ARRAY(SELECT r::text FROM unnest(roles) r WHERE r <> ALL (present) ORDER BY 1);
END $$;
COMMENT ON FUNCTION grant_roles() IS 'Create the roles kalshi_capture, kalshi_merge, kalshi_retention and kalshi_reader where they are absent, and give each its privileges in this database; returns the roles that are absent still.';

SELECT grant_roles();
