-- Whose clock dates a heartbeat.

COMMENT ON COLUMN heartbeats.at IS 'When the row was written, by the clock of this database server: its age is clock_timestamp() - at here, and by no other clock.';
COMMENT ON COLUMN heartbeats.started_at IS 'By the clock of the service''s host, for people; no age is computed from it.';
