-- database: timeseries
--
-- Statements of a gatherer's commit. Each may run twice with the same rows: the second time changes nothing.

-- The counter's row is locked first, and found at the end of its index: that is the live one, whatever lies before it
-- while a transaction stays open. Who waited for the lock sees in the next statement what the other one left.

-- name: next_batch
-- Takes the next batch number; its row lock is held to the commit. One row: the number.
SELECT FROM batch_counter ORDER BY last_batch_no DESC LIMIT 1 FOR UPDATE;
UPDATE batch_counter SET last_batch_no = last_batch_no + 1
WHERE last_batch_no = (SELECT max(last_batch_no) FROM batch_counter) RETURNING last_batch_no

-- name: next_own_batch
-- The same for the process with the journal, which moves the journal's position by it: one row, the number; no row where
-- another process owns the ledger, or the position is not the one that this process knows. Parameters: owner, known (the
-- number of the batch that set the position), known_id, known_segment, known_offset; journal_id, segment, segment_created_ns,
-- block_offset.
SELECT FROM batch_counter ORDER BY last_batch_no DESC LIMIT 1 FOR UPDATE;
WITH counter AS (
  UPDATE batch_counter SET last_batch_no = last_batch_no + 1
  WHERE last_batch_no = (SELECT max(last_batch_no) FROM batch_counter) AND owner IS NOT DISTINCT FROM %(owner)s
    AND EXISTS (SELECT FROM journal_position p
                WHERE p.batch_no = %(known)s AND p.journal_id IS NOT DISTINCT FROM %(known_id)s
                  AND p.segment = %(known_segment)s AND p.block_offset = %(known_offset)s)
  RETURNING last_batch_no
)
UPDATE journal_position p SET batch_no = c.last_batch_no, journal_id = %(journal_id)s, segment = %(segment)s,
  segment_created_ns = %(segment_created_ns)s, block_offset = %(block_offset)s, updated_at = clock_timestamp()
FROM counter c WHERE p.batch_no = %(known)s
RETURNING c.last_batch_no

-- name: lock_ledger
-- Who owns the ledger. A commit that is still under way in the server holds this row until it is done.
SELECT owner FROM batch_counter ORDER BY last_batch_no DESC LIMIT 1 FOR UPDATE

-- name: journal_position
-- What of the journal is in this database. One row.
SELECT batch_no, journal_id, segment, block_offset, segment_created_ns, updated_at FROM journal_position ORDER BY batch_no DESC LIMIT 1

-- name: take_ledger
-- For the session that holds the lock of its name. Parameters: owner, name.
UPDATE batch_counter SET owner = %(owner)s, owner_name = %(name)s

-- name: owner_name
-- The gatherer that owns the ledger; NULL before the first. One row.
SELECT owner_name FROM batch_counter

-- name: open_sessions
-- The sessions that the ledger has as open, and when each was opened, in microseconds.
SELECT session_id, (extract(epoch FROM opened_at) * 1000000)::bigint FROM sessions WHERE closed_at IS NULL

-- name: open_streams
-- The streams that the ledger has as open, each with its last committed number.
SELECT stream_id, session_id, sid, channel, last_committed_seq(stream_id) FROM streams WHERE ended_at IS NULL

-- name: open_books
-- The book subscriptions that the ledger has as open.
SELECT stream_id, ticker, seq_from FROM book_subscriptions WHERE seq_to IS NULL

-- name: end_all_book_subscriptions
-- Ends what is open, followed to the last number that was committed for its stream. Parameters: reason.
UPDATE book_subscriptions m SET end_reason = %(reason)s, seq_to = greatest(m.seq_from, o.last_seq)
FROM open_book_streams o WHERE m.stream_id = o.stream_id AND m.seq_to IS NULL

-- name: end_all_streams
-- Ends every open stream, at the last commit that brought numbers of it. Parameters: reason.
UPDATE streams t SET end_reason = %(reason)s, ended_at = greatest(t.opened_at, (
  SELECT b.committed_at FROM batches b WHERE b.batch_no <= (
    SELECT g.batch_no FROM stream_segments g WHERE g.stream_id = t.stream_id ORDER BY g.seq_from DESC LIMIT 1)
  ORDER BY b.batch_no DESC LIMIT 1))
WHERE t.ended_at IS NULL

-- name: close_all_sessions
-- Closes every open session, at the end of its last stream. Parameters: reason.
UPDATE sessions s SET close_reason = %(reason)s, closed_at = greatest(s.opened_at, (
  SELECT max(t.ended_at) FROM streams t WHERE t.session_id = s.session_id))
WHERE s.closed_at IS NULL

-- name: sessions_opened
-- Rows: session_id, gatherer, connection, url, use_yes_price, opened_at. A session that is there already stays as it is.
INSERT INTO sessions (session_id, gatherer, connection, url, use_yes_price, opened_at) VALUES %s
ON CONFLICT (session_id) DO NOTHING

-- name: sessions_closed
-- Rows: session_id, closed_at, reason. A session that is closed already stays as it is.
-- example row: (1::bigint, now(), 'closed')
UPDATE sessions s SET closed_at = v.closed_at, close_reason = v.reason
FROM (VALUES %s) AS v (session_id, closed_at, reason)
WHERE s.session_id = v.session_id AND s.closed_at IS NULL

-- name: streams_opened
-- Rows: stream_id, session_id, sid, channel, opened_at. A stream that is there already stays as it is.
INSERT INTO streams (stream_id, session_id, sid, channel, opened_at) VALUES %s
ON CONFLICT (stream_id) DO NOTHING

-- name: streams_ended
-- Rows: stream_id, ended_at, reason. A stream that has ended already stays as it is.
-- example row: (1::bigint, now(), 'closed')
UPDATE streams s SET ended_at = v.ended_at, end_reason = v.reason
FROM (VALUES %s) AS v (stream_id, ended_at, reason)
WHERE s.stream_id = v.stream_id AND s.ended_at IS NULL

-- name: segments
-- Rows: stream_id, seq_from, seq_to, exchange_ts_min, exchange_ts_max, batch_no. Of one start the longer one stays.
INSERT INTO stream_segments AS t (stream_id, seq_from, seq_to, exchange_ts_min, exchange_ts_max, batch_no) VALUES %s
ON CONFLICT (stream_id, seq_from) DO UPDATE SET
  seq_to = excluded.seq_to,
  exchange_ts_min = least(t.exchange_ts_min, excluded.exchange_ts_min),
  exchange_ts_max = greatest(t.exchange_ts_max, excluded.exchange_ts_max),
  batch_no = excluded.batch_no
WHERE excluded.seq_to > t.seq_to

-- name: book_subscriptions
-- Rows: stream_id, ticker, seq_from, seq_to, end_reason, exchange_index, batch_no. An open one may get its end.
INSERT INTO book_subscriptions AS t (stream_id, ticker, seq_from, seq_to, end_reason, exchange_index, batch_no) VALUES %s
ON CONFLICT (stream_id, ticker, seq_from) DO UPDATE SET
  seq_to = excluded.seq_to, end_reason = excluded.end_reason, batch_no = excluded.batch_no
WHERE t.seq_to IS NULL AND excluded.seq_to IS NOT NULL

-- name: endings
-- Ends book subscriptions that earlier batches began. Rows: stream_id, ticker, seq_to, reason, before, batch_no; of
-- each market the open one with a first number below `before`.
-- example row: (1::bigint, 'A', 2::bigint, 'gap', 3::bigint, 4::bigint)
UPDATE book_subscriptions m SET seq_to = v.seq_to, end_reason = v.reason, batch_no = v.batch_no
FROM (VALUES %s) AS v (stream_id, ticker, seq_to, reason, before, batch_no)
WHERE m.stream_id = v.stream_id AND m.ticker = v.ticker AND m.seq_to IS NULL AND m.seq_from < v.before

-- name: gaps
-- Rows: stream_id, seq_expected, seq_seen, detected_at, batch_no.
INSERT INTO sequence_gaps (stream_id, seq_expected, seq_seen, detected_at, batch_no) VALUES %s
ON CONFLICT DO NOTHING

-- name: unknown_frames
-- Rows: stream_id, seq, frame_type, ticker, batch_no.
INSERT INTO unknown_frames (stream_id, seq, frame_type, ticker, batch_no) VALUES %s
ON CONFLICT DO NOTHING

-- name: letters_counted
-- Counts of dead letters that were not kept. Rows: minute, reason, counted_by, letters; the highest count stands.
INSERT INTO dead_letter_counts AS t (minute, reason, counted_by, letters) VALUES %s
ON CONFLICT (minute, reason, counted_by) DO UPDATE SET letters = greatest(t.letters, excluded.letters)

-- name: drop_old_letters
-- Returns how many days of dead letters went. Parameters: before, days.
SELECT drop_old_dead_letters(%(before)s, %(days)s)

-- name: batches
-- Rows: batch_no, table_name, rows, time_min, time_max, bytes; one per table that the batch brought rows of.
INSERT INTO batches (batch_no, table_name, rows, time_min, time_max, bytes) VALUES %s
ON CONFLICT DO NOTHING

-- name: batch_without_rows
-- Every batch leaves a line, so that whoever has read up to it recognises it. Parameters: batch_no.
INSERT INTO batches (batch_no, table_name, rows, time_min, time_max)
VALUES (%(batch_no)s, 'ledger', 0, clock_timestamp(), clock_timestamp())

-- name: snapshot_polls
-- Rows: one per poll, in the order of the columns named.
INSERT INTO snapshot_polls (minute, started_at, finished_at, markets_desired, markets_requested, markets_answered,
  markets_failed, requests, tokens, oldest_age_s) VALUES %s
ON CONFLICT DO NOTHING

-- name: oldest_transaction
-- Who has kept a transaction open in this database for long, for how many seconds, and what ends it; no row where nobody
-- does. Of sessions of other users a server tells only those that may see them. Parameters: open_for_s.
SELECT who, extract(epoch FROM clock_timestamp() - began)::float8 AS open_s, remedy FROM (
  SELECT format('pid %%s (%%s, %%s)', pid, coalesce(nullif(application_name, ''), usename, '?'), state) AS who,
    xact_start AS began, format('SELECT pg_terminate_backend(%%s)', pid) AS remedy
  FROM pg_stat_activity
  WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
  UNION ALL
  SELECT format('the prepared transaction %%s of %%s', gid, owner), prepared, format('ROLLBACK PREPARED %%L', gid)
  FROM pg_prepared_xacts WHERE database = current_database()
) AS found
WHERE clock_timestamp() - began > make_interval(secs => %(open_for_s)s)
ORDER BY began LIMIT 1
