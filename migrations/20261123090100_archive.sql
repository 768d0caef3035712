-- The archive: every event once, in one table per kind, and how far each stream was archived.
--
-- Events are partitioned by their own time, because an event that comes twice then falls into the
-- same partition, where its key catches it. Partitions are made on demand by the archiver: days
-- from the day of installation on, calendar years before it. There is no default partition: it
-- would be scanned whenever another is attached.
--
-- Columns stand in the order of their alignment, eight bytes first: at hundreds of millions of rows
-- padding is what a disk is spent on.

create table lakegauge.installation (
    only_row boolean primary key default true check (only_row),
    installed_on date not null
);
comment on table lakegauge.installation is
    'The day (UTC) from which on partitions are days; before it they are years. Never changes.';
insert into lakegauge.installation (installed_on) values ((now() at time zone 'utc')::date);

create table lakegauge.stream (
    id smallint generated always as identity primary key,
    name text not null unique check (name <> '')
);
comment on table lakegauge.stream is 'Short numbers for the names of streams.';

create table lakegauge.lake_access (
    occurred_at timestamptz not null,
    sequence bigint not null,
    bytes bigint not null,
    object_bytes bigint,
    duration_us bigint not null,
    verdict bigint,
    noted_sequence bigint,
    epoch integer not null,
    index integer not null,
    noted_epoch integer,
    noted_index integer,
    stream smallint not null,
    operation smallint not null,
    outcome smallint not null,
    id uuid not null,
    derived boolean not null,
    bucket text not null,
    key text not null,
    sequencer text,
    principal text not null,
    primary key (occurred_at, id)
) partition by range (occurred_at);

create table lakegauge.lake_inventory (
    occurred_at timestamptz not null,
    sequence bigint not null,
    objects bigint not null,
    bytes bigint not null,
    verdict bigint,
    noted_sequence bigint,
    epoch integer not null,
    index integer not null,
    noted_epoch integer,
    noted_index integer,
    stream smallint not null,
    id uuid not null,
    derived boolean not null,
    bucket text not null,
    primary key (occurred_at, id)
) partition by range (occurred_at);

create table lakegauge.warehouse_query (
    occurred_at timestamptz not null,
    sequence bigint not null,
    queued_us bigint not null,
    executed_us bigint not null,
    rows_processed bigint not null,
    rows_returned bigint not null,
    bytes_scanned bigint not null,
    verdict bigint,
    noted_sequence bigint,
    epoch integer not null,
    index integer not null,
    noted_epoch integer,
    noted_index integer,
    stream smallint not null,
    statement smallint not null,
    outcome smallint not null,
    id uuid not null,
    derived boolean not null,
    cache_hit boolean not null,
    warehouse text not null,
    database text not null,
    principal text not null,
    fingerprint text not null,
    primary key (occurred_at, id)
) partition by range (occurred_at);

comment on table lakegauge.lake_access is
    'Requests to the object store. (occurred_at, id) is the identity given at the origin.';
comment on table lakegauge.lake_inventory is
    'What a bucket held at a time, by the store''s own count.';
comment on table lakegauge.warehouse_query is
    'Queries that finished. (occurred_at, id) is the identity given at the origin.';

-- The same three indexes for each kind. Sequences ascend with the pages of a partition, so a BRIN
-- index finds a range of them at no cost for the writer. The other two are partial: one reads back
-- the derived identities that the archiver judges by, one finds the events too old to judge.
do $$
declare
    kind text;
begin
    foreach kind in array array['lake_access', 'lake_inventory', 'warehouse_query'] loop
        execute format('create index %I on lakegauge.%I using brin (sequence)
            with (pages_per_range = 64, autosummarize = on)', kind || '_sequence', kind);
        execute format('create index %I on lakegauge.%I (stream, occurred_at, id)
            where derived', kind || '_derived', kind);
        execute format('create index %I on lakegauge.%I (stream, verdict)
            where verdict is not null', kind || '_verdict', kind);
        execute format('comment on column lakegauge.%I.verdict is %L', kind,
            'Number of its verdict, without gaps per stream: it was too old to judge, the key judged.');
        execute format('comment on column lakegauge.%I.noted_sequence is %L', kind,
            'Where the verdict was read back: the position at which the event is counted.');
    end loop;
end
$$;

create table lakegauge.dead_letter (
    number bigint generated always as identity primary key,
    sequence bigint not null,
    broker_ns bigint not null,
    occurred_at timestamptz,
    received_at timestamptz not null default now(),
    closed_at timestamptz,
    epoch integer not null,
    index integer not null,
    stream smallint not null references lakegauge.stream (id),
    reason smallint not null,
    counted boolean not null,
    id uuid,
    sqlstate text,
    field text,
    detail text not null,
    bytes bytea not null,
    unique (stream, sequence, index, broker_ns),
    -- A counted letter is an event that only the database refused: it has an identity.
    check (not counted or (id is not null and occurred_at is not null))
);
create index dead_letter_counted on lakegauge.dead_letter (stream, epoch, sequence, index)
    where counted and closed_at is null;
comment on table lakegauge.dead_letter is
    'What could not be archived as an event, with its bytes and the reason. Closed, never deleted.';

create table lakegauge.sample (
    broker_ns bigint not null,
    sequence bigint not null,
    used_bytes bigint,
    accesses bigint,
    queries_in_window bigint,
    response_us_in_window numeric,
    records numeric,
    epoch integer not null,
    stream smallint not null references lakegauge.stream (id),
    buckets jsonb,
    primary key (stream, epoch, sequence),
    check (num_nonnulls(used_bytes, accesses, buckets) in (0, 3)),
    check (num_nonnulls(queries_in_window, response_us_in_window, records) in (0, 3)),
    check (num_nonnulls(used_bytes, records) = 1)
);
comment on table lakegauge.sample is
    'What a stream''s metrics were after the message at a position. One position, one set of values.';
create index sample_broker_ns on lakegauge.sample (broker_ns);

create table lakegauge.ledger (
    stream smallint not null references lakegauge.stream (id),
    epoch integer not null,
    first bigint not null,
    last bigint not null,
    previous bigint,
    events bigint not null,
    inserted bigint not null,
    duplicates bigint not null,
    dead bigint not null,
    occurred_from timestamptz,
    occurred_to timestamptz,
    committed_at timestamptz not null default now(),
    primary key (stream, epoch, last),
    -- Ranges follow one another: each names the one before it, and only the first of an epoch may
    -- name none.
    unique nulls not distinct (stream, epoch, previous),
    foreign key (stream, epoch, previous) references lakegauge.ledger (stream, epoch, last),
    check (previous is null or first = previous + 1),
    check (first <= last),
    check (events = inserted + duplicates + dead),
    check (least(inserted, duplicates, dead) >= 0)
);
comment on table lakegauge.ledger is
    'One row a transaction: which messages it took and what became of their events.';
comment on column lakegauge.ledger.occurred_from is
    'Earliest time of the rows inserted, so that a reader visits only their partitions.';

create table lakegauge.declared_loss (
    stream smallint not null references lakegauge.stream (id),
    epoch integer not null,
    first bigint not null,
    last bigint not null,
    found_at timestamptz not null default now(),
    primary key (stream, epoch, first),
    check (first <= last)
);
comment on table lakegauge.declared_loss is
    'Messages that the broker said were deleted before they could be archived, and not by us.';

create table lakegauge.epoch (
    stream smallint not null references lakegauge.stream (id),
    epoch integer not null,
    sequence bigint not null,
    broker_ns bigint not null,
    created_ns bigint not null,
    closed_at timestamptz not null default now(),
    primary key (stream, epoch)
);
comment on table lakegauge.epoch is
    'Epochs that ended, at the position up to which they were archived.';

create table lakegauge.checkpoint (
    stream smallint primary key references lakegauge.stream (id),
    epoch integer not null check (epoch >= 0),
    sequence bigint not null check (sequence >= 0),
    broker_ns bigint not null,
    created_ns bigint not null,
    writer uuid not null,
    writer_transaction bigint not null,
    derived_floor_at timestamptz,
    derived_floor_id uuid,
    next_verdict bigint not null check (next_verdict >= 1),
    updated_at timestamptz not null default now(),
    seen bytea not null,
    check (num_nonnulls(derived_floor_at, derived_floor_id) in (0, 2))
) with (fillfactor = 50);
comment on table lakegauge.checkpoint is
    'Up to which message each stream is archived. Changes in the transaction of the rows, compared '
    'and set by writer and writer_transaction.';
-- The sequenced ids seen; rewritten by every transaction, and not worth the time to compress.
alter table lakegauge.checkpoint alter column seen set storage external;
