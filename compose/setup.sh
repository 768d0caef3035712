#!/bin/sh
# What `docker-compose up` does first: generates the passwords that are neither given nor there yet,
# and puts each where only its reader finds it. Safe to repeat: a password that is there stays. Those
# of the broker may be given, as NATS_PASSWORD_READER and so on.
#
#   /secrets            a folder for each service, for its user only
#   /postgres-secrets   passwords of the database's roles, for the database alone
#   /etc/nats           the broker's configuration, with the passwords of its users
#
# `setup.sh password NAME` prints one instead (nats-reader, postgres-reader, collect-token), for people;
# `setup.sh rest-key ROLE` a key for the REST interface as anon, authenticated or service_role, which
# Supabase gives as a project's keys.
set -eu
umask 077

# Who runs as whom; docker-compose.yml says the same.
nats_uid=10010
lake_uid=10011
warehouse_uid=10012
aggregator_uid=10013
archiver_uid=10014
migrate_uid=10015
tools_uid=10016
rest_uid=10017
collector_uid=10018
# That of the official image.
grafana_uid=472

kept=/secrets/.generated
database=postgres:5432/lakegauge

# A password by name: the given one, or one of 192 bits that is made at its first use.
password() {
  variable=$(printf %s "$1" | tr '[:lower:]-' '[:upper:]_' | sed 's/^NATS_/NATS_PASSWORD_/')
  given=$(printenv "$variable" || true)
  case $given in
    *[!A-Za-z0-9_-]*)
      echo "error: $variable may hold letters, digits, - and _ only" >&2
      exit 64
      ;;
  esac
  if [ -z "$given" ] && ! [ -s "$kept/$1" ]; then
    given=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')
  fi
  if [ -n "$given" ]; then
    printf %s "$given" >"$kept/$1.new"
    mv "$kept/$1.new" "$kept/$1"
  fi
  cat "$kept/$1"
}

# One line from standard input into a file that only one user can read, complete or not at all.
give() {
  mkdir -p "$(dirname "$2")"
  chmod 711 "$(dirname "$2")"
  cat >"$2.new"
  chmod 400 "$2.new"
  chown "$1:$1" "$2.new"
  mv "$2.new" "$2"
}

mkdir -p "$kept"
chmod 711 /secrets

case ${1:-} in
  '') ;;
  password)
    case ${2:-} in
      nats-* | postgres-* | collect-token) ;;
      *)
        echo "error: password needs nats-USER, postgres-ROLE or collect-token" >&2
        exit 64
        ;;
    esac
    [ -s "$kept/$2" ] || {
      echo "error: there is no $2" >&2
      exit 1
    }
    cat "$kept/$2"
    echo
    exit 0
    ;;
  rest-key)
    shift
    password jwt | lakegauge rest-key "$@"
    exit
    ;;
  *)
    echo "error: unknown argument '$1'" >&2
    exit 64
    ;;
esac

# The broker: its configuration, and the passwords in the form in which it includes them.
for file in /nats/*.conf; do
  give "$nats_uid" "/etc/nats/${file##*/}" <"$file"
done
for user in admin lake_simulator warehouse_simulator publisher aggregator archiver reader; do
  printf 'NATS_PASSWORD_%s: "%s"\n' "$(printf %s "$user" | tr '[:lower:]' '[:upper:]')" \
    "$(password "nats-$user")"
done | give "$nats_uid" /etc/nats/passwords.conf
chown "$nats_uid:$nats_uid" /data

password nats-lake_simulator | give "$lake_uid" /secrets/lake-simulator/nats-password
password nats-warehouse_simulator | give "$warehouse_uid" /secrets/warehouse-simulator/nats-password
password nats-aggregator | give "$aggregator_uid" /secrets/aggregator/nats-password
password nats-archiver | give "$archiver_uid" /secrets/archiver/nats-password
password nats-publisher | give "$collector_uid" /secrets/collector/nats-password
password collect-token | give "$collector_uid" /secrets/collector/token
for user in admin publisher reader; do
  password "nats-$user" | give "$tools_uid" "/secrets/tools/nats-password-$user"
done

# The database of docker-compose.override.yml, where it is used.
if [ -d /postgres-secrets ]; then
  for role in superuser owner aggregator archiver reader authenticator; do
    password "postgres-$role" >"/postgres-secrets/$role.new"
    chmod 444 "/postgres-secrets/$role.new"
    mv "/postgres-secrets/$role.new" "/postgres-secrets/$role"
  done
  chmod 755 /postgres-secrets
  url() { printf 'postgresql://%s:%s@%s' "$1" "$(password "postgres-$2")" "$database"; }
  url lakegauge_owner owner | give "$migrate_uid" /secrets/migrate/database-url
  url aggregator aggregator | give "$aggregator_uid" /secrets/aggregator/database-url
  url archiver archiver | give "$archiver_uid" /secrets/archiver/database-url
  url archiver archiver | give "$tools_uid" /secrets/tools/database-url
  url authenticator authenticator | give "$rest_uid" /secrets/rest/database-url
  password postgres-reader | give "$grafana_uid" /secrets/grafana/archive-password
  password jwt | give "$rest_uid" /secrets/rest/jwt-secret
fi
echo "every password is in its place"
