#!/bin/bash
# Makes the roles and the database of the archive, once, when the database's volume is new. No
# service is a superuser. The roles of a Supabase project are there as well (anon, authenticated,
# service_role, authenticator), with the default rights that Supabase gives them, so that migrations
# and REST behave as they do there.
set -eu

# Of the role, as compose/setup.sh generated it.
password() { cat "/run/postgres-secrets/$1"; }

psql --set=ON_ERROR_STOP=1 --no-psqlrc --quiet --username "$POSTGRES_USER" --dbname postgres \
  --set=owner="$(password owner)" --set=archiver="$(password archiver)" \
  --set=aggregator="$(password aggregator)" --set=reader="$(password reader)" \
  --set=authenticator="$(password authenticator)" <<'SQL'
create role anon nologin;
create role authenticated nologin;
create role service_role nologin bypassrls;
create role authenticator login noinherit password :'authenticator';
grant anon, authenticated, service_role to authenticator;
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';

-- The migrations would make the groups; here they are there before, for the logins.
create role lakegauge_archiver nologin;
create role lakegauge_reader nologin;
-- `lakegauge migrate` takes them for its own by these comments.
comment on role lakegauge_archiver is 'Lakegauge: owns the tables of archives, and writes.';
comment on role lakegauge_reader is 'Lakegauge: reads everything of archives.';
create role lakegauge_owner login createrole password :'owner';
grant lakegauge_archiver, lakegauge_reader to lakegauge_owner with admin option;
create role archiver login password :'archiver' in role lakegauge_archiver;
create role aggregator login password :'aggregator' in role lakegauge_reader;
create role reader login password :'reader' in role lakegauge_reader;

create database lakegauge owner lakegauge_owner;
revoke all on database lakegauge from public;
grant connect on database lakegauge to archiver, aggregator, reader, authenticator;
\connect lakegauge
grant usage on schema public to anon, authenticated, service_role;
alter default privileges for role lakegauge_owner in schema public
    grant all on tables to anon, authenticated, service_role;
alter default privileges for role lakegauge_owner in schema public
    grant all on functions to anon, authenticated, service_role;
alter default privileges for role lakegauge_owner in schema public
    grant all on sequences to anon, authenticated, service_role;
SQL
