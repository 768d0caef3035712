#!/usr/bin/env bash
# Writes a configuration by DB_HOST, DB_PORT, DB_USER, DB_PASSWORD, DB_NAME, POOL_MODE, AUTH_TYPE,
# LISTEN_PORT, MAX_CLIENT_CONN and DEFAULT_POOL_SIZE, unless there is one, and starts the pooler.
set -euo pipefail

configuration=/etc/pgbouncer/pgbouncer.ini
if [[ ! -e $configuration ]]; then
  {
    printf '"%s" "%s"\n' "${DB_USER:-postgres}" "${DB_PASSWORD:-}"
  } >/etc/pgbouncer/userlist.txt
  cat >"$configuration" <<END
[databases]
${DB_NAME:-*} = host=${DB_HOST:?set DB_HOST to the address of PostgreSQL} port=${DB_PORT:-5432}

[pgbouncer]
listen_addr = 0.0.0.0
listen_port = ${LISTEN_PORT:-5432}
unix_socket_dir =
auth_type = ${AUTH_TYPE:-scram-sha-256}
auth_file = /etc/pgbouncer/userlist.txt
pool_mode = ${POOL_MODE:-session}
max_client_conn = ${MAX_CLIENT_CONN:-100}
default_pool_size = ${DEFAULT_POOL_SIZE:-20}
ignore_startup_parameters = extra_float_digits
END
fi
exec pgbouncer "$@"
