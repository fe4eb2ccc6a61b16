-- database: production
--
-- Locks, partitions and migrations: what the storage room itself runs, on databases of every kind.

-- name: try_lock
-- Takes a session-level advisory lock of a name unless another session holds it. One row: whether it is held now.
SELECT pg_try_advisory_lock(hashtextextended(%s, 0))

-- name: release_lock
-- Gives the advisory lock of a name back. One row: whether it was held.
SELECT pg_advisory_unlock(hashtextextended(%s, 0))

-- name: lock_until_commit
-- Waits for the advisory lock of a name and holds it to the end of the transaction. One row without meaning.
SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))

-- name: ping
-- Whether the server answers on this connection. One row.
SELECT 1

-- name: export_snapshot
-- Names what the transaction sees, for another one that is to see the same. One row: snapshot.
SELECT pg_export_snapshot() AS snapshot

-- name: ensure_partitions
-- Makes the partitions that hold [low, high]. One row: how many were made. Parameters: table, low, high.
SELECT ensure_partitions(%(table)s, %(low)s, %(high)s)

-- name: insert_staged
-- Moves staged rows into their table, without those whose key is there already. Its row count is the number of new rows.
-- example table: tickers
-- example columns: exchange_ts, ticker, fingerprint, gatherer, stream_id, seq, received_at
-- example values: s.exchange_ts, s.ticker, s.fingerprint, s.gatherer, s.stream_id, s.seq, s.received_at
-- example stage: tickers
-- example condition: WHERE s.seq > 0
INSERT INTO {table} AS t ({columns}) SELECT {values} FROM {stage} s {condition} ON CONFLICT DO NOTHING

-- name: empty_stage
-- Empties a temporary table: two inserts of one table in one transaction must not see each other's staged rows.
-- example stage: trade_listing
TRUNCATE {stage}

-- name: has_migrations
-- Whether any file was ever applied. One row.
SELECT to_regclass('schema_migrations') IS NOT NULL

-- name: create_migrations
-- Makes the table of the applied files where it is not there.
CREATE TABLE IF NOT EXISTS schema_migrations
  (name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())

-- name: applied_migrations
-- The files that were applied: name, sha256.
SELECT name, sha256 FROM schema_migrations

-- name: record_migration
-- Notes that a file was applied. Parameters: its name and hash.
INSERT INTO schema_migrations (name, sha256) VALUES (%s, %s)

-- name: keep_native
-- For this transaction: a new database gets native partitions even where TimescaleDB is preloaded.
SET LOCAL kalshi.use_timescale = 'off'

-- name: mode
-- The mode that the database was made in, and the one that the server offers now. One row.
SELECT mode, server_mode() FROM schema_meta

-- name: can_grant_roles
-- Whether the file that grants roles was applied. One row.
SELECT to_regprocedure('grant_roles()') IS NOT NULL

-- name: grant_roles
-- Gives each role its privileges in this database. One row: the roles that are absent.
SELECT grant_roles()
