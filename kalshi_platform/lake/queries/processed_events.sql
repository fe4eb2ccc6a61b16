-- database: production
-- example low: TIMESTAMPTZ '2026-11-20 00:00+00'
-- example high: TIMESTAMPTZ '2026-11-21 00:00+00'
--
-- {low} and {high} are literals of our own making: with bound parameters the driver fetches the whole result at once
-- instead of streaming it.
-- Texts sort by bytes, so that every server gives one order.

-- name: processed_events
-- One row per event that has a market in processed/markets of the day, or that was described anew in it, as it was known
-- at the day's end.
SELECT h.ticker, {high} - INTERVAL '1 microsecond' AS as_of, p.series_ticker, p.title, nullif(p.sub_title, '') AS sub_title,
       coalesce(p.category, s.category) AS category, p.mutually_exclusive = 'true' AS mutually_exclusive,
       nullif(p.collateral_return_type, '') AS collateral_return_type, time_or_null(p.strike_date) AS strike_date,
       nullif(p.strike_period, '') AS strike_period, p.fee_type_override,
       number_or_null(p.fee_multiplier_override)::float8 AS fee_multiplier_override,
       p.settlement_sources::text AS settlement_sources, p.product_metadata::text AS product_metadata,
       time_or_null(p.last_updated_ts) AS last_updated_ts,
       coalesce(number_or_null(p.exchange_index), 0)::int AS exchange_index, h.valid_from AS known_from
FROM events_of_day({low}, {high}) h
CROSS JOIN LATERAL jsonb_to_record(h.payload) AS p (
  series_ticker text, title text, sub_title text, category text, mutually_exclusive text, collateral_return_type text,
  strike_date text, strike_period text, fee_type_override text, fee_multiplier_override text, settlement_sources jsonb,
  product_metadata jsonb, last_updated_ts text, exchange_index text
)
LEFT JOIN series s ON s.ticker = p.series_ticker
ORDER BY h.ticker COLLATE "C"

-- name: processed_events_expected
-- How many rows processed_events must give.
SELECT count(*) AS rows FROM events_of_day({low}, {high})
