-- Statements of the merge of catalogs. {table} is one of series, events, markets: the same in catalogs and production.
-- example table: markets

-- name: find_pending_tickers
-- database: production
-- Tickers that some gatherer is yet to be read for, ascending by bytes. Parameters: gatherers, table, after which
-- ticker, how many.
SELECT DISTINCT ticker COLLATE "C" FROM catalog_pending WHERE gatherer = ANY (%s) AND table_name = %s
AND ticker COLLATE "C" > %s ORDER BY 1 LIMIT %s

-- name: delete_pending
-- database: production
-- Takes away that objects are pending for gatherers. Parameters: gatherers, table, tickers.
DELETE FROM catalog_pending WHERE gatherer = ANY (%s) AND table_name = %s AND ticker = ANY (%s)

-- name: insert_pending
-- database: production
-- Records objects as pending for gatherers that could not be read. Parameters: table, gatherers, tickers.
INSERT INTO catalog_pending (gatherer, table_name, ticker)
SELECT g, %s, t FROM unnest(%s::text[]) AS g, unnest(%s::text[]) AS t ON CONFLICT DO NOTHING

-- name: read_cursors
-- database: production
-- How far each catalog was read: gatherer, change_no, token.
SELECT gatherer, change_no, token::text FROM catalog_cursors

-- name: advance_cursor
-- database: production
-- Moves the cursor of a gatherer; no row where another merge moved it meanwhile. Parameters: until and token, was and
-- was_token (what it stood at; null for a new cursor).
INSERT INTO catalog_cursors AS t (gatherer, change_no, token) VALUES (%(gatherer)s, %(until)s, %(token)s)
ON CONFLICT (gatherer) DO UPDATE SET change_no = excluded.change_no, token = excluded.token,
merged_at = excluded.merged_at WHERE t.change_no = %(was)s AND t.token = %(was_token)s

-- name: lock_merge
-- database: production
-- Waits for other merges of catalogs until the end of the transaction. Parameter: the name of the lock.
SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))

-- name: find_newest_change
-- database: catalog
-- The newest change: change_no, token, and whether there are markets. No row where its line was deleted.
SELECT change_no, token::text, EXISTS (SELECT FROM markets)
FROM catalog_counter JOIN catalog_changes ON change_no = last_change_no

-- name: read_change_token
-- database: catalog
-- The token of a change; no row where this catalog never made it. Parameter: its number.
SELECT token::text FROM catalog_changes WHERE change_no = %s

-- name: read_columns
-- database: catalog
-- Names of the columns of a table, without the number of the change. Parameter: the table.
SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
AND attname <> 'change_no' ORDER BY attnum

-- name: find_changed_tickers
-- database: catalog
-- Objects that changed after a number, themselves or a version of them, ascending by bytes. Parameters: after which
-- change, beyond which ticker, how many.
SELECT ticker FROM (
  SELECT ticker FROM {table} WHERE change_no > %(after)s UNION SELECT ticker FROM {table}_history WHERE change_no > %(after)s
) AS found
WHERE ticker COLLATE "C" > %(beyond)s ORDER BY ticker COLLATE "C" LIMIT %(limit)s

-- name: read_objects
-- database: catalog
-- When some objects were known and first seen: one row each.
SELECT ticker, known_at, first_seen_at FROM {table} WHERE ticker = ANY (%s)

-- name: read_markets
-- database: catalog
-- The same of markets, with whether their result is known, and whether they vanished without it.
SELECT ticker, known_at, first_seen_at, result IS NOT NULL, status = 'vanished' AND result IS NULL FROM {table}
WHERE ticker = ANY (%s)

-- name: read_versions
-- database: catalog
-- All versions of some objects: one row each.
SELECT ticker, valid_from, valid_to, fingerprint FROM {table}_history WHERE ticker = ANY (%s)

-- name: end_versions
-- database: production
-- Sets the ends of versions.
-- example row: ('', now(), now())
UPDATE {table}_history h SET valid_to = v.valid_to FROM (VALUES %s) AS v (ticker, valid_from, valid_to)
WHERE h.ticker = v.ticker AND h.valid_from = v.valid_from

-- name: delete_versions
-- database: production
-- Deletes versions that are none any more.
-- example row: ('', now())
DELETE FROM {table}_history h USING (VALUES %s) AS v (ticker, valid_from)
WHERE h.ticker = v.ticker AND h.valid_from = v.valid_from

-- name: set_first_seen
-- database: production
-- Sets when objects were first seen.
-- example row: ('', now())
UPDATE {table} t SET first_seen_at = v.at FROM (VALUES %s) AS v (ticker, at) WHERE t.ticker = v.ticker

-- name: read_object_rows
-- database: catalog
-- Whole rows of some objects, by ticker. Parameters: tickers.
-- example columns: t.ticker, t.payload::text
SELECT {columns} FROM {table} t WHERE ticker = ANY (%s) ORDER BY ticker

-- name: read_version_rows
-- database: catalog
-- Whole rows of some versions, in any order. Parameters: their tickers and valid_from.
-- example columns: t.ticker, t.payload::text
SELECT {columns} FROM {table}_history t
JOIN unnest(%s::text[], %s::timestamptz[]) AS k (ticker, valid_from) USING (ticker, valid_from)

-- name: upsert_objects
-- database: production
-- Writes objects that are known more newly; the earliest first sight stays. Its row count is the number of changed
-- objects. Rows: {columns}.
-- example columns: ticker, first_seen_at
-- example updates: known_at = excluded.known_at
INSERT INTO {table} AS t ({columns}) VALUES %s ON CONFLICT (ticker) DO UPDATE SET {updates},
  first_seen_at = least(t.first_seen_at, excluded.first_seen_at) WHERE t.known_at < excluded.known_at

-- name: upsert_markets
-- database: production
-- The same for markets. One that vanished without a result gives way to one with a result, and never the other way
-- round, whichever is known more newly: as find_newest() has it.
-- example columns: ticker, first_seen_at
-- example updates: known_at = excluded.known_at
INSERT INTO markets AS t ({columns}) VALUES %s ON CONFLICT (ticker) DO UPDATE SET {updates},
  first_seen_at = least(t.first_seen_at, excluded.first_seen_at)
WHERE CASE
  WHEN t.status = 'vanished' AND t.result IS NULL AND excluded.result IS NOT NULL THEN true
  WHEN excluded.status = 'vanished' AND excluded.result IS NULL AND t.result IS NOT NULL THEN false
  ELSE t.known_at < excluded.known_at END

-- name: upsert_versions
-- database: production
-- Writes versions, replacing those of the same beginning. Rows: {columns}, valid_to.
-- example columns: ticker, valid_from
-- example updates: fingerprint = excluded.fingerprint
INSERT INTO {table}_history ({columns}, valid_to) VALUES %s ON CONFLICT (ticker, valid_from) DO UPDATE SET {updates}
