-- database: production
-- example low: TIMESTAMPTZ '2026-11-20 00:00+00'
-- example high: TIMESTAMPTZ '2026-11-21 00:00+00'
--
-- {low} and {high} are literals of our own making: with bound parameters the driver fetches the whole result at once
-- instead of streaming it.
-- Texts sort by bytes, so that every server gives one order.

-- name: processed_markets
-- One row per market that was not over before the day before, as it was known at the day's end; settlement in 1/1,000,000
-- dollar, which the export turns into decimals.
SELECT h.ticker, {high} - INTERVAL '1 microsecond' AS as_of, p.event_ticker,
       coalesce(m.series_ticker, e.series_ticker) AS series_ticker, p.market_type,
       coalesce(h.status, p.status) AS status, p.title, p.subtitle, p.yes_sub_title, p.no_sub_title,
       time_or_null(p.open_time) AS open_time, time_or_null(p.close_time) AS close_time,
       time_or_null(p.expected_expiration_time) AS expected_expiration_time,
       time_or_null(p.latest_expiration_time) AS latest_expiration_time,
       time_or_null(p.created_time) AS created_time, time_or_null(p.updated_time) AS updated_time,
       nullif(p.result, '') AS result,
       round(1000000 * coalesce(number_or_null(p.settlement_value_dollars), number_or_null(p.settlement_value) / 100))::bigint
         AS settlement_value_e6,
       time_or_null(p.settlement_ts) AS settlement_ts, nullif(p.expiration_value, '') AS expiration_value,
       p.strike_type, number_or_null(p.floor_strike)::float8 AS floor_strike,
       number_or_null(p.cap_strike)::float8 AS cap_strike, p.functional_strike, p.custom_strike::text AS custom_strike,
       nullif(p.rules_primary, '') AS rules_primary, nullif(p.rules_secondary, '') AS rules_secondary,
       nullif(p.early_close_condition, '') AS early_close_condition, p.can_close_early = 'true' AS can_close_early,
       number_or_null(p.settlement_timer_seconds)::bigint AS settlement_timer_s,
       p.price_level_structure, p.price_ranges::text AS price_ranges,
       time_or_null(p.fee_waiver_expiration_time) AS fee_waiver_expiration_time,
       p.is_provisional = 'true' AS is_provisional, p.mve_collection_ticker,
       p.mve_selected_legs::text AS mve_selected_legs,
       coalesce(number_or_null(p.exchange_index), 0)::int AS exchange_index, h.valid_from AS known_from
FROM markets_of_day({low}, {high}) h
CROSS JOIN LATERAL jsonb_to_record(h.payload) AS p (
  event_ticker text, market_type text, status text, title text, subtitle text, yes_sub_title text, no_sub_title text,
  open_time text, close_time text, expected_expiration_time text, latest_expiration_time text, created_time text,
  updated_time text, result text, settlement_value_dollars text, settlement_value text, settlement_ts text,
  expiration_value text, strike_type text, floor_strike text, cap_strike text, functional_strike text,
  custom_strike jsonb, rules_primary text, rules_secondary text, early_close_condition text, can_close_early text,
  settlement_timer_seconds text, price_level_structure text, price_ranges jsonb, fee_waiver_expiration_time text,
  is_provisional text, mve_collection_ticker text, mve_selected_legs jsonb, exchange_index text
)
LEFT JOIN markets m ON m.ticker = h.ticker
LEFT JOIN events e ON e.ticker = p.event_ticker
ORDER BY h.ticker COLLATE "C"

-- name: processed_markets_expected
-- How many rows processed_markets must give.
SELECT count(*) AS rows FROM markets_of_day({low}, {high})
