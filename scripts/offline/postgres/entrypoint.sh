#!/usr/bin/env bash
# Makes the database at the first start, by the variables of the official image: POSTGRES_USER,
# POSTGRES_PASSWORD (or POSTGRES_PASSWORD_FILE), POSTGRES_DB, POSTGRES_INITDB_ARGS,
# POSTGRES_HOST_AUTH_METHOD, and /docker-entrypoint-initdb.d/*.{sh,sql,sql.gz} in the order of their
# names. Meanwhile the server listens on its socket only, so that nobody takes it for ready.
set -euo pipefail

wrong() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Arguments that begin with a dash are those of the server.
if [[ ${1:-} == -* ]]; then set -- postgres "$@"; fi

# The server refuses to run as root: give it its directory, then become its user.
if [[ $(id -u) -eq 0 && ${1:-} == postgres ]]; then
  mkdir -p "$PGDATA"
  chmod 700 "$PGDATA"
  find "$PGDATA" /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
  exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0" "$@"
fi

# From the variable NAME, or from the file that NAME_FILE names.
variable() {
  local file=${1}_FILE
  if [[ -n ${!file:-} ]]; then
    [[ -z ${!1:-} ]] || wrong "set $1 or $file, not both"
    printf '%s' "$(<"${!file}")"
  else
    printf '%s' "${!1:-${2:-}}"
  fi
}

as_superuser() {
  PGHOST=/var/run/postgresql psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$user" "$@"
}

run_scripts() {
  local script
  for script in /docker-entrypoint-initdb.d/*; do
    case $script in
      *.sh)
        printf 'running %s\n' "$script"
        if [[ -x $script ]]; then
          "$script"
        else
          # shellcheck source=/dev/null
          source "$script"
        fi
        ;;
      *.sql)
        printf 'running %s\n' "$script"
        as_superuser --dbname "$database" --file "$script"
        ;;
      *.sql.gz)
        printf 'running %s\n' "$script"
        gunzip -c "$script" | as_superuser --dbname "$database"
        ;;
    esac
  done
}

initialise() {
  export POSTGRES_USER=$user POSTGRES_DB=$database
  if [[ -n $password ]]; then
    export POSTGRES_PASSWORD=$password
  elif [[ $method != trust ]]; then
    wrong "POSTGRES_PASSWORD is not set; POSTGRES_HOST_AUTH_METHOD=trust would do without"
  fi
  local arguments=()
  # Split at blanks, as the official image does.
  read -ra arguments <<<"${POSTGRES_INITDB_ARGS:-}"
  initdb --username="$user" --pwfile=<(printf '%s\n' "${password:-unused}") "${arguments[@]}"
  printf '\nhost all all all %s\n' "${method:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
  PGUSER=$user pg_ctl --wait -o "-c listen_addresses=''" start
  if [[ $database != postgres ]]; then
    as_superuser --dbname postgres --set db="$database" <<<'create database :"db";'
  fi
  run_scripts
  PGUSER=$user pg_ctl --mode=fast --wait stop
}

if [[ ${1:-} == postgres && ! -s $PGDATA/PG_VERSION ]]; then
  user=$(variable POSTGRES_USER postgres)
  database=$(variable POSTGRES_DB "$user")
  password=$(variable POSTGRES_PASSWORD)
  method=${POSTGRES_HOST_AUTH_METHOD:-}
  initialise
fi
exec "$@"
