-- database: timeseries
--
-- Statements of the shapes that a gatherer has seen.

-- name: seen_shapes
-- Every row: source, type, path, JSON type, first and last time in microseconds since 1970, sample.
SELECT source, type, path, json_type, (extract(epoch FROM first_seen) * 1000000)::bigint,
       (extract(epoch FROM last_seen) * 1000000)::bigint, sample
FROM wire_shapes

-- name: write_shapes
-- Inserts rows; of one that is there only the last time moves on. Rows: source, type, path, json_type, first_seen,
-- last_seen, is_shipped, sample.
-- example values: ('frame', 'trade', 'msg', 'object', now(), now(), true, ''::bytea)
INSERT INTO wire_shapes (source, type, path, json_type, first_seen, last_seen, is_shipped, sample) VALUES %s
ON CONFLICT (source, type, path, json_type) DO UPDATE SET last_seen = greatest(wire_shapes.last_seen, excluded.last_seen)
