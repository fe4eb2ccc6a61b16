-- How far a stream is committed, without a look at all of its segments.

CREATE OR REPLACE FUNCTION last_committed_seq(of_stream bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT max(seq_to) FROM (
    SELECT seq_to FROM stream_segments WHERE stream_id = of_stream ORDER BY seq_from DESC LIMIT 200) AS tail
$$;
COMMENT ON FUNCTION last_committed_seq IS 'The last number of a stream that is committed; NULL before the first. A batch that was written again in parts leaves segments within its first one, so several are looked at.';

CREATE OR REPLACE VIEW open_members AS
SELECT o.stream_id, t.session_id, last_committed_seq(o.stream_id) AS last_seq
FROM (SELECT DISTINCT stream_id FROM memberships WHERE seq_to IS NULL) AS o LEFT JOIN streams t USING (stream_id);
COMMENT ON VIEW open_members IS 'One row per stream with open memberships. session_id is NULL for a stream that the ledger does not know.';
