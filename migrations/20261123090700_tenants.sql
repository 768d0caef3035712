-- Who reads what, where not every logged-in user may read everything.
--
-- While lakegauge.tenant_access is empty, who is logged in reads all of the archive, as before. From
-- the first row on, only what a row gives: the rows of the claims that somebody's token has. service_role,
-- lakegauge_reader and the archiver read everything in any case.

create table lakegauge.tenant_access (
    number bigint generated always as identity primary key,
    claim text,
    value text not null,
    bucket text,
    warehouse text,
    note text,
    check (num_nonnulls(bucket, warehouse) > 0)
);
comment on table lakegauge.tenant_access is
    'Lakegauge: what users who logged in may read. Empty: everything. Otherwise only the buckets and '
    'warehouses whose names are like the patterns of a row whose claim a user''s token has.';
comment on column lakegauge.tenant_access.claim is
    'Path of a claim in the token, as app_metadata.tenant; null: the value is a database role.';
comment on column lakegauge.tenant_access.value is 'What the claim must be.';
comment on column lakegauge.tenant_access.bucket is
    'Pattern of names of buckets, as by like: acme-%, or % for all; null: none.';
comment on column lakegauge.tenant_access.warehouse is 'The same of warehouses.';

-- The patterns that the one who asks may read; null: everything. Asked once a statement, since each
-- policy has it in a query of its own.
--
-- With the rights of its owner, so that nobody else has to see whose rows there are; the schema is not
-- exposed by REST.
create function lakegauge.readable(side text) returns text[]
language plpgsql stable parallel safe security definer set search_path = ''
as $$
declare
    claims jsonb;
    role_name text := nullif(current_setting('role', true), 'none');
    patterns text[];
begin
    if not exists (select from lakegauge.tenant_access) then
        return null;
    end if;
    claims := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
    select array_agg(pattern) into patterns
    from (
        select case side when 'lake' then access.bucket else access.warehouse end as pattern
        from lakegauge.tenant_access as access
        where case when access.claim is null
            then access.value = coalesce(role_name, session_user)
            else access.value = claims #>> string_to_array(access.claim, '.') end
    ) as mine
    where pattern is not null;
    return coalesce(patterns, array[]::text[]);
end
$$;
comment on function lakegauge.readable(text) is
    'Lakegauge: patterns of the buckets (lake) or warehouses (warehouse) that the one who asks may '
    'read; null: everything.';

-- For what can't be told apart by bucket or warehouse.
create function lakegauge.reads_everything() returns boolean
language sql stable parallel safe
begin atomic
    select coalesce('%' = any (lakegauge.readable('lake')), true)
        and coalesce('%' = any (lakegauge.readable('warehouse')), true);
end;
comment on function lakegauge.reads_everything() is
    'Lakegauge: whether the one who asks may read every bucket and every warehouse.';

do $$
declare
    part record;
    person constant text := 'authenticated';
begin
    perform lakegauge.keep_private('lakegauge.tenant_access'::regclass);
    perform lakegauge.keep_private(pg_get_serial_sequence('lakegauge.tenant_access', 'number')
        ::regclass);
    alter table lakegauge.tenant_access enable row level security;
    execute 'create policy readers_read on lakegauge.tenant_access for select to lakegauge_reader
        using (true)';
    grant select on lakegauge.tenant_access to lakegauge_reader;
    alter table lakegauge.tenant_access owner to lakegauge_archiver;

    perform lakegauge.keep_private('lakegauge.readable(text)'::regprocedure);
    perform lakegauge.keep_private('lakegauge.reads_everything()'::regprocedure);
    if not exists (select from pg_catalog.pg_roles where rolname = person) then
        return;
    end if;
    execute format('grant execute on function lakegauge.readable(text) to %I', person);
    execute format('grant execute on function lakegauge.reads_everything() to %I', person);
    for part in
        select * from (values
            ('lake_access', 'lake', 'bucket'), ('lake_inventory', 'lake', 'bucket'),
            ('lake_day', 'lake', 'bucket'), ('lake_growth', 'lake', 'bucket'),
            ('lake_object', 'lake', 'bucket'), ('warehouse_query', 'warehouse', 'warehouse'),
            ('warehouse_day', 'warehouse', 'warehouse'),
            ('pattern_day', 'warehouse', 'warehouse')) as known (name, side, field)
    loop
        execute format('alter policy authenticated_reads on lakegauge.%I using (
            (select lakegauge.readable(%L)) is null
            or %I like any ((select lakegauge.readable(%2$L))::text[]))',
            part.name, part.side, part.field);
    end loop;
    -- A series has no side: its stream has.
    alter policy authenticated_reads on lakegauge.window_series using (
        (select lakegauge.readable('lake')) is null
        or (stream in (select id from lakegauge.stream as known where known.name like 'LAKE%')
            and name like any ((select lakegauge.readable('lake'))::text[]))
        or (stream in (select id from lakegauge.stream as known where known.name like 'WAREHOUSE%')
            and name like any ((select lakegauge.readable('warehouse'))::text[])));
    alter policy authenticated_reads on lakegauge.lake_window using (
        (select lakegauge.readable('lake')) is null
        or series in (select id from lakegauge.window_series));
    alter policy authenticated_reads on lakegauge.warehouse_window using (
        (select lakegauge.readable('warehouse')) is null
        or series in (select id from lakegauge.window_series));
    alter policy authenticated_reads on lakegauge.sample using (
        (select lakegauge.reads_everything()));
    alter policy authenticated_reads on lakegauge.dead_letter using (
        (select lakegauge.reads_everything()));
    alter policy authenticated_reads on lakegauge.withdrawal using (
        (select lakegauge.reads_everything()));
end
$$;
