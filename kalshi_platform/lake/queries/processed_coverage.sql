-- database: production
-- example low: TIMESTAMPTZ '2026-11-20 00:00+00'
-- example high: TIMESTAMPTZ '2026-11-21 00:00+00'
--
-- {low} and {high} are literals of our own making: with bound parameters the driver fetches the whole result at once
-- instead of streaming it.
-- Texts sort by bytes, so that every server gives one order.

-- name: processed_coverage
-- Every moment of the day, market by market: proven, claimed, or a hole with its reason.
SELECT ticker, from_ts, to_ts, state, reason
FROM market_coverage({low}, {high})
ORDER BY ticker COLLATE "C", from_ts

-- name: processed_coverage_expected
-- How many rows processed_coverage must give.
SELECT count(*) AS rows FROM market_coverage({low}, {high})
