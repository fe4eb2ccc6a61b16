#!/bin/sh
# Makes the passwords of compose.yaml, one a file in docker/secrets, where there are none yet; and the files in which
# libpq finds them. A file that exists is kept, and a variable that is set is taken instead of a new password
# (POSTGRES_PASSWORD, KALSHI_CAPTURE_PASSWORD, KALSHI_PLATFORM_PASSWORD, KALSHI_READER_PASSWORD, DAGSTER_PASSWORD): that
# is how databases of before keep theirs.
#
#   sh docker/secrets.sh            or, with a docker/.env of before:  (set -a; . docker/.env; sh docker/secrets.sh)
set -eu

folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 0700 "$folder"

make() {  # FILE PASSWORD: images read them as users of their own, so the folder is what keeps others out
  [ -e "$folder/$1" ] || printf %s "${2:-$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')}" >"$folder/$1"
  chmod 0444 "$folder/$1"
}
make owner "${POSTGRES_PASSWORD:-}"
make capture "${KALSHI_CAPTURE_PASSWORD:-}"
make platform "${KALSHI_PLATFORM_PASSWORD:-}"
make reader "${KALSHI_READER_PASSWORD:-}"
make dagster "${DAGSTER_PASSWORD:-${POSTGRES_PASSWORD:-}}"
make object_store ""

line() { printf '%s:*:*:%s:%s\n' "$1" "$2" "$(sed 's/[\\:]/\\&/g' "$folder/$3")"; }
umask 0177  # libpq reads no file that others can read
[ -e "$folder/pgpass" ] || {
  line dagster-database kalshi dagster
  line '*' capture capture
  line '*' platform platform
} >"$folder/pgpass"
[ -e "$folder/pgpass_migrate" ] || line '*' kalshi owner >"$folder/pgpass_migrate"
