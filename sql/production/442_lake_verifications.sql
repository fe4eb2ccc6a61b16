-- What retention has read back of the lake, so that it need not read everything again on every day.

CREATE TABLE IF NOT EXISTS lake_verifications (
  lake text NOT NULL,
  partition text NOT NULL,
  starts_at timestamptz NOT NULL,
  manifest_sha256 text NOT NULL,
  rows bigint NOT NULL,
  bytes bigint NOT NULL,
  verified_at timestamptz NOT NULL,
  PRIMARY KEY (lake, partition)
);
COMMENT ON TABLE lake_verifications IS 'One row per partition of the lake that retention has read back whole: every file had the bytes, SHA-256 and rows of its manifest. It holds as long as the manifest is the same.';
COMMENT ON COLUMN lake_verifications.lake IS 'The root of the lake.';
COMMENT ON COLUMN lake_verifications.partition IS 'The folder of the partition below the root.';
COMMENT ON COLUMN lake_verifications.starts_at IS 'The start of the partition.';
COMMENT ON COLUMN lake_verifications.manifest_sha256 IS 'SHA-256 of the manifest, byte for byte; another one means that the partition was exported again.';
COMMENT ON COLUMN lake_verifications.rows IS 'Its rows.';
COMMENT ON COLUMN lake_verifications.bytes IS 'The bytes of its data files.';
COMMENT ON COLUMN lake_verifications.verified_at IS 'When it was read back.';
