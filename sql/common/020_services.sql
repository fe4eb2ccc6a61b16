-- Endless services: whether they should run, and when they were last heard of.

CREATE TABLE IF NOT EXISTS desired_services (
  service text PRIMARY KEY,
  running boolean NOT NULL,
  reason text NOT NULL DEFAULT '',
  changed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE desired_services IS 'The off switch: a service without a row, or with running = true, is kept alive. Names: gatherer/NAME, deduplicator.';

CREATE TABLE IF NOT EXISTS heartbeats (
  service text PRIMARY KEY,
  at timestamptz NOT NULL,
  started_at timestamptz NOT NULL,
  host text NOT NULL,
  pid integer NOT NULL,
  run_id text,
  state text NOT NULL,
  details jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE heartbeats IS 'One row per service, written every 5 s by the service itself. run_id: the Dagster run that hosts it, if any.';
COMMENT ON COLUMN heartbeats.details IS 'Figures of the service: rates, queue, lag in ms, last message, gaps.';
