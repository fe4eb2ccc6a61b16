-- What the exchange was seen to send, path by path: a new field is noticed once, also across restarts.

CREATE TABLE IF NOT EXISTS wire_shapes (
  source text NOT NULL,
  type text NOT NULL,
  path text NOT NULL,
  json_type text NOT NULL,
  first_seen timestamptz NOT NULL,
  last_seen timestamptz NOT NULL,
  is_shipped boolean NOT NULL,
  sample bytea NOT NULL,
  PRIMARY KEY (source, type, path, json_type)
);
COMMENT ON TABLE wire_shapes IS 'Fields of the exchange''s messages and REST objects, one row per path and JSON type, as sampled frames and pages showed them. A row that is not shipped raised the alarm new_field once, or missing_field where json_type is absent.';
COMMENT ON COLUMN wire_shapes.source IS 'frame for a WebSocket message, object for an object of a REST answer.';
COMMENT ON COLUMN wire_shapes.type IS 'The frame''s type, of lifecycle messages with the event type; or the kind of the object.';
COMMENT ON COLUMN wire_shapes.path IS 'Where the field stands: names joined by dots, [] for the elements of a list; empty for a type that is new as a whole.';
COMMENT ON COLUMN wire_shapes.json_type IS 'object, list, str, int, float, bool or null; absent where sampled messages no longer have a field that each had.';
COMMENT ON COLUMN wire_shapes.first_seen IS 'When this gatherer saw it first.';
COMMENT ON COLUMN wire_shapes.last_seen IS 'When it was sampled last; written every ten minutes.';
COMMENT ON COLUMN wire_shapes.is_shipped IS 'Whether this version of the platform knows the field.';
COMMENT ON COLUMN wire_shapes.sample IS 'The beginning of the first message or object that had it (or lacked it), as it came.';
