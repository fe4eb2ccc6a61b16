-- database: production
--
-- What `bench disk` does to databases of its own.

-- name: insert_segments
-- database: timeseries
-- One row per commit and stream.
INSERT INTO stream_segments (stream_id, seq_from, seq_to, exchange_ts_min, exchange_ts_max, batch_no) VALUES %s

-- name: close_hour
-- Closes an hour without merging anything. Parameter: hour.
INSERT INTO hour_closes (hour) VALUES (%(hour)s)

-- name: read_mode
-- In which mode the database was made.
SELECT mode FROM schema_meta

-- name: size_of_table
-- The bytes of all partitions of a table, with indexes. Parameter: table.
-- example 1: 'trades'
SELECT sum(bytes) FROM table_partitions(%s)

-- name: size_of_ledger
-- database: timeseries
-- The bytes of what a gatherer records about its commits, with indexes.
SELECT pg_total_relation_size('batches') + pg_total_relation_size('stream_segments')
