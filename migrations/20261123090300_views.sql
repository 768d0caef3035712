-- What people and programs read: text instead of codes, and nothing of how it is stored.
--
-- The views run with the rights of who reads them (security_invoker), so row level security of the
-- tables decides.

create function lakegauge.operation_name(code smallint) returns text
language sql immutable parallel safe
return (array['read', 'head', 'list', 'write', 'copy', 'delete', 'other'])[code + 1];

create function lakegauge.outcome_name(code smallint) returns text
language sql immutable parallel safe
return (array['ok', 'not_found', 'denied', 'throttled', 'timeout', 'cancelled', 'client_error',
    'server_error'])[code + 1];

create function lakegauge.statement_name(code smallint) returns text
language sql immutable parallel safe
return (array['select', 'insert', 'update', 'delete', 'merge', 'copy', 'unload',
    'create_table_as', 'ddl', 'maintenance', 'other'])[code + 1];

create function lakegauge.reason_name(code smallint) returns text
language sql immutable parallel safe
return (array['undecodable', 'unknown_type', 'wrong_stream', 'missing_field', 'wrong_field',
    'out_of_range', 'too_long', 'nul_byte', 'future_dated', 'older_than_retention', 'too_large',
    'refused_by_database'])[code + 1];

create function lakegauge.at_ns(ns bigint) returns timestamptz
language sql immutable parallel safe
return timestamptz '1970-01-01 00:00:00+00' + (ns / 1000) * interval '1 microsecond';

comment on function lakegauge.operation_name is 'Name of a lake operation.';
comment on function lakegauge.outcome_name is 'Name of an outcome.';
comment on function lakegauge.statement_name is 'Name of a kind of statement.';
comment on function lakegauge.reason_name is 'Name of the reason of a dead letter.';
comment on function lakegauge.at_ns is 'A moment from nanoseconds since 1970.';

create view api.lake_access with (security_invoker = true) as
select
    event.occurred_at, event.id, event.bucket, event.key,
    lakegauge.operation_name(event.operation) as operation,
    lakegauge.outcome_name(event.outcome) as outcome,
    event.bytes, event.object_bytes, event.duration_us, event.principal, event.sequencer,
    stream.name as stream, event.epoch, event.sequence, event.index,
    event.verdict is not null as late
from lakegauge.lake_access as event
join lakegauge.stream on stream.id = event.stream;
comment on view api.lake_access is
    'Requests to the object store, each once. Times in UTC, sizes in bytes, durations in microseconds.';

create view api.lake_inventory with (security_invoker = true) as
select
    event.occurred_at as as_of, event.id, event.bucket, event.objects, event.bytes,
    stream.name as stream, event.epoch, event.sequence, event.index,
    event.verdict is not null as late
from lakegauge.lake_inventory as event
join lakegauge.stream on stream.id = event.stream;
comment on view api.lake_inventory is 'What a bucket held at a time, by the store''s own count.';

create view api.warehouse_query with (security_invoker = true) as
select
    event.occurred_at, event.id, event.warehouse, event.database,
    lakegauge.statement_name(event.statement) as statement,
    lakegauge.outcome_name(event.outcome) as outcome,
    event.queued_us, event.executed_us, event.rows_processed, event.rows_returned,
    event.bytes_scanned, event.cache_hit, event.principal, event.fingerprint,
    stream.name as stream, event.epoch, event.sequence, event.index,
    event.verdict is not null as late
from lakegauge.warehouse_query as event
join lakegauge.stream on stream.id = event.stream;
comment on view api.warehouse_query is
    'Queries that finished, each once. Response time is queued_us + executed_us.';

create view api.lake_window with (security_invoker = true) as
select
    window_start, length_s, bucket,
    lakegauge.operation_name(operation) as operation,
    lakegauge.outcome_name(outcome) as outcome,
    events, bytes, duration_us,
    lakegauge.bucket_value(sketch_buckets[cardinality(sketch_buckets)]) as duration_us_max,
    sketch_buckets, sketch_counts, revision, changed_at
from lakegauge.lake_window;
comment on view api.lake_window is
    'Requests per window of event time, bucket, operation and outcome. Choose one length_s; a '
    'percentile over any of them: api.sketch_percentile(api.sketch_sum(sketch_buckets, '
    'sketch_counts), 0.95). A late event changes its window and raises its revision.';

create view api.warehouse_window with (security_invoker = true) as
select
    window_start, length_s, warehouse,
    lakegauge.statement_name(statement) as statement,
    lakegauge.outcome_name(outcome) as outcome,
    events, bytes_scanned, rows_processed, response_us, cache_hits,
    lakegauge.bucket_value(sketch_buckets[cardinality(sketch_buckets)]) as response_us_max,
    sketch_buckets, sketch_counts, revision, changed_at
from lakegauge.warehouse_window;
comment on view api.warehouse_window is
    'Queries per window of event time, warehouse, statement and outcome. Choose one length_s; a '
    'percentile over any of them: api.sketch_percentile(api.sketch_sum(sketch_buckets, '
    'sketch_counts), 0.95). A late event changes its window and raises its revision.';

create view api.sample with (security_invoker = true) as
select
    lakegauge.at_ns(sample.broker_ns) as at, stream.name as stream,
    sample.used_bytes, sample.accesses, sample.buckets,
    sample.queries_in_window, sample.response_us_in_window, sample.records,
    sample.epoch, sample.sequence
from lakegauge.sample
join lakegauge.stream on stream.id = sample.stream;
comment on view api.sample is
    'What the metrics were, about every ten seconds of the broker''s time: used bytes in all and per '
    'bucket, accesses; queries and response time of the 60 s before, rows processed.';

create view api.dead_letter with (security_invoker = true) as
select
    letter.number, letter.received_at, lakegauge.reason_name(letter.reason) as reason,
    letter.field, letter.detail, letter.sqlstate, letter.counted, letter.closed_at,
    letter.occurred_at, letter.id, letter.bytes,
    stream.name as stream, letter.epoch, letter.sequence, letter.index,
    lakegauge.at_ns(letter.broker_ns) as broker_at
from lakegauge.dead_letter as letter
join lakegauge.stream on stream.id = letter.stream;
comment on view api.dead_letter is
    'What could not be archived as an event, with its bytes and the reason. Open until closed_at.';

create view api.ledger with (security_invoker = true) as
select
    stream.name as stream, ledger.epoch, ledger.first, ledger.last, ledger.events, ledger.inserted,
    ledger.duplicates, ledger.dead, ledger.committed_at
from lakegauge.ledger
join lakegauge.stream on stream.id = ledger.stream;
comment on view api.ledger is
    'Which messages each transaction took: events = inserted + duplicates + dead.';

create view api.declared_loss with (security_invoker = true) as
select stream.name as stream, loss.epoch, loss.first, loss.last, loss.found_at
from lakegauge.declared_loss as loss
join lakegauge.stream on stream.id = loss.stream;
comment on view api.declared_loss is
    'Messages that the broker had deleted before they could be archived.';

create view api.checkpoint with (security_invoker = true) as
select
    stream.name as stream, checkpoint.epoch, checkpoint.sequence,
    lakegauge.at_ns(checkpoint.broker_ns) as broker_at, checkpoint.updated_at
from lakegauge.checkpoint
join lakegauge.stream on stream.id = checkpoint.stream;
comment on view api.checkpoint is 'Up to which message each stream is archived.';

-- Owners, row level security, policies, and rights, said for every object: the defaults of projects
-- differ and change.
do $$
declare
    relation record;
    people text[] := array['lakegauge_reader'];
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
        people := people || 'authenticated'::text;
    end if;

    for relation in
        select class.oid, class.relname as name, namespace.nspname as schema
        from pg_catalog.pg_class as class
        join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
        where namespace.nspname in ('lakegauge', 'api') and class.relkind in ('r', 'p', 'v')
    loop
        execute format('revoke all on %I.%I from public', relation.schema, relation.name);
        if exists (select from pg_catalog.pg_roles where rolname = 'anon') then
            execute format('revoke all on %I.%I from anon', relation.schema, relation.name);
        end if;
        if exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
            execute format('revoke all on %I.%I from authenticated', relation.schema, relation.name);
        end if;

        if relation.schema = 'api' then
            execute format('grant select on api.%I to lakegauge_archiver', relation.name);
            execute format('grant select on api.%I to %s', relation.name,
                array_to_string(people, ', '));
            continue;
        end if;

        execute format('alter table lakegauge.%I enable row level security', relation.name);
        execute format('create policy readers_read on lakegauge.%I for select to lakegauge_reader
            using (true)', relation.name);
        execute format('grant select on lakegauge.%I to lakegauge_reader', relation.name);
        if relation.name like '\_sqlx%' then
            -- Stays with the owner who migrates; services only look at the version.
            execute format('create policy archivers_read on lakegauge.%I for select
                to lakegauge_archiver using (true)', relation.name);
            execute format('grant select on lakegauge.%I to lakegauge_archiver', relation.name);
            continue;
        end if;
        execute format('alter table lakegauge.%I owner to lakegauge_archiver', relation.name);
    end loop;
end
$$;

-- What the views for people need of the tables: of checkpoints not the sets and the writer.
do $$
declare
    name text;
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
        return;
    end if;
    foreach name in array array['stream', 'lake_access', 'lake_inventory', 'warehouse_query',
        'lake_window', 'warehouse_window', 'sample', 'dead_letter', 'ledger', 'declared_loss']
    loop
        execute format('grant select on lakegauge.%I to authenticated', name);
        execute format('create policy people_read on lakegauge.%I for select to authenticated
            using (true)', name);
    end loop;
    grant select (stream, epoch, sequence, broker_ns, updated_at) on lakegauge.checkpoint
        to authenticated;
    create policy people_read on lakegauge.checkpoint for select to authenticated using (true);
end
$$;

revoke all on function
    lakegauge.operation_name(smallint), lakegauge.outcome_name(smallint),
    lakegauge.statement_name(smallint), lakegauge.reason_name(smallint), lakegauge.at_ns(bigint)
from public;
grant execute on function
    lakegauge.operation_name(smallint), lakegauge.outcome_name(smallint),
    lakegauge.statement_name(smallint), lakegauge.reason_name(smallint), lakegauge.at_ns(bigint)
to lakegauge_archiver, lakegauge_reader;
do $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
        grant execute on function
            lakegauge.operation_name(smallint), lakegauge.outcome_name(smallint),
            lakegauge.statement_name(smallint), lakegauge.reason_name(smallint),
            lakegauge.at_ns(bigint)
        to authenticated;
    end if;
end
$$;
