-- catalog_change_no of 210 again: a transaction remembers its number itself. Asked of the counter for every row, each
-- row passed all dead versions of it, which nobody can remove while some transaction on the server stays open.

CREATE OR REPLACE FUNCTION catalog_change_no() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  number bigint := nullif(current_setting('kalshi.catalog_change_no', true), '')::bigint;
BEGIN
  IF number IS NOT NULL THEN RETURN number; END IF;
  UPDATE catalog_counter SET last_change_no = last_change_no + 1 RETURNING last_change_no INTO number;
  INSERT INTO catalog_changes (change_no) VALUES (number);
  DELETE FROM catalog_changes WHERE change_no = number - 100000;
  -- Forgotten with the transaction, and with a savepoint that takes the counter back.
  PERFORM set_config('kalshi.catalog_change_no', number::text, true);
  RETURN number;
END $$;
