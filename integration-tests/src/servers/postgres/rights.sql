-- What a role can do with an object, by really doing it under that role and taking it back.
create function pg_temp.can(role_name text, statement text) returns boolean
language plpgsql as $$
begin
    execute format('set local role %I', role_name);
    execute statement;
    raise exception 'allowed' using errcode = 'ZZ000';
exception
    -- What was done is undone here, and the role is the superuser's again. Whoever meets a
    -- constraint was let in.
    when sqlstate 'ZZ000' or integrity_constraint_violation then return true;
    -- No permission, or a view that nobody can write through.
    when insufficient_privilege or object_not_in_prerequisite_state then return false;
end
$$;

-- Whether a role sees as many rows as a superuser does.
create function pg_temp.sees(role_name text, relation text) returns boolean
language plpgsql as $$
declare
    there bigint;
    seen bigint;
begin
    execute format('select count(*) from %s', relation) into there;
    execute format('set local role %I', role_name);
    execute format('select count(*) from (select * from %s offset 0) as whole', relation) into seen;
    raise exception 'seen' using errcode = 'ZZ000';
exception
    when sqlstate 'ZZ000' then return seen = there;
    when insufficient_privilege then return false;
end
$$;

with object as (
    select
        format('%I.%I', namespace.nspname, class.relname) as name,
        case when class.relkind = 'v' then 'view' when class.relispartition then 'partition'
            else 'table' end as kind,
        (
            select attname from pg_catalog.pg_attribute as attribute
            where attrelid = class.oid and attnum > 0 and not attisdropped and attidentity = ''
            order by attnum limit 1
        ) as "column"
    from pg_catalog.pg_class as class
    join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
    where namespace.nspname in ('lakegauge_api', 'lakegauge') and class.relkind in ('r', 'p', 'v')
), person as (
    select unnest(:people::text[]) as role
)
select
    object.kind, object.name, person.role,
    concat(
        case when pg_temp.sees(role, name) then 'r' end,
        case when pg_temp.can(role, format('insert into %s default values', name)) then 'i' end,
        case when pg_temp.can(role, format('update %s set %I = %2$I', name, "column")) then 'u' end,
        case when pg_temp.can(role, format('delete from %s', name)) then 'd' end,
        case when kind <> 'view' and pg_temp.can(role, format('truncate %s cascade', name))
            then 't' end,
        case when pg_temp.can(role, format('comment on %s %s is ''changed''',
            case when kind = 'view' then 'view' else 'table' end, name)) then 'o' end
    )
from object, person
union all
select
    'schema', schema, role,
    case when pg_temp.can(role, format('create table %I.attempt ()', schema)) then 'c' end
from unnest(array['lakegauge_api', 'lakegauge', 'public']) as schema, person
union all
select 'function', 'lakegauge_api.sketch_percentile(sketch, share)', role, case when pg_temp.can(role,
    'select lakegauge_api.sketch_percentile(lakegauge_api.sketch_sum(row(array[1])::lakegauge.window_sketch), 0.5)') then 'x' end
from person
order by 1, 2, 3;
