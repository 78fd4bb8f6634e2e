#!/usr/bin/env bash
# Behaves as the entry point of the official postgres image does, as far as a backup can tell the difference:
# a cluster is made on an empty PGDATA, by a temporary server that answers on its socket only; afterwards, and on
# every later start, the server takes this process's place.
set -Eeo pipefail

# Take VAR from VAR_FILE where that is given (Docker secrets), else from a default.
from_file_or_default() {
  local name=$1 default=${2-} file=${1}_FILE
  if [ -n "${!name-}" ] && [ -n "${!file-}" ]; then
    echo >&2 "error: both $name and $file are set (but are exclusive)"
    exit 1
  fi
  local value=$default
  if [ -n "${!name-}" ]; then
    value=${!name}
  elif [ -n "${!file-}" ]; then
    value=$(<"${!file}")
  fi
  export "$name"="$value"
  unset "$file"
}

sql() {
  PGHOST='' PGHOSTADDR='' psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$POSTGRES_USER" "$@"
}

make_directories() {
  mkdir -p "$PGDATA"
  chmod 00700 "$PGDATA" || true
  mkdir -p /var/run/postgresql || true
  chmod 03775 /var/run/postgresql || true
  if [ "$(id -u)" = 0 ]; then
    find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
    find /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
  fi
}

make_cluster() {
  if [ -z "$POSTGRES_PASSWORD" ] && [ "${POSTGRES_HOST_AUTH_METHOD-}" != trust ]; then
    echo >&2 "Error: Database is uninitialized and superuser password is not specified."
    exit 1
  fi
  # POSTGRES_INITDB_ARGS is a line of shell words, as in the official image. A test's cluster need not survive a loss of power.
  eval 'initdb --no-sync --username="$POSTGRES_USER" --pwfile=<(printf "%s\n" "$POSTGRES_PASSWORD") '"$POSTGRES_INITDB_ARGS"
  local method=${POSTGRES_HOST_AUTH_METHOD:-$(postgres -C password_encryption "$@")}
  printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
}

make_database() {
  local exists
  exists=$(sql --dbname postgres --set db="$POSTGRES_DB" --tuples-only <<<"SELECT 1 FROM pg_database WHERE datname = :'db';")
  [ -n "$exists" ] || sql --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
}

run_initialisation_files() {
  local file
  for file in /docker-entrypoint-initdb.d/*; do
    case $file in
      *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
      *.sql) sql --dbname "$POSTGRES_DB" -f "$file" ;;
      *.sql.gz) gunzip -c "$file" | sql --dbname "$POSTGRES_DB" ;;
      *.sql.zst) zstd -dc "$file" | sql --dbname "$POSTGRES_DB" ;;
      *) echo "$0: ignoring $file" ;;
    esac
  done
}

if [ "${1:0:1}" = - ]; then
  set -- postgres "$@"
fi
case " $* " in *" --help "* | *" --version "* | *" -V "* | *" -? "*) exec "$@" ;; esac

if [ "$1" = postgres ]; then
  from_file_or_default POSTGRES_PASSWORD
  from_file_or_default POSTGRES_USER postgres
  from_file_or_default POSTGRES_DB "$POSTGRES_USER"
  from_file_or_default POSTGRES_INITDB_ARGS
  make_directories
  if [ "$(id -u)" = 0 ]; then
    exec setpriv --reuid=postgres --regid=postgres --init-groups env HOME=/var/lib/postgresql "${BASH_SOURCE[0]}" "$@"
  fi
  if [ -s "$PGDATA/PG_VERSION" ]; then
    echo 'PostgreSQL Database directory appears to contain a database; Skipping initialization'
  else
    make_cluster "${@:2}"
    PGUSER="${PGUSER:-$POSTGRES_USER}" pg_ctl -D "$PGDATA" -w start \
      -o "$(printf '%q ' "${@:2}" -c fsync=off -c listen_addresses='' -p "${PGPORT:-5432}")"
    PGPASSWORD=${PGPASSWORD:-$POSTGRES_PASSWORD} make_database
    PGPASSWORD=${PGPASSWORD:-$POSTGRES_PASSWORD} run_initialisation_files
    pg_ctl -D "$PGDATA" -m fast -w stop
    echo 'PostgreSQL init process complete; ready for start up.'
  fi
fi

exec "$@"
