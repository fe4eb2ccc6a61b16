-- The ledger by the terms of docs/glossary.md; see common/080_names.sql.

DROP VIEW IF EXISTS open_members;
SELECT use_names(true);
DROP FUNCTION use_names(boolean);

COMMENT ON TABLE book_subscriptions IS 'One row per interval in which a market''s book is followed in a stream: from its snapshot (seq_from) to seq_to inclusive; open ones last as far as their run.';
COMMENT ON COLUMN snapshot_polls.markets_desired IS 'Markets whose books the poll should bring.';
COMMENT ON COLUMN snapshot_polls.markets_requested IS 'Markets whose books were requested within the budget.';
COMMENT ON COLUMN snapshot_polls.oldest_age_s IS 'After the poll: seconds since the book that was answered longest ago, of all desired markets. NULL when unknown.';

CREATE OR REPLACE VIEW open_book_streams AS
SELECT o.stream_id, t.session_id, last_committed_seq(o.stream_id) AS last_seq
FROM (SELECT DISTINCT stream_id FROM book_subscriptions WHERE seq_to IS NULL) AS o LEFT JOIN streams t USING (stream_id);
COMMENT ON VIEW open_book_streams IS 'One row per stream with open book subscriptions. session_id is NULL for a stream that the ledger does not know.';
