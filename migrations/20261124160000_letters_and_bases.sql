-- How a dead letter was closed, and what is needed to drop old partitions: the base that the archive
-- is folded from, and what was dropped.

alter table lakegauge.dead_letter
    add column closed_as smallint,
    add column attempts integer not null default 0,
    add column tried_at timestamptz,
    add column note text;
-- Nothing of ours closed a letter before; whoever did so by hand let it go.
update lakegauge.dead_letter set closed_as = 2 where closed_at is not null;
alter table lakegauge.dead_letter
    add check (closed_as in (0, 1, 2)),
    add check ((closed_at is null) = (closed_as is null)),
    -- Only what was counted may come in as a row, and such a letter is never published: it would
    -- be counted once more.
    add check (closed_as is distinct from 0 or counted),
    add check (closed_as is distinct from 1 or not counted),
    add check (attempts >= 0);
comment on column lakegauge.dead_letter.closed_as is
    '0: its row was inserted; 1: it was published again and acknowledged; 2: it was dropped.';
comment on column lakegauge.dead_letter.attempts is
    'How often it was retried. A letter that is published hashes it into the message id.';
comment on column lakegauge.dead_letter.tried_at is 'When it was retried last.';
comment on column lakegauge.dead_letter.note is 'Why it was closed, in somebody''s words.';

-- A counted letter that was dropped was counted all the same: only its row takes its place.
drop index lakegauge.dead_letter_counted;
create index dead_letter_counted on lakegauge.dead_letter (stream, epoch, sequence, index)
    where counted and closed_as is distinct from 0;
create index dead_letter_identity on lakegauge.dead_letter (occurred_at, id) where counted;
create index dead_letter_open on lakegauge.dead_letter (stream, reason) where closed_at is null;

create function lakegauge.closed_as_name(code smallint) returns text
language sql immutable parallel safe
return (array['row', 'published', 'dropped'])[code + 1];
comment on function lakegauge.closed_as_name is 'How a dead letter was closed.';
revoke all on function lakegauge.closed_as_name(smallint) from public;
grant execute on function lakegauge.closed_as_name(smallint)
to lakegauge_archiver, lakegauge_reader;

create table lakegauge.base (
    stream smallint primary key references lakegauge.stream (id),
    epoch integer not null,
    sequence bigint not null check (sequence > 0),
    broker_ns bigint not null,
    created_ns bigint not null,
    kept_from timestamptz not null,
    stored_at timestamptz not null default now(),
    digest text not null,
    state bytea not null
);
comment on table lakegauge.base is
    'The state that the archive of a stream is folded from, where old rows were dropped: the '
    'aggregator''s snapshot at a position. What was counted up to it is in it.';
comment on column lakegauge.base.kept_from is
    'Events before this time may be dropped: older than retention and a day at the position.';
-- Read and written as a whole, and not worth the time to compress.
alter table lakegauge.base alter column state set storage external;

create table lakegauge.dropped (
    stream smallint not null references lakegauge.stream (id),
    kind text not null check (kind in ('lake_access', 'lake_inventory', 'warehouse_query')),
    dropped_from timestamptz not null,
    dropped_to timestamptz not null,
    rows bigint not null check (rows >= 0),
    dropped_at timestamptz not null default now(),
    primary key (stream, kind, dropped_from),
    check (dropped_from < dropped_to)
);
comment on table lakegauge.dropped is
    'Which days of which kind were dropped by retention, and how many rows of each stream.';

create or replace view api.dead_letter with (security_invoker = true) as
select
    letter.number, letter.received_at, lakegauge.reason_name(letter.reason) as reason,
    letter.field, letter.detail, letter.sqlstate, letter.counted, letter.closed_at,
    letter.occurred_at, letter.id, letter.bytes,
    stream.name as stream, letter.epoch, letter.sequence, letter.index,
    lakegauge.at_ns(letter.broker_ns) as broker_at,
    lakegauge.closed_as_name(letter.closed_as) as closed_as, letter.attempts, letter.tried_at,
    letter.note
from lakegauge.dead_letter as letter
join lakegauge.stream on stream.id = letter.stream;

create view api.dropped with (security_invoker = true) as
select
    stream.name as stream, dropped.kind, dropped.dropped_from, dropped.dropped_to, dropped.rows,
    dropped.dropped_at
from lakegauge.dropped
join lakegauge.stream on stream.id = dropped.stream;
comment on view api.dropped is
    'Days that retention dropped. Their windows are kept, their rows are gone.';

do $$
declare
    name text;
begin
    foreach name in array array['base', 'dropped'] loop
        execute format('revoke all on lakegauge.%I from public', name);
        execute format('alter table lakegauge.%I enable row level security', name);
        execute format('create policy readers_read on lakegauge.%I for select to lakegauge_reader
            using (true)', name);
        execute format('grant select on lakegauge.%I to lakegauge_reader', name);
    end loop;
    revoke all on api.dropped from public;
    grant select on api.dropped to lakegauge_archiver, lakegauge_reader;

    if exists (select from pg_catalog.pg_roles where rolname = 'anon') then
        revoke all on lakegauge.base, lakegauge.dropped, api.dropped from anon;
        revoke all on function lakegauge.closed_as_name(smallint) from anon;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
        revoke all on lakegauge.base, lakegauge.dropped, api.dropped from authenticated;
        grant select on lakegauge.dropped, api.dropped to authenticated;
        create policy people_read on lakegauge.dropped for select to authenticated using (true);
        grant execute on function lakegauge.closed_as_name(smallint) to authenticated;
    end if;

    alter table lakegauge.base owner to lakegauge_archiver;
    alter table lakegauge.dropped owner to lakegauge_archiver;
end
$$;
