-- Fields of the exchange's objects as PostgreSQL values. What is no number or no time is NULL: a whole day's export must
-- not fail because one object has a strange field.

CREATE OR REPLACE FUNCTION number_or_null(p_text text) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN p_text ~ '^[+-]?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?$' THEN p_text::numeric END
$$;
COMMENT ON FUNCTION number_or_null(text) IS 'A decimal text as a number; NULL where it is none.';

-- Kalshi writes the year 0001 for a time that it does not know.
CREATE OR REPLACE FUNCTION time_or_null(p_text text) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN p_text ~ '^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$'
                OR p_text ~ '^[12][0-9]{3}-((0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$'
                OR p_text ~ '^[12][0-9](0[48]|[2468][048]|[13579][26])-02-29T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$'
              THEN p_text::timestamptz END
$$;
COMMENT ON FUNCTION time_or_null(text) IS 'An RFC 3339 text of the years 1000 to 2999 as a time; NULL where it is none.';

-- What of the catalog belongs to a day: everything that was not over before the day before it, as this platform knew it
-- at its end. What was over on the day before stands in the day again, because production may have learned it only after
-- that day was exported.
CREATE OR REPLACE FUNCTION markets_of_day(p_low timestamptz, p_high timestamptz)
RETURNS SETOF markets_history LANGUAGE sql STABLE AS $$
  SELECT h.* FROM markets_history h
  WHERE h.valid_from < p_high AND (h.valid_to IS NULL OR h.valid_to >= p_high)
    AND (h.valid_from >= p_low - INTERVAL '1 day' OR coalesce(h.status, h.payload ->> 'status') NOT IN ('finalized', 'vanished'))
$$;
COMMENT ON FUNCTION markets_of_day(timestamptz, timestamptz) IS 'The versions of markets that were known at the end of [low, high), without markets that were settled or gone more than a day before it began.';

CREATE OR REPLACE FUNCTION events_of_day(p_low timestamptz, p_high timestamptz)
RETURNS SETOF events_history LANGUAGE sql STABLE AS $$
  SELECT h.* FROM events_history h
  WHERE h.valid_from < p_high AND (h.valid_to IS NULL OR h.valid_to >= p_high)
    AND (h.valid_from >= p_low
         OR h.ticker IN (SELECT m.payload ->> 'event_ticker' FROM markets_of_day(p_low, p_high) m))
$$;
COMMENT ON FUNCTION events_of_day(timestamptz, timestamptz) IS 'The versions of events that were known at the end of [low, high): those with a market of that time, and those described anew in it.';

CREATE OR REPLACE FUNCTION series_of_day(p_low timestamptz, p_high timestamptz)
RETURNS SETOF series_history LANGUAGE sql STABLE AS $$
  SELECT h.* FROM series_history h WHERE p_low < p_high AND h.valid_from < p_high AND (h.valid_to IS NULL OR h.valid_to >= p_high)
$$;
COMMENT ON FUNCTION series_of_day(timestamptz, timestamptz) IS 'The versions of series that were known at the end of [low, high).';
