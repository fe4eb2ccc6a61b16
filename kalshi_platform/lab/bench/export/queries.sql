-- database: production
--
-- What `bench export` does to its own production database.

-- name: close_hour
-- Closes an hour without merging anything, with the figures that a close records. Parameter: hour.
INSERT INTO hour_closes (hour, markets, open_us, covered_us) VALUES (%(hour)s, 0, 0, 0)

-- name: analyze
-- Gathers the planner's statistics, as autovacuum has long done on an hour that is closed.
ANALYZE orderbook_deltas

-- name: checkpoint
-- Brings what was filled in to the disk before anything is measured.
CHECKPOINT
