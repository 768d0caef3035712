-- What the secret key of a Supabase project reads by REST: the views, as people who logged in do.
--
-- That key acts as service_role, which passes row level security, but has no rights on schemas that
-- a project adds; without these grants the only way to read by REST is a user's login. It writes
-- nothing: only the archiver does.

do $$
declare
    name text;
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'service_role') then
        return;
    end if;
    revoke all on schema lakegauge, api from service_role;
    revoke all on all tables in schema lakegauge, api from service_role;
    revoke all on all functions in schema lakegauge, api from service_role;
    grant usage on schema lakegauge, api to service_role;
    grant select on all tables in schema api to service_role;

    -- What the views need. Of checkpoints not the sets and the writer.
    foreach name in array array['stream', 'lake_access', 'lake_inventory', 'warehouse_query',
        'lake_window', 'warehouse_window', 'sample', 'dead_letter', 'ledger', 'declared_loss',
        'dropped', 'source']
    loop
        execute format('grant select on lakegauge.%I to service_role', name);
    end loop;
    grant select (stream, epoch, sequence, broker_ns, updated_at) on lakegauge.checkpoint
        to service_role;
    -- Said for the day on which a project's service_role does not pass row level security.
    foreach name in array array['stream', 'lake_access', 'lake_inventory', 'warehouse_query',
        'lake_window', 'warehouse_window', 'sample', 'dead_letter', 'ledger', 'declared_loss',
        'dropped', 'source', 'checkpoint']
    loop
        execute format('create policy services_read on lakegauge.%I for select to service_role
            using (true)', name);
    end loop;
    grant execute on function
        lakegauge.operation_name(smallint), lakegauge.outcome_name(smallint),
        lakegauge.statement_name(smallint), lakegauge.reason_name(smallint),
        lakegauge.closed_as_name(smallint), lakegauge.at_ns(bigint),
        lakegauge.sketch_add(integer[], bigint[], integer[], bigint[]),
        lakegauge.sketch_step(lakegauge.sketch, integer[], bigint[]),
        lakegauge.bucket_value(integer),
        api.sketch_sum(integer[], bigint[]),
        api.sketch_percentile(lakegauge.sketch, double precision)
    to service_role;
end
$$;
