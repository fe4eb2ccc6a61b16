-- database: production
-- example service: 'deduplicator'
--
-- Statements of the supervisor of the long-running services, in the database that holds a service's rows: production
-- for the deduplicator, its timeseries database for a gatherer.

-- name: read_switch_and_lock
-- One row: the switch (null without a row: on), and whether a session holds the advisory lock of the service. Parameter:
-- service, which is also the key of the lock. A lock with a bigint key stands in pg_locks in two halves, with objsubid 1.
SELECT (SELECT enabled FROM service_switches WHERE service = %(service)s),
       EXISTS (SELECT FROM pg_locks
               WHERE locktype = 'advisory' AND granted AND objsubid = 1
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND (classid::bigint << 32) | objid::bigint = hashtextextended(%(service)s, 0))
