-- Whose the ledger is, and which of its commits is the last. A gatherer owns its database from the session that holds
-- its lock; whatever changes the ledger names owner and token, and changes nothing when either is another: then somebody
-- else has the name, or the database was restored or failed over to an older state.

ALTER TABLE batch_counter ADD COLUMN IF NOT EXISTS owner bigint;
ALTER TABLE batch_counter ADD COLUMN IF NOT EXISTS owner_name text;
ALTER TABLE batch_counter ADD COLUMN IF NOT EXISTS owner_token bigint;
COMMENT ON COLUMN batch_counter.owner IS 'The process that may change the ledger: drawn by it, set in the session that holds the lock of its name. NULL before the first.';
COMMENT ON COLUMN batch_counter.owner_name IS 'The gatherer whose process that is.';
COMMENT ON COLUMN batch_counter.owner_token IS 'Drawn by the owner for each of its changes of the ledger, so that it recognises its last one.';

-- What is open is few and asked for every minute; what ended stays for ever.
CREATE INDEX IF NOT EXISTS sessions_open ON sessions (session_id) WHERE closed_at IS NULL;
CREATE INDEX IF NOT EXISTS streams_open ON streams (stream_id) WHERE ended_at IS NULL;
CREATE INDEX IF NOT EXISTS memberships_open ON memberships (stream_id, seq_from) WHERE seq_to IS NULL;
