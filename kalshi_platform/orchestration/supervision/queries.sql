-- database: production
-- example service: 'deduplicator'
--
-- Statements of the supervisor of the long-running services, in the database that holds a service's rows: production
-- for the deduplicator, its timeseries database for a gatherer.

-- name: probe_service
-- One row: the switch (null without a row: on), whether a session holds the advisory lock of the service, and its
-- heartbeat (nulls without one): time, age in seconds by this server's clock, run, state. Parameter: service, which is
-- also the key of the lock. A lock with a bigint key stands in pg_locks in two halves, with objsubid 1.
SELECT switch.enabled,
       EXISTS (SELECT FROM pg_locks
               WHERE locktype = 'advisory' AND granted AND objsubid = 1
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND (classid::bigint << 32) | objid::bigint = hashtextextended(%(service)s, 0)),
       beat.at, extract(epoch FROM clock_timestamp() - beat.at)::float8, beat.run_id, beat.state
FROM (SELECT %(service)s::text AS service) AS wanted
LEFT JOIN service_switches AS switch USING (service)
LEFT JOIN heartbeats AS beat USING (service)
