-- Statements of the close of an hour: nearly all of production.

-- name: find_worst_markets
-- database: production
-- Market-hours that failed, the lowest score first: one row each. Parameters: hours, how many.
SELECT hour, ticker, verdict, score,
run_failures + checkpoint_failures + stream_failures + rest_inconsistent,
rest_undecided, withdrawn_us / 1e6::double precision, detail FROM book_proofs
WHERE hour = ANY (%s) AND verdict = 'failed'
ORDER BY score NULLS FIRST, 5 DESC, hour, ticker LIMIT %s

-- name: read_alarms_between
-- database: production
-- Alarms of the hours of [low, high), one row each.
SELECT hour, kind, subject, detail, raised_at FROM close_alarms WHERE hour >= %s AND hour < %s
ORDER BY hour, kind, subject

-- name: begin_close
-- database: production
-- The number of a close that begins, and the moment.
SELECT next_merge_no(), clock_timestamp()

-- name: record_close
-- database: production
-- Records the close of an hour. `kept`: what was verified before stays; `unchanged`: so does the identity of the close.
INSERT INTO hour_closes AS t (hour, close_no, closed_at, rows, checkpoints, gatherers_read,
gatherers_missed, gatherers_incomplete, may_grow, markets, open_us, covered_us)
VALUES (%(hour)s, %(close_no)s, %(closed_at)s, %(rows)s,
%(checkpoints)s, %(read)s, %(missed)s, %(incomplete)s, %(may_grow)s, %(markets)s, %(open_us)s,
%(covered_us)s)
ON CONFLICT (hour) DO UPDATE SET close_no = excluded.close_no,
close_id = CASE WHEN %(unchanged)s THEN t.close_id ELSE excluded.close_id END,
closed_at = excluded.closed_at, rows = excluded.rows,
checkpoints = CASE WHEN %(kept)s THEN t.checkpoints ELSE excluded.checkpoints END,
gatherers_read = excluded.gatherers_read, gatherers_missed = excluded.gatherers_missed,
gatherers_incomplete = excluded.gatherers_incomplete, may_grow = excluded.may_grow,
markets = CASE WHEN %(kept)s THEN t.markets ELSE excluded.markets END,
open_us = CASE WHEN %(kept)s THEN t.open_us ELSE excluded.open_us END,
covered_us = CASE WHEN %(kept)s THEN t.covered_us ELSE excluded.covered_us END

-- name: read_claims
-- database: production
-- Claims of the hours of [low, high), one row each, times in µs.
SELECT gatherer, stream_id, ticker, (extract(epoch FROM from_ts) * 1000000)::bigint,
(extract(epoch FROM to_ts) * 1000000)::bigint, rows, content, withdrawn FROM stream_claims
WHERE from_ts >= %s AND from_ts < %s

-- name: read_run_checks
-- database: production
-- Run checks of markets that the last close of an hour made: ticker, checks, failures. Parameters: hour, tickers.
SELECT ticker, run_checks, run_failures FROM book_proofs WHERE hour = %s AND ticker = ANY (%s)

-- name: find_contradicted_hours
-- database: production
-- Hours with claims that stand although a failed check reaches over them. Parameters: the checks as arrays (gatherer,
-- stream, ticker, low, high), then until and since.
SELECT DISTINCT c.hour FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::timestamptz[], %s::timestamptz[])
AS f (gatherer, stream_id, ticker, low, high) JOIN stream_claims c USING (gatherer, stream_id, ticker)
WHERE c.withdrawn IS NULL AND c.from_ts < %s AND c.from_ts >= %s AND c.from_ts <= f.high AND c.to_ts > f.low

-- name: delete_statistics
-- database: production
-- Removes the merge statistics of an hour. Parameters: hour, "gatherer table" of those that stay.
DELETE FROM merge_statistics WHERE hour = %s AND (gatherer || ' ' || table_name) <> ALL (%s)

-- name: record_streams
-- database: production
-- Records what streams held of an hour; one row per stream.
INSERT INTO closed_streams (hour, gatherer, stream_id, seq_to, deltas) VALUES %s
ON CONFLICT (hour, gatherer, stream_id) DO UPDATE SET seq_to = excluded.seq_to, deltas = excluded.deltas

-- name: find_large_regressions
-- database: production
-- Streams of an hour whose time went back by more than a bound in µs. Parameters: hour, bound.
SELECT gatherer, stream_id, steps, largest_us FROM time_regressions
WHERE hour = %s AND ticker = '' AND largest_us > %s ORDER BY 1, 2

-- name: delete_regressions
-- database: production
-- Removes the time regressions of streams of a gatherer in an hour. Parameters: hour, gatherer, streams.
DELETE FROM time_regressions WHERE hour = %s AND gatherer = %s AND stream_id = ANY (%s)

-- name: insert_regressions
-- database: production
-- One row per stream and market whose time went back.
INSERT INTO time_regressions (hour, gatherer, stream_id, ticker, steps, largest_us, exchange_ts) VALUES %s

-- name: delete_alarms
-- database: production
-- Removes the alarms of an hour that were not raised again. Parameters: hour, "kind subject" of those that were.
DELETE FROM close_alarms WHERE hour = %s AND (kind || ' ' || subject) <> ALL (%s)

-- name: upsert_alarms
-- database: production
-- One row per alarm; one that is raised again keeps its moment.
INSERT INTO close_alarms (hour, kind, subject, detail) VALUES %s
ON CONFLICT (hour, kind, subject) DO UPDATE SET detail = excluded.detail

-- name: read_alarms
-- database: production
-- Alarms of an hour: kind, subject, detail.
SELECT kind, subject, detail FROM close_alarms WHERE hour = %s ORDER BY kind, subject

-- name: find_checkpointed_snapshots
-- database: production
-- Snapshots with a checkpoint in [low, high): gatherer, stream_id, seq, ticker.
SELECT gatherer, stream_id, seq, ticker FROM book_checkpoints
WHERE checkpoint_ts >= %s AND checkpoint_ts < %s AND gatherer <> ''

-- name: find_checkpointed_streams
-- database: production
-- Streams with a checkpoint in [low, high), as an array by gatherer.
SELECT gatherer, array_agg(DISTINCT stream_id) FROM book_checkpoints
WHERE checkpoint_ts >= %s AND checkpoint_ts < %s GROUP BY gatherer

-- name: delete_checkpoints
-- database: production
-- Removes the checkpoints of streams in [low, high). Parameters: low, high, gatherer, streams.
DELETE FROM book_checkpoints WHERE checkpoint_ts >= %s AND checkpoint_ts < %s AND gatherer = %s
AND stream_id = ANY (%s)

-- name: find_failed_markets
-- database: production
-- Markets of an hour whose proof failed.
SELECT ticker FROM book_proofs WHERE hour = %s AND verdict = 'failed' ORDER BY ticker COLLATE "C"

-- name: delete_derived_checkpoints
-- database: production
-- Removes the derived checkpoints of a moment.
DELETE FROM book_checkpoints WHERE checkpoint_ts = %s AND gatherer = ''

-- name: find_dropped_tables
-- database: timeseries
-- Tables of which rows of an hour were dropped.
-- example 1: TIMESTAMPTZ '2026-11-20'
SELECT table_name FROM dropped_hours WHERE hour = $1

-- name: count_covered_markets
-- database: production
-- How many markets are covered at each moment of an hour. Parameters: from, to and step of the moments; low and high, the
-- hour.
-- example step: INTERVAL '1 minute'
-- example from: TIMESTAMPTZ '2026-11-20'
-- example to: TIMESTAMPTZ '2026-11-20'
SELECT m.at, count(DISTINCT c.ticker) FROM generate_series(%(from)s, %(to)s, %(step)s) AS m(at)
LEFT JOIN coverage c ON c.from_ts >= %(low)s AND c.from_ts < %(high)s
AND c.from_ts <= m.at AND c.to_ts > m.at GROUP BY m.at ORDER BY m.at

-- name: read_coverage_share
-- database: production
-- The coverage share of an hour: one row.
SELECT markets, open_us, covered_us, share FROM hour_coverage_share(%s)

-- name: count_proofs
-- database: production
-- Market-hours by verdict. Parameter: hours.
SELECT verdict, count(*) FROM book_proofs WHERE hour = ANY (%s) GROUP BY verdict

-- name: read_agreement
-- database: production
-- By gatherer: distinct deltas, those that only it has, and the share that others have too. Parameter: hours.
SELECT gatherer, sum(distinct_rows), sum(unique_rows), sum(agreed)::float8 / nullif(sum(comparable), 0)
FROM merge_statistics WHERE hour = ANY (%s) AND table_name = 'orderbook_deltas'
GROUP BY gatherer ORDER BY gatherer

-- name: find_last_closed_hour
-- database: production
-- The newest closed hour; null before the first.
SELECT max(hour) FROM hour_closes

-- name: find_active_hours
-- database: production
-- Hours that got rows, one row each.
SELECT DISTINCT hour FROM hour_activity ORDER BY hour

-- name: find_hours_to_close
-- database: production
-- Hours to close, one row each: never closed, with rows since their close, or without a gatherer that answers again.
-- example now: TIMESTAMPTZ '2026-11-20'
-- example again: INTERVAL '50 minutes'
-- example silent: INTERVAL '10 minutes'
-- example may_grow_for: INTERVAL '125 minutes'
-- What a clock ahead of ours has written holds nothing back.
SELECT s.hour FROM hour_states() s LEFT JOIN hour_closes c USING (hour)
WHERE s.hour <= %(ended)s AND s.last_merge_no IS NOT NULL
AND (s.close_no IS NULL OR s.reopened OR (c.may_grow AND s.hour + %(may_grow_for)s <= %(now)s))
UNION SELECT c.hour FROM hour_closes c CROSS JOIN unnest(c.gatherers_missed) AS missed (gatherer)
LEFT JOIN merge_cursors m USING (gatherer)
WHERE c.hour >= %(oldest)s AND c.hour <= %(ended)s
AND (c.closed_at <= %(now)s - greatest(%(again)s, (%(now)s - c.hour) / 8) OR c.closed_at > %(now)s)
AND (m.last_error IS NULL OR clock_timestamp() - m.last_error_at NOT BETWEEN INTERVAL '0' AND %(silent)s)
ORDER BY 1

-- name: find_silent_hours
-- database: production
-- Hours of [low, ended] that got no row and were never closed, from the first hour with either on; one row each.
-- example low: TIMESTAMPTZ '2026-11-19'
-- example ended: TIMESTAMPTZ '2026-11-20'
SELECT h.hour
FROM (SELECT least((SELECT min(hour) FROM hour_activity), (SELECT min(hour) FROM hour_closes)) AS hour) AS first
CROSS JOIN generate_series(greatest(first.hour, %(low)s), %(ended)s, INTERVAL '1 hour') AS h (hour)
WHERE first.hour IS NOT NULL
AND NOT EXISTS (SELECT FROM hour_activity a WHERE a.hour = h.hour)
AND NOT EXISTS (SELECT FROM hour_closes c WHERE c.hour = h.hour)
ORDER BY 1

-- name: find_closed_hours
-- database: production
-- Hours whose latest close began at a moment or later.
SELECT hour FROM hour_closes WHERE closed_at >= %s ORDER BY hour

-- name: read_counted_rows
-- database: production
-- Rows by table as the last close of an hour counted them (jsonb), and whether rows came since, by whichever merge; no
-- row where it was never closed.
SELECT c.rows, EXISTS (SELECT FROM hour_activity a WHERE a.hour = c.hour AND a.last_merge_no > c.close_no)
FROM hour_closes c WHERE c.hour = %s

-- name: find_lost_tables
-- database: production
-- Tables of an hour with a line in dropped_hours.
SELECT table_name FROM dropped_hours WHERE hour = %s

-- name: read_streams
-- database: production
-- What the streams held of an hour that its last close read: one row per stream.
SELECT gatherer, stream_id, seq_to, deltas FROM closed_streams WHERE hour = %s

-- name: find_claiming_streams
-- database: production
-- Streams with a claim in [low, high), as an array by gatherer.
SELECT gatherer, array_agg(DISTINCT stream_id) FROM stream_claims WHERE from_ts >= %s AND from_ts < %s
GROUP BY gatherer

-- name: delete_lost_tables
-- database: production
-- Takes the drop of tables back whose rows are all there again. Parameters: hour, tables that stay.
DELETE FROM dropped_hours WHERE hour = %s AND table_name <> ALL (%s)

-- name: insert_lost_tables
-- database: production
-- One row per table of an hour that lost rows.
INSERT INTO dropped_hours (hour, table_name) VALUES %s ON CONFLICT DO NOTHING

-- name: delete_between
-- database: production
-- Removes the rows of a table within [low, high) of its time column.
-- example table: coverage
-- example time: from_ts
DELETE FROM {table} WHERE {time} >= %s AND {time} < %s

-- name: count_between
-- database: production
-- How many rows of a table lie within [low, high) of its time column. One row.
-- example table: trades
-- example time: exchange_ts
SELECT count(*) FROM {table} WHERE {time} >= %s AND {time} < %s

-- name: insert_statistics
-- database: production
-- Inserts the statistics of an hour. Rows: hour and {columns}.
-- example columns: gatherer, table_name, seen
INSERT INTO merge_statistics (hour, {columns}) VALUES %s

-- name: read_statistics
-- database: production
-- The statistics of an hour in {columns}, by table and gatherer.
-- example columns: gatherer, table_name, seen
SELECT {columns} FROM merge_statistics WHERE hour = %s ORDER BY table_name, gatherer

-- name: read_derived_checkpoints
-- database: production
-- The checkpoints derived at a moment in {columns}, in any order.
-- example columns: ticker, stream_id, seq
SELECT {columns} FROM book_checkpoints WHERE checkpoint_ts = %s AND gatherer = ''

-- name: drop_old_parts
-- database: production
-- Removes parts of divisions that were never finished.
DELETE FROM hour_parts WHERE begun_at < clock_timestamp() - INTERVAL '14 days'

-- name: begin_part
-- database: production
-- Begins a part of a division, or begins it anew; the number and the beginning are those of the division's first part.
-- Parameters: hour, parts, part.
INSERT INTO hour_parts (hour, parts, part, close_no, begun_at)
SELECT p.hour, p.parts, p.part, coalesce(d.close_no, next_merge_no()), coalesce(d.begun_at, clock_timestamp())
FROM (VALUES (%(hour)s::timestamptz, %(parts)s::integer, %(part)s::integer)) AS p (hour, parts, part)
LEFT JOIN LATERAL (SELECT o.close_no, o.begun_at FROM hour_parts o
WHERE o.hour = p.hour AND o.parts = p.parts LIMIT 1) d ON true
ON CONFLICT (hour, parts, part) DO UPDATE SET done_at = NULL, content = NULL
RETURNING close_no, begun_at

-- name: finish_part
-- database: production
-- Keeps what was found of a part; no row where the hour was closed meanwhile.
UPDATE hour_parts SET content = %(content)s, done_at = clock_timestamp()
WHERE hour = %(hour)s AND parts = %(parts)s AND part = %(part)s AND close_no = %(close_no)s

-- name: find_done_parts
-- database: production
-- Parts of a division that are done. Parameters: hour, parts.
SELECT part FROM hour_parts WHERE hour = %s AND parts = %s AND content IS NOT NULL ORDER BY part

-- name: read_parts
-- database: production
-- What was found of all parts of a division: part, content. Parameters: hour, parts.
SELECT part, content FROM hour_parts WHERE hour = %s AND parts = %s AND content IS NOT NULL ORDER BY part

-- name: reject_parts
-- database: production
-- Parts that are to be done again. Parameters: hour, parts, which.
UPDATE hour_parts SET content = NULL, done_at = NULL WHERE hour = %s AND parts = %s AND part = ANY (%s)

-- name: delete_parts
-- database: production
-- Removes all parts of an hour that is closed.
DELETE FROM hour_parts WHERE hour = %s

-- name: count_messages_by_minute
-- database: timeseries
-- Messages of [low, high) by minute of the exchange, as commits brought them (a commit counts to its last minute): minute,
-- messages, the earliest and the latest time of them. Books read over REST do not count.
-- example low: TIMESTAMPTZ '2026-11-20'
-- example high: TIMESTAMPTZ '2026-11-20 01:00'
SELECT date_trunc('minute', time_max), sum(rows)::bigint, min(time_min), max(time_max) FROM batches
WHERE tstzrange(least(time_min, time_max), greatest(time_min, time_max), '[]') && tstzrange(%(low)s, %(high)s)
AND time_max >= %(low)s AND time_max < %(high)s
AND table_name IN ('orderbook_deltas', 'trades', 'tickers', 'market_lifecycle')
GROUP BY 1 ORDER BY 1

-- name: measure_lag_by_minute
-- database: timeseries
-- From the exchange's time of a trade to the gatherer's socket read, in ms, by minute of [low, high): minute, p50, p99.
-- Trades are few, and their lag is that of the connection.
-- example low: TIMESTAMPTZ '2026-11-20'
-- example high: TIMESTAMPTZ '2026-11-20 01:00'
SELECT minute, p[1], p[2] FROM (
  SELECT date_trunc('minute', exchange_ts) AS minute,
         percentile_cont(ARRAY[0.5, 0.99]::float8[])
         WITHIN GROUP (ORDER BY extract(epoch FROM received_at - exchange_ts)::float8 * 1000) AS p
  FROM trades WHERE exchange_ts >= %(low)s AND exchange_ts < %(high)s AND source = 'ws' GROUP BY 1
) AS measured ORDER BY minute

-- name: sum_polls
-- database: timeseries
-- One row: what polls of books over REST brought in [low, high): answers, requests, polls, the first begin, the last end.
-- example low: TIMESTAMPTZ '2026-11-20'
-- example high: TIMESTAMPTZ '2026-11-20 01:00'
SELECT coalesce(sum(markets_answered), 0)::bigint, coalesce(sum(requests), 0)::bigint, count(*),
       min(started_at), max(finished_at)
FROM snapshot_polls WHERE minute >= %(low)s AND minute < %(high)s

-- name: read_least_covered_markets
-- database: production
-- The markets with the least covered share of their open time in [low, high), and those hours of them that were closed:
-- ticker, hour, covered share; by share of the whole time, then ticker and hour.
-- example low: TIMESTAMPTZ '2026-11-20'
-- example high: TIMESTAMPTZ '2026-11-21'
-- example most: 30
WITH market_hours AS (
  SELECT p.ticker, p.hour, p.covered_us,
         greatest(p.covered_us, extract(epoch FROM
           least(coalesce(m.close_time, 'infinity'), p.hour + INTERVAL '1 hour') - greatest(
             coalesce(m.open_time, '-infinity'), p.hour,
             -- As hour_coverage judges: a market that was first seen within the hour is wanted from then on.
             CASE WHEN m.first_seen_at > p.hour AND m.first_seen_at < p.hour + INTERVAL '1 hour'
                  THEN least((SELECT min(c.from_ts) FROM coverage c
                              WHERE c.ticker = p.ticker AND c.from_ts >= %(low)s AND c.from_ts < %(high)s
                                AND c.from_ts >= p.hour AND c.from_ts < p.hour + INTERVAL '1 hour'),
                             m.first_seen_at + INTERVAL '1 minute') END)
         ) * 1000000) AS open_us
  FROM book_proofs p LEFT JOIN markets m USING (ticker) WHERE p.hour >= %(low)s AND p.hour < %(high)s
),
least_covered AS (
  SELECT ticker, sum(covered_us)::float8 / nullif(sum(open_us), 0)::float8 AS share FROM market_hours
  GROUP BY ticker ORDER BY share NULLS LAST, ticker LIMIT %(most)s
)
SELECT h.ticker, h.hour, h.covered_us::float8 / h.open_us::float8
FROM market_hours h JOIN least_covered l USING (ticker) WHERE h.open_us > 0
ORDER BY l.share, h.ticker, h.hour

-- name: read_agreement_by_hour
-- database: production
-- By hour of [low, high) and gatherer: the share of its comparable deltas that another one has too.
-- example low: TIMESTAMPTZ '2026-11-20'
-- example high: TIMESTAMPTZ '2026-11-21'
SELECT gatherer, hour, agreement FROM merge_statistics
WHERE hour >= %(low)s AND hour < %(high)s AND table_name = 'orderbook_deltas' AND agreement IS NOT NULL
ORDER BY gatherer, hour
