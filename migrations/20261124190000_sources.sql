-- Who sent what: the last part of the subject that an event or a letter came on, by a short number of
-- its stream. Rows from before have none.

create table lakegauge.source (
    stream smallint not null references lakegauge.stream (id),
    number smallint not null check (number > 0),
    name text not null,
    primary key (stream, number),
    unique (stream, name)
);
comment on table lakegauge.source is
    'Names of sources by the number that rows keep. Given by the writer of the stream, in the '
    'transaction of the first row that has it.';

alter table lakegauge.lake_access add column source smallint;
alter table lakegauge.lake_inventory add column source smallint;
alter table lakegauge.warehouse_query add column source smallint;
alter table lakegauge.dead_letter add column source smallint;
comment on column lakegauge.lake_access.source is 'Who sent it; see lakegauge.source.';
comment on column lakegauge.lake_inventory.source is 'Who sent it; see lakegauge.source.';
comment on column lakegauge.warehouse_query.source is 'Who sent it; see lakegauge.source.';
comment on column lakegauge.dead_letter.source is 'Who sent it; see lakegauge.source.';

create or replace view api.lake_access with (security_invoker = true) as
select
    event.occurred_at, event.id, event.bucket, event.key,
    lakegauge.operation_name(event.operation) as operation,
    lakegauge.outcome_name(event.outcome) as outcome,
    event.bytes, event.object_bytes, event.duration_us, event.principal, event.sequencer,
    stream.name as stream, event.epoch, event.sequence, event.index,
    event.verdict is not null as late, source.name as source
from lakegauge.lake_access as event
join lakegauge.stream on stream.id = event.stream
left join lakegauge.source on source.stream = event.stream and source.number = event.source;

create or replace view api.lake_inventory with (security_invoker = true) as
select
    event.occurred_at as as_of, event.id, event.bucket, event.objects, event.bytes,
    stream.name as stream, event.epoch, event.sequence, event.index,
    event.verdict is not null as late, source.name as source
from lakegauge.lake_inventory as event
join lakegauge.stream on stream.id = event.stream
left join lakegauge.source on source.stream = event.stream and source.number = event.source;

create or replace view api.warehouse_query with (security_invoker = true) as
select
    event.occurred_at, event.id, event.warehouse, event.database,
    lakegauge.statement_name(event.statement) as statement,
    lakegauge.outcome_name(event.outcome) as outcome,
    event.queued_us, event.executed_us, event.rows_processed, event.rows_returned,
    event.bytes_scanned, event.cache_hit, event.principal, event.fingerprint,
    stream.name as stream, event.epoch, event.sequence, event.index,
    event.verdict is not null as late, source.name as source
from lakegauge.warehouse_query as event
join lakegauge.stream on stream.id = event.stream
left join lakegauge.source on source.stream = event.stream and source.number = event.source;

create or replace view api.dead_letter with (security_invoker = true) as
select
    letter.number, letter.received_at, lakegauge.reason_name(letter.reason) as reason,
    letter.field, letter.detail, letter.sqlstate, letter.counted, letter.closed_at,
    letter.occurred_at, letter.id, letter.bytes,
    stream.name as stream, letter.epoch, letter.sequence, letter.index,
    lakegauge.at_ns(letter.broker_ns) as broker_at,
    lakegauge.closed_as_name(letter.closed_as) as closed_as, letter.attempts, letter.tried_at,
    letter.note, source.name as source
from lakegauge.dead_letter as letter
join lakegauge.stream on stream.id = letter.stream
left join lakegauge.source on source.stream = letter.stream and source.number = letter.source;

revoke all on lakegauge.source from public;
alter table lakegauge.source enable row level security;
create policy readers_read on lakegauge.source for select to lakegauge_reader using (true);
grant select on lakegauge.source to lakegauge_reader;
do $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'anon') then
        revoke all on lakegauge.source from anon;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
        revoke all on lakegauge.source from authenticated;
        grant select on lakegauge.source to authenticated;
        create policy people_read on lakegauge.source for select to authenticated using (true);
    end if;
    alter table lakegauge.source owner to lakegauge_archiver;
end
$$;
