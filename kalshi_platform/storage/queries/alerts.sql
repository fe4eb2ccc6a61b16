-- database: production
--
-- Alarms on their way to people, one row for each kind and subject.

-- name: record_alert
-- Records that an alarm was raised: it is to be sent, unless it was within the hour; then it is only counted. Parameters:
-- kind, subject, detail.
INSERT INTO alerts AS t (kind, subject, detail) VALUES (%(kind)s, %(subject)s, %(detail)s)
ON CONFLICT (kind, subject) DO UPDATE SET detail = excluded.detail, times = t.times + 1,
  raised_at = excluded.raised_at,
  is_waiting = t.is_waiting OR t.sent_at IS NULL
    OR t.sent_at NOT BETWEEN clock_timestamp() - INTERVAL '1 hour' AND clock_timestamp() + INTERVAL '1 hour'

-- name: forget_alerts
-- Forgets alarms that were raised last long ago.
DELETE FROM alerts WHERE raised_at < clock_timestamp() - INTERVAL '90 days'

-- name: claim_alerts
-- Claims alarms that are to be sent, the oldest first, for two minutes: kind, subject, detail, raised_at, times.
-- Parameters: limit.
WITH chosen AS (
  SELECT kind, subject FROM alerts
  WHERE is_waiting AND raised_at > clock_timestamp() - INTERVAL '1 day'
    AND (claimed_until IS NULL OR claimed_until < clock_timestamp()
      OR claimed_until > clock_timestamp() + INTERVAL '1 hour')
  ORDER BY raised_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE alerts AS t SET claimed_until = clock_timestamp() + INTERVAL '2 minutes', attempts = t.attempts + 1
FROM chosen WHERE t.kind = chosen.kind AND t.subject = chosen.subject
RETURNING t.kind, t.subject, t.detail, t.raised_at, t.times

-- name: mark_alert_sent
-- Records that an alarm was delivered. Raises of it that came meanwhile count from here. Parameters: kind, subject,
-- times.
UPDATE alerts SET is_waiting = false, sent_at = clock_timestamp(), times = greatest(times - %(times)s, 0),
  claimed_until = NULL, attempts = 0, last_error = NULL
WHERE kind = %(kind)s AND subject = %(subject)s

-- name: release_alert
-- Gives a claimed alarm back, with why it could not be delivered. Parameters: kind, subject, error.
UPDATE alerts SET claimed_until = NULL, last_error = %(error)s WHERE kind = %(kind)s AND subject = %(subject)s

-- name: count_waiting_alerts
-- How many alarms wait to be sent. One row.
SELECT count(*) FROM alerts WHERE is_waiting AND raised_at > clock_timestamp() - INTERVAL '1 day'
