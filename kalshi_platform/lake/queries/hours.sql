-- database: production
-- example low: TIMESTAMPTZ '2026-11-20 04:00+00'
-- example high: TIMESTAMPTZ '2026-11-20 05:00+00'
-- example hour: TIMESTAMPTZ '2026-11-20 04:00+00'
-- example since: TIMESTAMPTZ '2026-11-20 04:00+00'
-- example table: 'trades'
--
-- What production says of its hours. What stands for {…} are literals of our own making.

-- name: closes
-- One row per hour of [low, high): active says whether rows came, closed_at when it was closed last (or null), close_no
-- and close_id which close that was, reopened whether rows came after it.
SELECT h.hour, coalesce(s.is_active, false) AS active, s.closed_at, s.close_no, s.close_id::text AS close_id,
       coalesce(s.reopened, false) AS reopened
FROM generate_series({low}, {high} - INTERVAL '1 microsecond', INTERVAL '1 hour') AS h (hour)
LEFT JOIN hour_states({low}, {high}) AS s USING (hour)
ORDER BY h.hour

-- name: recently_closed
-- Hours since a moment that are closed, and older ones that were closed (again) since.
SELECT hour FROM hour_closes WHERE hour >= {since} OR closed_at >= {since} ORDER BY hour

-- name: closed_rows
-- One row per closed hour of [low, high): how many rows of a table its close counted (null: not counted), and whether
-- rows of it are gone.
SELECT hour, rows, is_gone FROM closed_rows({table}, {low}, {high})

-- name: coverage
-- The coverage share of a closed hour as its close has recorded it; as it is told now, which reads all rows of the hour,
-- where the close recorded none. Null where no market was recorded or open.
SELECT CASE WHEN c.open_us IS NULL THEN (SELECT share FROM hour_coverage_share({hour}))
            ELSE c.covered_us::float8 / nullif(c.open_us, 0)::float8 END AS share
FROM (SELECT 1) AS one LEFT JOIN hour_closes c ON c.hour = {hour}
