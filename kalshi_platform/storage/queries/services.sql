-- database: production
--
-- Switches and heartbeats of long-running services, and the clock of the server; the same in gatherers' databases.

-- name: write_heartbeat
-- Writes the row of a service, dated by the server's clock. Parameters: service, started_at, host, pid, run_id, state,
-- details (JSON).
INSERT INTO heartbeats (service, at, started_at, host, pid, run_id, state, details)
VALUES (%(service)s, clock_timestamp(), %(started_at)s, %(host)s, %(pid)s, %(run_id)s, %(state)s, %(details)s::jsonb)
ON CONFLICT (service) DO UPDATE SET at = excluded.at, started_at = excluded.started_at, host = excluded.host,
  pid = excluded.pid, run_id = excluded.run_id, state = excluded.state, details = excluded.details

-- name: heartbeat
-- The row of a service: at, its age in seconds by the server's clock, state, run_id, pid, details (JSON); no row before
-- the first. Parameters: service.
SELECT at, extract(epoch FROM clock_timestamp() - at)::float8, state, run_id, pid, details::text
FROM heartbeats WHERE service = %(service)s

-- name: switch
-- Whether a service is to run, and why; no row for one that was never switched. Parameters: the service.
SELECT enabled, reason FROM service_switches WHERE service = %s

-- name: write_switch
-- Switches a service on or off, and says why. Parameters: service, enabled, reason.
INSERT INTO service_switches (service, enabled, reason, changed_at)
VALUES (%(service)s, %(enabled)s, %(reason)s, clock_timestamp())
ON CONFLICT (service) DO UPDATE SET enabled = excluded.enabled, reason = excluded.reason,
  changed_at = excluded.changed_at

-- name: server_time
-- The server's clock. One row.
SELECT clock_timestamp()

-- name: server_time_us
-- The server's clock in microseconds since 1970. One row.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
