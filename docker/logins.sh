#!/bin/sh
# Makes the logins of the services in a database server: `capture`, `platform` and `reader`, members of the roles of
# sql/roles, each where its password is given. The images run it once, when they make a new volume; it may run again:
#
#   docker compose -f docker/compose.yaml exec production sh /docker-entrypoint-initdb.d/900-logins.sh
set -eu

# Passwords: from the environment, or from Compose's secrets.
secret() { if [ -n "$1" ] || [ ! -r "/run/secrets/$2" ]; then printf %s "$1"; else cat "/run/secrets/$2"; fi; }
KALSHI_CAPTURE_PASSWORD=$(secret "${KALSHI_CAPTURE_PASSWORD:-}" capture)
KALSHI_PLATFORM_PASSWORD=$(secret "${KALSHI_PLATFORM_PASSWORD:-}" platform)
KALSHI_READER_PASSWORD=$(secret "${KALSHI_READER_PASSWORD:-}" reader)
export KALSHI_CAPTURE_PASSWORD KALSHI_PLATFORM_PASSWORD KALSHI_READER_PASSWORD

psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<'SQL'
-- Read from the environment, so that no command line shows them.
\getenv capture KALSHI_CAPTURE_PASSWORD
\getenv platform KALSHI_PLATFORM_PASSWORD
\getenv reader KALSHI_READER_PASSWORD
\if :{?capture} \else \set capture '' \endif
\if :{?platform} \else \set platform '' \endif
\if :{?reader} \else \set reader '' \endif

SELECT format('CREATE ROLE %I NOLOGIN', role)
FROM unnest(ARRAY['kalshi_capture', 'kalshi_merge', 'kalshi_retention', 'kalshi_reader']) AS role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec

SELECT format('%s ROLE %I LOGIN PASSWORD %L',
              CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = login) THEN 'ALTER' ELSE 'CREATE' END, login, secret),
       format('GRANT %s TO %I', roles, login)
FROM (VALUES ('capture', :'capture', 'kalshi_capture'), ('platform', :'platform', 'kalshi_merge, kalshi_retention'),
             ('reader', :'reader', 'kalshi_reader')) AS of_service (login, secret, roles)
WHERE secret <> '' \gexec
SQL
