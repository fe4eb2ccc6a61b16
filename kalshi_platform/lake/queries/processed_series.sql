-- database: production
-- example low: TIMESTAMPTZ '2026-11-20 00:00+00'
-- example high: TIMESTAMPTZ '2026-11-21 00:00+00'
--
-- {low} and {high} are literals of our own making: with bound parameters the driver fetches the whole result at once
-- instead of streaming it.
-- Texts sort by bytes, so that every server gives one order.

-- name: processed_series
-- One row per series as it was known at the day's end.
SELECT h.ticker, {high} - INTERVAL '1 microsecond' AS as_of, p.title, p.category, p.categories::text AS categories,
       p.tags::text AS tags, p.frequency, p.fee_type, number_or_null(p.fee_multiplier)::float8 AS fee_multiplier,
       p.settlement_sources::text AS settlement_sources, nullif(p.contract_url, '') AS contract_url,
       nullif(p.contract_terms_url, '') AS contract_terms_url,
       p.additional_prohibitions::text AS additional_prohibitions, p.product_metadata::text AS product_metadata,
       time_or_null(p.last_updated_ts) AS last_updated_ts,
       coalesce(number_or_null(p.exchange_index), 0)::int AS exchange_index, h.valid_from AS known_from
FROM series_of_day({low}, {high}) h
CROSS JOIN LATERAL jsonb_to_record(h.payload) AS p (
  title text, category text, categories jsonb, tags jsonb, frequency text, fee_type text, fee_multiplier text,
  settlement_sources jsonb, contract_url text, contract_terms_url text, additional_prohibitions jsonb,
  product_metadata jsonb, last_updated_ts text, exchange_index text
)
ORDER BY h.ticker COLLATE "C"

-- name: processed_series_expected
-- How many rows processed_series must give.
SELECT count(*) AS rows FROM series_of_day({low}, {high})
