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
    'refused_by_database', 'unreadable_headers', 'nothing_to_correct'])[code + 1];

create function lakegauge.closed_as_name(code smallint) returns text
language sql immutable parallel safe
return (array['row', 'published', 'dropped'])[code + 1];

create function lakegauge.at_ns(ns bigint) returns timestamptz
language sql immutable parallel safe
return timestamptz '1970-01-01 00:00:00+00' + (ns / 1000) * interval '1 microsecond';

comment on function lakegauge.operation_name is 'Lakegauge: name of a lake operation.';
comment on function lakegauge.outcome_name is 'Lakegauge: name of an outcome.';
comment on function lakegauge.statement_name is 'Lakegauge: name of a kind of statement.';
comment on function lakegauge.reason_name is 'Lakegauge: name of the reason of a dead letter.';
comment on function lakegauge.closed_as_name is 'Lakegauge: how a dead letter was closed.';
comment on function lakegauge.at_ns is 'Lakegauge: a moment from nanoseconds since 1970.';

create view lakegauge_api.lake_access with (security_invoker = true) as
select
    event.occurred_at, event.id, event.bucket, event.key,
    lakegauge.operation_name(event.operation) as operation,
    lakegauge.outcome_name(event.outcome) as outcome,
    event.bytes, event.object_bytes, event.duration_us, event.principal, event.sequencer,
    stream.name as stream, event.epoch, event.sequence, event.index,
    event.verdict is not null as late, source.name as source,
    exists (
        select from lakegauge.lake_access as correction
        where correction.occurred_at = event.occurred_at and correction.of_id = event.id
            and correction.correction = 0
    ) as withdrawn
from lakegauge.lake_access as event
join lakegauge.stream on stream.id = event.stream
left join lakegauge.source on source.stream = event.stream and source.number = event.source
where event.correction is null;
comment on view lakegauge_api.lake_access is
    'Lakegauge: requests to the object store, each once. Times in UTC, sizes in bytes, durations '
    'in microseconds.';

create view lakegauge_api.lake_inventory with (security_invoker = true) as
select
    event.occurred_at as as_of, event.id, event.bucket, event.objects, event.bytes,
    stream.name as stream, event.epoch, event.sequence, event.index,
    event.verdict is not null as late, source.name as source
from lakegauge.lake_inventory as event
join lakegauge.stream on stream.id = event.stream
left join lakegauge.source on source.stream = event.stream and source.number = event.source;
comment on view lakegauge_api.lake_inventory is
    'Lakegauge: what a bucket held at a time, by the store''s own count.';

create view lakegauge_api.warehouse_query with (security_invoker = true) as
select
    event.occurred_at, event.id, event.warehouse, event.database,
    lakegauge.statement_name(event.statement) as statement,
    lakegauge.outcome_name(event.outcome) as outcome,
    event.queued_us, event.executed_us, event.rows_processed, event.rows_returned,
    event.bytes_scanned, event.cache_hit, event.principal, event.fingerprint,
    stream.name as stream, event.epoch, event.sequence, event.index,
    event.verdict is not null as late, source.name as source,
    exists (
        select from lakegauge.warehouse_query as correction
        where correction.occurred_at = event.occurred_at and correction.of_id = event.id
            and correction.correction = 0
    ) as withdrawn
from lakegauge.warehouse_query as event
join lakegauge.stream on stream.id = event.stream
left join lakegauge.source on source.stream = event.stream and source.number = event.source
where event.correction is null;
comment on view lakegauge_api.warehouse_query is
    'Lakegauge: queries that finished, each once. Response time is queued_us + executed_us.';

create view lakegauge_api.correction with (security_invoker = true) as
select
    known.occurred_at, known.id,
    (array['withdrawn', 'restored'])[known.correction + 1] as correction,
    known.of_at, known.of_id, known.bucket, known.key, known.warehouse,
    stream.name as stream, known.epoch, known.sequence, known.index,
    known.noted_sequence is not null as counted
from (
    select event.occurred_at, event.id, event.correction, event.of_at, event.of_id, event.bucket,
        event.key, null::text as warehouse, event.stream, event.epoch, event.sequence,
        event.index, event.noted_sequence
    from lakegauge.lake_access as event where event.correction is not null
    union all
    select event.occurred_at, event.id, event.correction, event.of_at, event.of_id, null, null,
        event.warehouse, event.stream, event.epoch, event.sequence, event.index,
        event.noted_sequence
    from lakegauge.warehouse_query as event where event.correction is not null
) as known
join lakegauge.stream on stream.id = known.stream;
comment on view lakegauge_api.correction is
    'Lakegauge: what takes back events that were reported wrongly, each once.';

create view lakegauge_api.withdrawal with (security_invoker = true) as
select
    known.number, known.source, known.occurred_from, known.occurred_to, known.reason,
    known.requested_at, known.finished_at, known.events
from lakegauge.withdrawal as known
-- Nobody writes by a view.
offset 0;
comment on view lakegauge_api.withdrawal is
    'Lakegauge: which sources were withdrawn by lakegauge withdraw, when and why.';

create view lakegauge_api.lake_window with (security_invoker = true) as
select
    known.window_start, known.length_s, series.name as bucket,
    lakegauge.operation_name(series.action) as operation,
    lakegauge.outcome_name(series.outcome) as outcome,
    known.events, known.bytes, known.duration_us,
    nullif(lakegauge.bucket_value(known.bucket_max), 0) as duration_us_max,
    lakegauge.known_durations(
        lakegauge.window_sketch(known.bucket_max, known.events, known.sketch)) as sketch,
    stream.name as stream
from lakegauge.lake_window as known
join lakegauge.window_series as series on series.id = known.series
join lakegauge.stream on stream.id = series.stream;
comment on view lakegauge_api.lake_window is
    'Lakegauge: requests per window of event time, bucket, operation, outcome and stream. Every '
    'event stands in a window of each length: choose one length_s, by '
    'lakegauge_api.window_length_s(from, to). A percentile over any of them: '
    'lakegauge_api.sketch_percentile(lakegauge_api.sketch_sum(sketch), 0.95). A late event changes '
    'its windows.';

create view lakegauge_api.warehouse_window with (security_invoker = true) as
select
    known.window_start, known.length_s, series.name as warehouse,
    lakegauge.statement_name(series.action) as statement,
    lakegauge.outcome_name(series.outcome) as outcome,
    known.events, known.bytes_scanned, known.rows_processed, known.response_us, known.cache_hits,
    lakegauge.bucket_value(known.bucket_max) as response_us_max,
    lakegauge.window_sketch(known.bucket_max, known.events, known.sketch) as sketch,
    stream.name as stream
from lakegauge.warehouse_window as known
join lakegauge.window_series as series on series.id = known.series
join lakegauge.stream on stream.id = series.stream;
comment on view lakegauge_api.warehouse_window is
    'Lakegauge: queries per window of event time, warehouse, statement, outcome and stream. Every '
    'event stands in a window of each length: choose one length_s, by '
    'lakegauge_api.window_length_s(from, to). A percentile over any of them: '
    'lakegauge_api.sketch_percentile(lakegauge_api.sketch_sum(sketch), 0.95). A late event changes '
    'its windows.';

create view lakegauge_api.window_length with (security_invoker = true) as
select stream.name as stream, kept.length_s, kept.kept_from
from lakegauge.window_kept as kept
join lakegauge.stream on stream.id = kept.stream;
comment on view lakegauge_api.window_length is
    'Lakegauge: the lengths of windows of each stream, and the time from which on they are kept; '
    'null: from the first event.';

create view lakegauge_api.sample with (security_invoker = true) as
select
    lakegauge.at_ns(sample.broker_ns) as at, stream.name as stream,
    sample.used_bytes, sample.accesses, sample.buckets,
    sample.queries_in_window, sample.response_us_in_window, sample.records,
    sample.epoch, sample.sequence
from lakegauge.sample
join lakegauge.stream on stream.id = sample.stream;
comment on view lakegauge_api.sample is
    'Lakegauge: what the metrics were, about every ten seconds of the broker''s time: used bytes '
    'in all and per bucket, accesses; queries and response time of the 60 s before, rows '
    'processed.';

create view lakegauge_api.dead_letter with (security_invoker = true) as
select
    letter.number, letter.received_at, lakegauge.reason_name(letter.reason) as reason,
    letter.field, letter.detail, letter.sqlstate, letter.counted, letter.closed_at,
    letter.occurred_at, letter.id, letter.bytes, letter.header_bytes,
    stream.name as stream, letter.epoch, letter.sequence, letter.index,
    lakegauge.at_ns(letter.broker_ns) as broker_at,
    lakegauge.closed_as_name(letter.closed_as) as closed_as, letter.attempts, letter.tried_at,
    letter.note, source.name as source
from lakegauge.dead_letter as letter
join lakegauge.stream on stream.id = letter.stream
left join lakegauge.source on source.stream = letter.stream and source.number = letter.source;
comment on view lakegauge_api.dead_letter is
    'Lakegauge: what could not be archived as an event, with its bytes and the reason. Open until '
    'closed_at.';

create view lakegauge_api.ledger with (security_invoker = true) as
select
    stream.name as stream, ledger.epoch, ledger.first, ledger.last, ledger.events, ledger.inserted,
    ledger.duplicates, ledger.dead, ledger.committed_at
from lakegauge.ledger
join lakegauge.stream on stream.id = ledger.stream;
comment on view lakegauge_api.ledger is
    'Lakegauge: which messages each transaction took: events = inserted + duplicates + dead.';

create view lakegauge_api.declared_loss with (security_invoker = true) as
select stream.name as stream, loss.epoch, loss.first, loss.last, loss.found_at
from lakegauge.declared_loss as loss
join lakegauge.stream on stream.id = loss.stream;
comment on view lakegauge_api.declared_loss is
    'Lakegauge: messages that the broker had deleted before they could be archived.';

create view lakegauge_api.dropped with (security_invoker = true) as
select
    stream.name as stream, dropped.kind, dropped.dropped_from, dropped.dropped_to, dropped.rows,
    dropped.dropped_at
from lakegauge.dropped
join lakegauge.stream on stream.id = dropped.stream;
comment on view lakegauge_api.dropped is
    'Lakegauge: days that retention dropped. Their windows are kept, their rows are gone.';

create view lakegauge_api.checkpoint with (security_invoker = true) as
select
    stream.name as stream, checkpoint.epoch, checkpoint.sequence,
    lakegauge.at_ns(checkpoint.broker_ns) as broker_at, checkpoint.updated_at
from lakegauge.checkpoint
join lakegauge.stream on stream.id = checkpoint.stream;
comment on view lakegauge_api.checkpoint is
    'Lakegauge: up to which message each stream is archived.';

-- Owners, row level security, policies and rights, said for every object.
do $$
declare
    name text;
    tables text[] := array['installation', 'pipeline', 'adoption', 'stream', 'source',
        'lake_access', 'lake_inventory', 'warehouse_query', 'dead_letter', 'withdrawal',
        'sample', 'ledger', 'declared_loss', 'epoch',
        'checkpoint', 'base', 'dropped', 'window_series', 'window_kept', 'lake_window',
        'warehouse_window'];
    -- The list of migrations stays with the owner who migrates; services only look at the version.
    migrations constant text := 'migration';
    sequence regclass;
begin
    foreach name in array tables || migrations loop
        perform lakegauge.keep_private(format('lakegauge.%I', name)::regclass);
        execute format('alter table lakegauge.%I enable row level security', name);
        execute format('create policy readers_read on lakegauge.%I for select to lakegauge_reader
            using (true)', name);
        execute format('grant select on lakegauge.%I to lakegauge_reader', name);
    end loop;
    execute format('create policy archivers_read on lakegauge.%I for select to lakegauge_archiver
        using (true)', migrations);
    execute format('grant select on lakegauge.%I to lakegauge_archiver', migrations);

    foreach name in array array['lakegauge.stream', 'lakegauge.window_series',
        'lakegauge.dead_letter', 'lakegauge.adoption', 'lakegauge.withdrawal']
    loop
        sequence := pg_get_serial_sequence(name,
            case when name in ('lakegauge.stream', 'lakegauge.window_series') then 'id'
                else 'number' end);
        perform lakegauge.keep_private(sequence);
    end loop;
    foreach name in array tables loop
        execute format('alter table lakegauge.%I owner to lakegauge_archiver', name);
    end loop;
end
$$;

-- What people and programs read, and what the views need for it: of checkpoints not the sets and
-- the writer. service_role passes row level security today; its policies are for the day on which a
-- project's does not.
do $$
declare
    name text;
    person text;
    views text[] := array['lake_access', 'lake_inventory', 'warehouse_query', 'lake_window',
        'warehouse_window', 'window_length', 'sample', 'dead_letter', 'correction', 'withdrawal',
        'ledger', 'declared_loss', 'dropped', 'checkpoint'];
    behind text[] := array['stream', 'source', 'lake_access', 'lake_inventory', 'warehouse_query',
        'window_series', 'window_kept', 'lake_window', 'warehouse_window', 'sample', 'dead_letter',
        'withdrawal', 'ledger', 'declared_loss', 'dropped'];
begin
    foreach name in array views loop
        perform lakegauge.keep_private(format('lakegauge_api.%I', name)::regclass);
        execute format('grant select on lakegauge_api.%I to lakegauge_archiver, lakegauge_reader',
            name);
    end loop;

    foreach person in array array['authenticated', 'service_role'] loop
        continue when not exists (select from pg_catalog.pg_roles where rolname = person);
        foreach name in array views loop
            execute format('grant select on lakegauge_api.%I to %I', name, person);
        end loop;
        foreach name in array behind loop
            execute format('grant select on lakegauge.%I to %I', name, person);
        end loop;
        execute format('grant select (stream, epoch, sequence, broker_ns, updated_at)
            on lakegauge.checkpoint to %I', person);
        foreach name in array behind || 'checkpoint'::text loop
            execute format('create policy %I on lakegauge.%I for select to %I using (true)',
                person || '_reads', name, person);
        end loop;
    end loop;
end
$$;

do $$
declare
    signature text;
    person text;
begin
    foreach signature in array array[
        'lakegauge.operation_name(smallint)', 'lakegauge.outcome_name(smallint)',
        'lakegauge.statement_name(smallint)', 'lakegauge.reason_name(smallint)',
        'lakegauge.closed_as_name(smallint)', 'lakegauge.at_ns(bigint)']
    loop
        perform lakegauge.keep_private(signature::regprocedure);
        foreach person in array array['lakegauge_archiver', 'lakegauge_reader', 'authenticated',
            'service_role']
        loop
            if exists (select from pg_catalog.pg_roles where rolname = person) then
                execute format('grant execute on function %s to %I', signature, person);
            end if;
        end loop;
    end loop;
end
$$;
