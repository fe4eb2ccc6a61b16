-- database: production
--
-- What `doctor` reads from a server, whichever database it is connected to.

-- name: server
-- One row: the server's version, whether it only reads (a standby), its limit of connections, how many are open, the
-- limit of locks per transaction, TimescaleDB's version (null without it), and the size of this database in bytes.
SELECT current_setting('server_version'), pg_is_in_recovery(), current_setting('max_connections')::int,
       (SELECT count(*) FROM pg_stat_activity)::int, current_setting('max_locks_per_transaction')::int,
       (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'), pg_database_size(current_database())
