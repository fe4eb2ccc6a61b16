#!/bin/sh
# The migrate task on AWS: makes what a new RDS server lacks (each gatherer's second database, and the logins of services
# and people), then runs `kalshi-platform migrate`. Safe to repeat; a password that was changed is set again.
set -eu

make_logins() {  # OWNER_URL CAPTURE_PASSWORD PLATFORM_PASSWORD READER_PASSWORD
  POSTGRES_USER=kalshi_owner POSTGRES_DB=$1 KALSHI_CAPTURE_PASSWORD=$2 KALSHI_PLATFORM_PASSWORD=$3 KALSHI_READER_PASSWORD=$4 \
    sh "${LOGINS:-/opt/dagster/logins.sh}"
}

for name in $(echo "$KALSHI_GATHERERS" | tr ',a-z' ' A-Z'); do
  eval "url=\$KALSHI_${name}_TIMESERIES_OWNER_DATABASE_URL"
  psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname="$url" <<'SQL'
SELECT 'CREATE DATABASE catalog' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'catalog') \gexec
SQL
  eval "make_logins \"\$url\" \"\$KALSHI_${name}_CAPTURE_PASSWORD\" \"\$KALSHI_${name}_PLATFORM_PASSWORD\" ''"
done
make_logins "$KALSHI_PRODUCTION_OWNER_DATABASE_URL" '' "$KALSHI_PRODUCTION_PLATFORM_PASSWORD" "$KALSHI_PRODUCTION_READER_PASSWORD"

exec kalshi-platform migrate
