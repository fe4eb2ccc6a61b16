-- database: catalog
-- example table: markets
-- example stage: (TABLE markets)
-- example columns: ticker, event_ticker
-- example updates: event_ticker = excluded.event_ticker
-- example updated: updated_time
-- example status: , status
-- example status_update: , status = excluded.status
--
-- Statements of the catalog. {table}, {stage}, {columns}, {updates}, {updated} and {status} are filled in by
-- kalshi_platform.catalog.store with names of its own.

-- name: upsert
-- Stores the staged rows whose knowledge is not older than what stands there, and writes history for those that changed.
-- Its row count is the number of changed objects. What is known already and was asked for less than `patience` ago is
-- left alone.
WITH incoming AS (
  SELECT i.*, t.ticker IS NULL OR t.fingerprint <> i.fingerprint AS is_changed
  FROM {stage} i LEFT JOIN {table} t ON t.ticker = i.ticker
  WHERE t.ticker IS NULL OR (
    t.known_at <= i.known_at AND (
      t.fingerprint <> i.fingerprint OR t.{updated} IS DISTINCT FROM i.{updated}
      OR t.known_at + %(patience)s <= i.known_at
    )
  )
),
stored AS (
  INSERT INTO {table} AS t ({columns}, payload, fingerprint, known_at, first_seen_at)
  SELECT {columns}, payload::jsonb, fingerprint, known_at, known_at FROM incoming
  ON CONFLICT (ticker) DO UPDATE SET {updates}, payload = excluded.payload, fingerprint = excluded.fingerprint,
    known_at = excluded.known_at
  WHERE t.known_at <= excluded.known_at
),
ended AS (
  UPDATE {table}_history h SET valid_to = c.known_at FROM incoming c
  WHERE c.is_changed AND h.ticker = c.ticker AND h.valid_to IS NULL AND h.valid_from < c.known_at
)
INSERT INTO {table}_history AS h (ticker, valid_from, fingerprint, payload{status})
SELECT ticker, known_at, fingerprint, payload::jsonb{status} FROM incoming WHERE is_changed
ON CONFLICT (ticker, valid_from) DO UPDATE SET fingerprint = excluded.fingerprint, payload = excluded.payload{status_update}

-- name: vanish
-- The exchange no longer knows these markets; their last description stays as payload.
WITH gone AS (
  UPDATE markets m SET status = 'vanished', known_at = %(at)s, fingerprint = v.fingerprint
  FROM unnest(%(tickers)s::text[], %(fingerprints)s::bigint[]) AS v (ticker, fingerprint)
  WHERE m.ticker = v.ticker AND m.known_at <= %(at)s AND m.status <> 'vanished'
  RETURNING m.ticker, m.fingerprint, m.payload
),
ended AS (
  UPDATE markets_history h SET valid_to = %(at)s FROM gone g
  WHERE h.ticker = g.ticker AND h.valid_to IS NULL AND h.valid_from < %(at)s
)
INSERT INTO markets_history AS h (ticker, valid_from, fingerprint, payload, status)
SELECT ticker, %(at)s, fingerprint, payload, 'vanished' FROM gone
ON CONFLICT (ticker, valid_from) DO UPDATE SET fingerprint = excluded.fingerprint, status = excluded.status

-- name: markets_to_subscribe
-- What must be known of the markets that trade or will, by ticker.
SELECT ticker, event_ticker, series_ticker, status, open_time, close_time, exchange_index, mve_collection_ticker
FROM markets WHERE status IN ('initialized', 'inactive', 'active') AND ticker > %(after)s
ORDER BY ticker LIMIT %(limit)s

-- name: newest_change
-- Where this catalog stands: the number of its newest change, and what tells it from another one of that number.
SELECT c.last_change_no, n.token::text
FROM catalog_counter c LEFT JOIN catalog_changes n ON n.change_no = c.last_change_no

-- name: went_through
-- Whether this catalog is the one that once stood there.
SELECT EXISTS (SELECT FROM catalog_changes WHERE change_no = %(change_no)s AND token = %(token)s::uuid)

-- name: changed_since
-- The same of markets of which a version was written after a change.
SELECT ticker, event_ticker, series_ticker, status, open_time, close_time, exchange_index, mve_collection_ticker
FROM markets
WHERE ticker IN (SELECT h.ticker FROM markets_history h WHERE h.change_no > %(since)s) AND ticker > %(after)s
ORDER BY ticker LIMIT %(limit)s

-- name: categories
-- The category of each series that has one: ticker, category.
SELECT ticker, category FROM series WHERE category <> ''

-- name: series_of_events
-- The series of each event that has one: ticker, series_ticker.
SELECT ticker, series_ticker FROM events WHERE series_ticker <> ''

-- name: unsettled_before
-- Markets that are not over for good and whose row is older than a moment, by ticker.
SELECT ticker FROM markets
WHERE status NOT IN ('finalized', 'vanished') AND known_at < %(before)s AND ticker > %(after)s
ORDER BY ticker LIMIT %(limit)s

-- name: overdue
-- Markets that should have opened or closed by the clock, then those that wait for their settlement and were not heard
-- of for an hour (a dispute is announced by nothing, and an announcement may be lost); asked longest ago first.
SELECT ticker FROM markets
WHERE (status = 'initialized' AND open_time <= %(at)s) OR (status IN ('active', 'inactive') AND close_time <= %(at)s)
   OR (status IN ('closed', 'determined', 'disputed', 'amended') AND known_at <= %(at)s - interval '1 hour')
ORDER BY status IN ('closed', 'determined', 'disputed', 'amended'), known_at LIMIT %(limit)s

-- name: unknown_events
-- Events of markets that are not over, but are not in the catalog.
SELECT DISTINCT m.event_ticker FROM markets m LEFT JOIN events e ON e.ticker = m.event_ticker
WHERE e.ticker IS NULL AND m.event_ticker <> '' AND m.status NOT IN ('finalized', 'vanished')
ORDER BY 1 LIMIT %(limit)s

-- name: unknown_series
-- Series of events that have such markets, but are not in the catalog.
SELECT DISTINCT e.series_ticker FROM events e LEFT JOIN series s ON s.ticker = e.series_ticker
WHERE s.ticker IS NULL AND e.series_ticker <> ''
  AND EXISTS (SELECT 1 FROM markets m WHERE m.event_ticker = e.ticker AND m.status NOT IN ('finalized', 'vanished'))
ORDER BY 1 LIMIT %(limit)s

-- name: begin_sync
-- One row per sync; returns its number.
INSERT INTO catalog_syncs (what, scope, started_at) VALUES (%(what)s, %(scope)s, %(started_at)s) RETURNING sync_id

-- name: end_sync
-- A sync that broke off keeps finished_at empty; one that ended without being whole has an error. The next one starts
-- where the last whole one did.
UPDATE catalog_syncs SET started_at = %(started_at)s, finished_at = %(finished_at)s, rows_seen = %(rows_seen)s, rows_changed = %(rows_changed)s,
  error = %(error)s WHERE sync_id = %(sync_id)s

-- name: last_sync
-- The last whole sync of everything (not of single objects).
SELECT what, scope, coalesce(rows_seen, 0), coalesce(rows_changed, 0), started_at, finished_at FROM catalog_syncs
WHERE what = %(what)s AND finished_at IS NOT NULL AND error IS NULL AND scope IN ('full', 'incremental')
ORDER BY started_at DESC LIMIT 1

-- name: object
-- One series, event or market as it is known now, with the exchange's object as JSON; no row for one that is not known.
-- Parameters: ticker.
SELECT {columns}, payload::text FROM {table} WHERE ticker = %(ticker)s

-- name: known_at
-- database: production
-- Every series, event or market as it was known at a moment of this platform's clock, by ticker. Parameters: the moment.
-- example 1: TIMESTAMPTZ '2026-11-20'
SELECT {columns}, known_from, known_until, payload::text AS payload FROM {table}_as_known_at($1) ORDER BY ticker COLLATE "C"
