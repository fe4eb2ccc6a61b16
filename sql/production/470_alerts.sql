-- Alarms on their way to people: each kind and subject is sent once an hour, whichever process raised or sends it.

CREATE TABLE IF NOT EXISTS alerts (
  kind text NOT NULL,
  subject text NOT NULL,
  detail text NOT NULL,
  times bigint NOT NULL DEFAULT 1,
  raised_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  is_waiting boolean NOT NULL DEFAULT true,
  claimed_until timestamptz,
  sent_at timestamptz,
  attempts integer NOT NULL DEFAULT 0,
  last_error text,
  PRIMARY KEY (kind, subject)
);
CREATE INDEX IF NOT EXISTS alerts_waiting ON alerts (raised_at) WHERE is_waiting;
COMMENT ON TABLE alerts IS 'One row per kind and subject of an alarm that people are told of: what waits to be sent to KALSHI_ALERT_WEBHOOK_URL, and when it was sent last. Gatherers keep theirs in a file of their folder.';
COMMENT ON COLUMN alerts.kind IS 'What kind of alarm it is, see docs/operations.md.';
COMMENT ON COLUMN alerts.subject IS 'What it is about.';
COMMENT ON COLUMN alerts.detail IS 'What was found last.';
COMMENT ON COLUMN alerts.times IS 'How often it was raised since it was sent last.';
COMMENT ON COLUMN alerts.raised_at IS 'When it was raised last, by production''s clock.';
COMMENT ON COLUMN alerts.is_waiting IS 'Whether it is to be sent; after a day of vain attempts it is not sent any more.';
COMMENT ON COLUMN alerts.claimed_until IS 'Until when the process that sends it keeps it from others.';
COMMENT ON COLUMN alerts.sent_at IS 'When it was sent last; it is not sent again within an hour.';
COMMENT ON COLUMN alerts.attempts IS 'How often it was tried since it was sent last.';
COMMENT ON COLUMN alerts.last_error IS 'Why the last attempt failed.';
