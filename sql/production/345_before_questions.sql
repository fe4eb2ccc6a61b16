-- coverage_holes got a third column in a later file. A function whose columns change cannot be replaced, only dropped; so
-- this one goes first, and the files that follow make it again, also where they were applied before.
DROP FUNCTION IF EXISTS coverage_holes(text, timestamptz, timestamptz);
