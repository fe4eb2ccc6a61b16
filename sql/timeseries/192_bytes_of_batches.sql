-- How large the rows of a batch are, so that who reads them can bound its memory: a book may have thousands of levels.

ALTER TABLE batches ADD COLUMN IF NOT EXISTS bytes bigint;
COMMENT ON COLUMN batches.bytes IS 'About the size of its rows (as Arrow) in bytes; NULL on lines that are older than this column.';
