-- Who may do what, and where things stand.
--
-- `lakegauge` holds the tables, their partitions and the list of applied migrations. It is not
-- exposed by the REST interface, because row level security of a partitioned table does not cover
-- its partitions. `api` holds what people and programs read.
--
-- lakegauge_archiver owns the tables: COPY is refused on a table with row level security unless the
-- role owns it. lakegauge_reader reads everything (rebuild, replay, audits, panels). Both are groups:
-- grant them to a login role each. Runs without superuser rights.

do $$
declare
    role_name text;
begin
    foreach role_name in array array['lakegauge_archiver', 'lakegauge_reader'] loop
        if not exists (select from pg_catalog.pg_roles where rolname = role_name) then
            execute format('create role %I nologin', role_name);
        end if;
    end loop;
    -- Tables can be handed over only to a role that one belongs to.
    if not pg_catalog.pg_has_role(current_user, 'lakegauge_archiver', 'usage') then
        execute format('grant lakegauge_archiver to %I', current_user);
    end if;
end
$$;

create schema if not exists lakegauge;
create schema if not exists api;

comment on schema lakegauge is
    'Tables of the archive. Not exposed: read through the views in api.';
comment on schema api is
    'What was archived, for people, panels and REST. Every object has a comment.';

revoke all on schema lakegauge, api from public;
grant usage, create on schema lakegauge to lakegauge_archiver;
grant usage on schema lakegauge, api to lakegauge_reader;
grant usage on schema api to lakegauge_archiver;

-- The roles of Supabase, where they exist. anon sees nothing; authenticated reads the views, which
-- run with the rights of the reader and so need the way to the tables as well.
do $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'anon') then
        revoke all on schema lakegauge, api from anon;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
        revoke all on schema lakegauge, api from authenticated;
        grant usage on schema lakegauge, api to authenticated;
    end if;
end
$$;
