-- A database in which others live: names like ours, rights of every kind, defaults that open
-- whatever is made, and an event trigger that does the same.
do $$
declare
    name text;
begin
    foreach name in array array['web_anon', 'Odd "Name"', 'theirs'] loop
        if not exists (select from pg_roles where rolname = name) then
            execute format('create role %I nologin', name);
        end if;
    end loop;
end
$$;
grant web_anon to theirs;
comment on role theirs is 'Owns what is here.';
do $$
begin
    execute format('grant connect, temporary on database %I to web_anon', current_database());
    execute format('alter database %I set statement_timeout = 60000', current_database());
end
$$;

-- The tutorial of PostgREST.
create schema api;
alter schema api owner to lakegauge_owner;
grant usage on schema api to web_anon, anon, authenticated, public;
set role lakegauge_owner;
create table api.todos (id integer primary key generated always as identity, task text not null);
insert into api.todos (task) values ('stay as it is');
grant select on api.todos to web_anon, anon;
grant update (task) on api.todos to authenticated with grant option;
create table api.secret (owner text, value text);
revoke all on api.secret from public;
alter table api.secret enable row level security;
create policy mine on api.secret for all to authenticated using (owner = current_user);
create view api.lake_access as select * from api.todos;
grant select on api.lake_access to public, authenticated, service_role;
create table api.sample (at timestamptz);
grant all on api.sample to service_role, "Odd ""Name""";
create type api.sketch as enum ('a', 'b');
create function api.sketch_sum(a integer[], b bigint[]) returns bigint language sql return 1;
grant execute on function api.sketch_sum(integer[], bigint[]) to anon;
create function api.at_ns(ns bigint) returns text language sql return 'theirs';
revoke all on function api.at_ns(bigint) from public;
reset role;

-- Names of ours where everybody looks, and rights of everybody there.
grant create on schema public to public, anon;
create table public.lake_access (a integer);
create table public.migration (version bigint);
create sequence public.stream_id_seq;
create function public.bucket_value(bucket integer) returns bigint language sql return 2;
create function public.quote_ident(text) returns text language sql return 'public';
grant select on public.lake_access to anon, authenticated, service_role;

-- What is made by the owner is open to others, in every schema.
alter default privileges for role lakegauge_owner grant all on tables to web_anon, anon;
alter default privileges for role lakegauge_owner grant all on sequences to web_anon, anon;
alter default privileges for role lakegauge_owner grant all on functions to web_anon, anon;
alter default privileges for role lakegauge_owner grant all on schemas to web_anon, "Odd ""Name""";
alter default privileges for role lakegauge_owner grant usage on types to web_anon;
alter default privileges for role lakegauge_owner revoke execute on functions from public;

-- And what anybody makes.
create schema watch;
create function watch.open_tables() returns event_trigger language plpgsql as $$
declare
    command record;
begin
    for command in select * from pg_event_trigger_ddl_commands() where object_type = 'table' loop
        execute format('grant select on %s to web_anon', command.object_identity);
    end loop;
end
$$;
grant usage on schema watch to public;
create event trigger open_tables on ddl_command_end when tag in ('CREATE TABLE')
    execute function watch.open_tables();
