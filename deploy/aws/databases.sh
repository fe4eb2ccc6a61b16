#!/bin/sh
# The migrate task on AWS: makes what a new RDS server lacks (each gatherer's second database, and the logins of services
# and people), then runs `kalshi-platform migrate`. Safe to repeat; a password that was changed is set again.
set -eu

connect() {  # OWNER_URL: sets POSTGRES_DB, the URL without its password, and PGPASSWORD, so that no command line shows it
  POSTGRES_DB=$(printf %s "$1" | sed 's,//\([^/@:]*\):[^/@]*@,//\1@,')
  PGPASSWORD=$(URL=$1 python3 -c 'import os, urllib.parse as u; print(u.unquote(u.urlsplit(os.environ["URL"]).password or ""))')
  export POSTGRES_DB PGPASSWORD
}
make_logins() {  # CAPTURE_PASSWORD PLATFORM_PASSWORD READER_PASSWORD
  POSTGRES_USER=kalshi_owner KALSHI_CAPTURE_PASSWORD=$1 KALSHI_PLATFORM_PASSWORD=$2 KALSHI_READER_PASSWORD=$3 \
    sh "${LOGINS:-/opt/dagster/logins.sh}"
}

for name in $(echo "$KALSHI_GATHERERS" | tr ',a-z' ' A-Z'); do
  eval "connect \"\$KALSHI_${name}_TIMESERIES_OWNER_DATABASE_URL\""
  psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname="$POSTGRES_DB" <<'SQL'
SELECT 'CREATE DATABASE catalog' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'catalog') \gexec
SQL
  eval "make_logins \"\$KALSHI_${name}_CAPTURE_PASSWORD\" \"\$KALSHI_${name}_PLATFORM_PASSWORD\" ''"
done
connect "$KALSHI_PRODUCTION_OWNER_DATABASE_URL"
make_logins '' "$KALSHI_PRODUCTION_PLATFORM_PASSWORD" "$KALSHI_PRODUCTION_READER_PASSWORD"

unset POSTGRES_DB PGPASSWORD
exec kalshi-platform migrate
