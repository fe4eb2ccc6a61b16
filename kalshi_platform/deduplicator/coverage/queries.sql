-- Statements of coverage: what gatherers' ledgers and rows say, and what production holds.

-- name: read_deltas_by_seq
-- database: timeseries
-- Deltas of a stream with $2 < seq <= $3 and exchange times from $4 to $5.
SELECT seq, exchange_ts, ticker, side, price_e4, delta_e2 FROM orderbook_deltas
WHERE stream_id = $1 AND seq > $2 AND seq <= $3 AND exchange_ts BETWEEN $4 AND $5

-- name: read_streams
-- database: timeseries
-- All streams of the ledger, and whether they are still open.
SELECT stream_id, ended_at IS NULL AS open FROM streams

-- name: find_snapshot_times
-- database: timeseries
-- Between which times the commits of snapshots lie, by the ledger. Parameters: stream, lowest and highest seq.
SELECT min(b.time_min) AS low, max(b.time_max) AS high FROM stream_segments g JOIN batches b USING (batch_no)
WHERE b.table_name = 'orderbook_snapshots' AND g.stream_id = $1 AND g.seq_from <= $3 AND g.seq_to >= $2
AND g.seq_from >= coalesce((SELECT max(f.seq_from) FROM stream_segments f
WHERE f.stream_id = $1 AND f.seq_from <= $2), $2)

-- name: read_stream_life
-- database: timeseries
-- When a stream was opened and ended.
SELECT opened_at, coalesce(ended_at, now()) AS ended_at FROM streams WHERE stream_id = $1

-- name: read_deltas_of_markets
-- database: timeseries
-- Deltas of some markets of a stream, within times and seq (both ends included). Parameters: stream, times, seq, tickers.
SELECT seq, ticker, side, price_e4, delta_e2 FROM orderbook_deltas WHERE stream_id = $1
AND exchange_ts BETWEEN $2 AND $3 AND seq BETWEEN $4 AND $5 AND ticker = ANY ($6)

-- name: find_streams
-- database: timeseries
-- Streams of order books whose deltas reach into [$1, $2), or over it; $3 and $4: the same with the clocks' difference
-- left aside. Each condition looks at one end of an index, however long the stream is.
SELECT s.stream_id FROM streams s
WHERE s.channel = 'orderbook_delta' AND (s.ended_at IS NULL OR s.ended_at >= $3) AND (s.opened_at < $4
OR (SELECT f.exchange_ts_min FROM stream_segments f WHERE f.stream_id = s.stream_id
AND f.exchange_ts_min IS NOT NULL ORDER BY f.seq_from LIMIT 1) < $4)
AND (SELECT max(g.exchange_ts_max) FROM stream_segments g WHERE g.stream_id = s.stream_id) >= $1
AND (SELECT min(g.exchange_ts_min) FROM stream_segments g WHERE g.stream_id = s.stream_id) < $2
ORDER BY s.stream_id

-- name: read_unknown_frames
-- database: timeseries
-- Frames of unknown type of a stream.
SELECT seq, frame_type, ticker FROM unknown_frames WHERE stream_id = $1

-- name: read_deltas_between
-- database: production
-- Deltas of [$1, $2) with their identity and their origin.
SELECT exchange_ts, ticker, side, price_e4, delta_e2, occurrence, gatherer, stream_id, seq, received_at
FROM orderbook_deltas WHERE exchange_ts >= $1 AND exchange_ts < $2

-- name: read_segments
-- database: timeseries
-- The committed segments of a stream, by seq: one row each.
SELECT stream_id, seq_from, seq_to, exchange_ts_min, exchange_ts_max FROM stream_segments
WHERE stream_id = $1 ORDER BY seq_from

-- name: read_book_subscriptions
-- database: timeseries
-- The book subscriptions of a stream: one row each.
SELECT stream_id, ticker, exchange_index, seq_from, seq_to FROM book_subscriptions WHERE stream_id = $1

-- name: read_snapshots
-- database: timeseries
-- Books of a stream by the seq of their snapshots ($2), within times.
SELECT ticker, seq, yes_price_e4, yes_count_e2, no_price_e4, no_count_e2 FROM orderbook_snapshots
WHERE source = 'ws' AND stream_id = $1 AND seq = ANY ($2) AND snapshot_ts BETWEEN $3 AND $4

-- name: read_deltas_with_origin
-- database: timeseries
-- Deltas with exchange times of [$1, $2).
SELECT exchange_ts, ticker, side, price_e4, delta_e2, occurrence, stream_id, seq, received_at
FROM orderbook_deltas WHERE exchange_ts >= $1 AND exchange_ts < $2

-- name: read_deltas_beyond
-- database: timeseries
-- Times of deltas of a commit of a stream (times from $2 to $3, seq from $4 to $5) that lie outside of [$6, $7).
SELECT exchange_ts, ticker, stream_id, seq FROM orderbook_deltas
WHERE stream_id = $1 AND exchange_ts BETWEEN $2 AND $3 AND seq BETWEEN $4 AND $5
AND (exchange_ts < $6 OR exchange_ts >= $7)

-- name: read_checkpoints_before
-- database: production
-- Checkpoints of [$1, $2), the derived ones only of before $3: that of the hour's end is made from what is read here.
SELECT checkpoint_ts, ticker, gatherer, stream_id, seq, yes_price_e4, yes_count_e2, no_price_e4, no_count_e2
FROM book_checkpoints
WHERE checkpoint_ts >= $1 AND checkpoint_ts < $2 AND (gatherer <> '' OR checkpoint_ts < $3)

-- name: read_polled_books
-- database: production
-- Books polled by REST in [$1, $2).
SELECT snapshot_ts, ticker, requested_at, received_at, yes_price_e4, yes_count_e2, no_price_e4, no_count_e2
FROM orderbook_snapshots WHERE source = 'rest' AND snapshot_ts >= $1 AND snapshot_ts < $2

-- name: read_keys_between
-- database: production
-- The keys of a table's rows whose {time} lies in [$1, $2).
-- example columns: exchange_ts, ticker, trade_id
-- example table: trades
-- example time: exchange_ts
SELECT {columns} FROM {table} WHERE {time} >= $1 AND {time} < $2
