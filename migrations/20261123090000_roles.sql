-- Who may do what, and where things stand.
--
-- `lakegauge` holds the tables, their partitions and the list of applied migrations. It is not
-- exposed by the REST interface, because row level security of a partitioned table does not cover
-- its partitions. `lakegauge_api` holds what people and programs read.
--
-- lakegauge_archiver owns the tables: COPY is refused on a table with row level security unless the
-- role owns it. lakegauge_reader reads everything (rebuild, replay, audits, panels). Both are
-- groups: grant them to a login role each. Runs without superuser rights.
--
-- The database may be full of other people's objects. Each statement of these files names what it
-- makes or changes, and all of that is ours; what is ours has a comment that begins with
-- "Lakegauge: ". Roles belong to the whole cluster, so that another database of ours may have made
-- them already.

do $$
declare
    role_name text;
    patience constant text := current_setting('lock_timeout');
begin
    -- As long as another database of ours, whose migration makes the same roles, needs.
    perform set_config('lock_timeout', '0', true);
    foreach role_name in array array['lakegauge_archiver', 'lakegauge_reader'] loop
        continue when exists (select from pg_catalog.pg_roles where rolname = role_name);
        begin
            execute format('create role %I nologin', role_name);
            execute format('comment on role %I is %L', role_name, case role_name
                when 'lakegauge_archiver' then 'Lakegauge: owns the tables of archives, and writes.'
                else 'Lakegauge: reads everything of archives.' end);
        exception when duplicate_object or unique_violation then
            null;
        end;
    end loop;
    -- Tables can be handed over only to a role that one belongs to.
    if not pg_catalog.pg_has_role(current_user, 'lakegauge_archiver', 'usage') then
        begin
            execute format('grant lakegauge_archiver to %I', current_user);
        exception when unique_violation then
            null;
        end;
    end if;
    perform set_config('lock_timeout', patience, true);
end
$$;

create schema lakegauge;
create schema lakegauge_api;

comment on schema lakegauge is
    'Lakegauge: tables of the archive. Not exposed: read through the views in lakegauge_api.';
comment on schema lakegauge_api is
    'Lakegauge: what was archived, for people, panels and REST. Every object has a comment.';

create table lakegauge.migration (
    version bigint primary key,
    applied_at timestamptz not null default now(),
    name text not null,
    checksum bytea not null
);
comment on table lakegauge.migration is
    'Lakegauge: what `lakegauge migrate` has applied, and the SHA-384 of each file.';

-- What others get by default when an object is made differs from database to database and changes,
-- so that rights of ours are given one by one, to an object that nobody but its owner has any on.
create function lakegauge.keep_private(object regclass) returns void
language plpgsql set search_path = ''
as $$
declare
    grantee text;
begin
    for grantee in
        select distinct case when entry.grantee = 0 then 'public'
            else quote_ident(pg_catalog.pg_get_userbyid(entry.grantee)) end
        from pg_catalog.pg_class as class, pg_catalog.aclexplode(class.relacl) as entry
        where class.oid = object and entry.grantee <> class.relowner
    loop
        execute format('revoke all on %s from %s', object, grantee);
    end loop;
end
$$;
comment on function lakegauge.keep_private(regclass) is
    'Lakegauge: takes every right on a table, view or sequence from everybody but its owner.';

create function lakegauge.keep_private(routine regprocedure) returns void
language plpgsql set search_path = ''
as $$
declare
    grantee text;
begin
    for grantee in
        select distinct case when entry.grantee = 0 then 'public'
            else quote_ident(pg_catalog.pg_get_userbyid(entry.grantee)) end
        from pg_catalog.pg_proc as proc, pg_catalog.aclexplode(
            coalesce(proc.proacl, pg_catalog.acldefault('f', proc.proowner))) as entry
        where proc.oid = routine and entry.grantee <> proc.proowner
    loop
        execute format('revoke all on function %s from %s', routine, grantee);
    end loop;
end
$$;
comment on function lakegauge.keep_private(regprocedure) is
    'Lakegauge: takes the right to call a function or an aggregate from everybody but its owner.';

create function lakegauge.keep_private(schema regnamespace) returns void
language plpgsql set search_path = ''
as $$
declare
    grantee text;
begin
    for grantee in
        select distinct case when entry.grantee = 0 then 'public'
            else quote_ident(pg_catalog.pg_get_userbyid(entry.grantee)) end
        from pg_catalog.pg_namespace as namespace,
            pg_catalog.aclexplode(namespace.nspacl) as entry
        where namespace.oid = schema and entry.grantee <> namespace.nspowner
    loop
        execute format('revoke all on schema %s from %s', schema, grantee);
    end loop;
end
$$;
comment on function lakegauge.keep_private(regnamespace) is
    'Lakegauge: takes every right on a schema from everybody but its owner.';

do $$
begin
    perform lakegauge.keep_private('lakegauge'::regnamespace);
    perform lakegauge.keep_private('lakegauge_api'::regnamespace);
    perform lakegauge.keep_private('lakegauge.keep_private(regclass)'::regprocedure);
    perform lakegauge.keep_private('lakegauge.keep_private(regprocedure)'::regprocedure);
    perform lakegauge.keep_private('lakegauge.keep_private(regnamespace)'::regprocedure);
end
$$;
grant usage, create on schema lakegauge to lakegauge_archiver;
grant usage on schema lakegauge to lakegauge_reader;
grant usage on schema lakegauge_api to lakegauge_archiver, lakegauge_reader;
grant execute on function lakegauge.keep_private(regclass) to lakegauge_archiver;

-- The roles of Supabase, where they exist. anon sees nothing; authenticated (a user who logged in)
-- and service_role (the project's secret key) read the views, which run with the rights of the
-- reader and so need the way to the tables as well.
do $$
declare
    person text;
begin
    foreach person in array array['authenticated', 'service_role'] loop
        if exists (select from pg_catalog.pg_roles where rolname = person) then
            execute format('grant usage on schema lakegauge, lakegauge_api to %I', person);
        end if;
    end loop;
end
$$;
