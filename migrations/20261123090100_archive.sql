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
    installed_on date not null,
    archive uuid not null
);
comment on table lakegauge.installation is
    'Lakegauge: the archive''s own name, and the day (UTC) from which on partitions are days; '
    'before it they are years. Never changes.';
insert into lakegauge.installation (installed_on, archive)
    values ((now() at time zone 'utc')::date, pg_catalog.gen_random_uuid());

create table lakegauge.pipeline (
    only_row boolean primary key default true check (only_row),
    id uuid not null,
    partitions integer not null check (partitions > 0),
    rules jsonb not null,
    named_at timestamptz not null default now()
);
comment on table lakegauge.pipeline is
    'Lakegauge: whose events the archive keeps, and the rules that they are judged by. Named by the '
    'first archiver; another only by `lakegauge adopt`.';

create table lakegauge.adoption (
    number bigint generated always as identity primary key,
    adopted_at timestamptz not null default now(),
    pipeline uuid not null,
    before uuid
);
comment on table lakegauge.adoption is
    'Lakegauge: when a person gave the archive another broker (`lakegauge adopt`): whose events it '
    'keeps from then on, and whose it kept before.';

create table lakegauge.stream (
    id smallint generated always as identity primary key,
    name text not null unique check (name <> '')
);
comment on table lakegauge.stream is 'Lakegauge: short numbers for the names of streams.';

create table lakegauge.source (
    stream smallint not null references lakegauge.stream (id),
    number smallint not null check (number > 0),
    name text not null,
    primary key (stream, number),
    unique (stream, name)
);
comment on table lakegauge.source is
    'Lakegauge: names of sources (the last part of the subject that an event or a letter came on) '
    'by the number that rows keep. Given by the writer of the stream, in the transaction of the '
    'first row that has it.';

-- What was reported wrongly is taken back by a row beside the one that it speaks of, which stays. A
-- row with a correction is no event of its own: 0 takes back the row (of_at, of_id); 1 lets the
-- change (of_at, of_id) decide about its object again, from the time of this row on. Rows without
-- one pay nothing for it: nulls have no bytes.
create table lakegauge.lake_access (
    occurred_at timestamptz not null,
    of_at timestamptz,
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
    source smallint,
    correction smallint,
    operation smallint not null,
    outcome smallint not null,
    id uuid not null,
    of_id uuid,
    derived boolean not null,
    bucket text not null,
    key text not null,
    sequencer text,
    principal text not null,
    primary key (occurred_at, id),
    check (correction is null and of_at is null and of_id is null
        or (correction in (0, 1) and of_at is not null and of_id is not null))
) partition by range (occurred_at);

create table lakegauge.lake_inventory (
    occurred_at timestamptz not null,
    of_at timestamptz,
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
    source smallint,
    correction smallint,
    id uuid not null,
    of_id uuid,
    derived boolean not null,
    bucket text not null,
    primary key (occurred_at, id),
    -- A later inventory takes the place of a wrong one by itself.
    check (correction is null and of_at is null and of_id is null)
) partition by range (occurred_at);

create table lakegauge.warehouse_query (
    occurred_at timestamptz not null,
    of_at timestamptz,
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
    source smallint,
    correction smallint,
    statement smallint not null,
    outcome smallint not null,
    id uuid not null,
    of_id uuid,
    derived boolean not null,
    cache_hit boolean not null,
    warehouse text not null,
    database text not null,
    principal text not null,
    fingerprint text not null,
    primary key (occurred_at, id),
    check (correction is null and of_at is null and of_id is null
        or (correction = 0 and of_at is not null and of_id is not null))
) partition by range (occurred_at);

comment on table lakegauge.lake_access is
    'Lakegauge: requests to the object store. (occurred_at, id) is the identity given at the '
    'origin.';
comment on table lakegauge.lake_inventory is
    'Lakegauge: what a bucket held at a time, by the store''s own count.';
comment on table lakegauge.warehouse_query is
    'Lakegauge: queries that finished. (occurred_at, id) is the identity given at the origin.';

-- The same five indexes for each kind. Sequences ascend with the pages of a partition, so a BRIN
-- index finds a range of them at no cost for the writer. The others are partial: one reads back the
-- derived identities that the archiver judges by, one finds the events too old to judge, and one
-- finds noted rows by their position for readers in counting order, where each page would visit
-- every row that was ever too old to judge; the last finds what corrects a row.
create index lake_access_sequence on lakegauge.lake_access using brin (sequence)
    with (pages_per_range = 64, autosummarize = on);
create index lake_access_derived on lakegauge.lake_access (stream, occurred_at, id) where derived;
create index lake_access_verdict on lakegauge.lake_access (stream, verdict)
    where verdict is not null;
create index lake_access_noted on lakegauge.lake_access (stream, noted_epoch, noted_sequence)
    where noted_sequence is not null;
comment on column lakegauge.lake_access.verdict is
    'Number of its verdict, without gaps per stream: it was too old to judge, the key judged.';
comment on column lakegauge.lake_access.noted_sequence is
    'Where the verdict was read back: the position at which the event is counted.';
create index lake_access_correction on lakegauge.lake_access (occurred_at, of_id)
    where correction is not null;
comment on column lakegauge.lake_access.source is 'Who sent it; see lakegauge.source.';
comment on column lakegauge.lake_access.correction is
    '0: the row (of_at, of_id) is withdrawn; 1: it decides about its object again; null: an event.';

create index lake_inventory_sequence on lakegauge.lake_inventory using brin (sequence)
    with (pages_per_range = 64, autosummarize = on);
create index lake_inventory_derived on lakegauge.lake_inventory (stream, occurred_at, id)
    where derived;
create index lake_inventory_verdict on lakegauge.lake_inventory (stream, verdict)
    where verdict is not null;
create index lake_inventory_noted on lakegauge.lake_inventory (stream, noted_epoch, noted_sequence)
    where noted_sequence is not null;
comment on column lakegauge.lake_inventory.verdict is
    'Number of its verdict, without gaps per stream: it was too old to judge, the key judged.';
comment on column lakegauge.lake_inventory.noted_sequence is
    'Where the verdict was read back: the position at which the event is counted.';
create index lake_inventory_correction on lakegauge.lake_inventory (occurred_at, of_id)
    where correction is not null;
comment on column lakegauge.lake_inventory.source is 'Who sent it; see lakegauge.source.';
comment on column lakegauge.lake_inventory.correction is
    '0: the row (of_at, of_id) is withdrawn; 1: it decides about its object again; null: an event.';

create index warehouse_query_sequence on lakegauge.warehouse_query using brin (sequence)
    with (pages_per_range = 64, autosummarize = on);
create index warehouse_query_derived on lakegauge.warehouse_query (stream, occurred_at, id)
    where derived;
create index warehouse_query_verdict on lakegauge.warehouse_query (stream, verdict)
    where verdict is not null;
create index warehouse_query_noted
    on lakegauge.warehouse_query (stream, noted_epoch, noted_sequence)
    where noted_sequence is not null;
comment on column lakegauge.warehouse_query.verdict is
    'Number of its verdict, without gaps per stream: it was too old to judge, the key judged.';
comment on column lakegauge.warehouse_query.noted_sequence is
    'Where the verdict was read back: the position at which the event is counted.';
create index warehouse_query_correction on lakegauge.warehouse_query (occurred_at, of_id)
    where correction is not null;
comment on column lakegauge.warehouse_query.source is 'Who sent it; see lakegauge.source.';
comment on column lakegauge.warehouse_query.correction is
    '0: the row (of_at, of_id) is withdrawn; 1: it decides about its object again; null: an event.';

create table lakegauge.dead_letter (
    number bigint generated always as identity primary key,
    sequence bigint not null,
    broker_ns bigint not null,
    occurred_at timestamptz,
    received_at timestamptz not null default now(),
    tried_at timestamptz,
    closed_at timestamptz,
    epoch integer not null,
    index integer not null,
    attempts integer not null default 0 check (attempts >= 0),
    stream smallint not null references lakegauge.stream (id),
    source smallint,
    reason smallint not null,
    closed_as smallint check (closed_as in (0, 1, 2)),
    counted boolean not null,
    id uuid,
    sqlstate text,
    field text,
    detail text not null,
    note text,
    bytes bytea not null,
    -- How many of them, at the beginning, are the header block of a message whose headers could not
    -- be read.
    header_bytes integer not null default 0,
    unique (stream, sequence, index, broker_ns),
    -- A counted letter is an event that only the database refused: it has an identity.
    check (not counted or (id is not null and occurred_at is not null)),
    check ((closed_at is null) = (closed_as is null)),
    -- Only what was counted may come in as a row, and such a letter is never published: it would
    -- be counted once more.
    check (closed_as is distinct from 0 or counted),
    check (closed_as is distinct from 1 or not counted)
);
-- A counted letter that was dropped was counted all the same: only its row takes its place.
create index dead_letter_counted on lakegauge.dead_letter (stream, epoch, sequence, index)
    where counted and closed_as is distinct from 0;
create index dead_letter_identity on lakegauge.dead_letter (occurred_at, id) where counted;
create index dead_letter_open on lakegauge.dead_letter (stream, reason) where closed_at is null;
comment on table lakegauge.dead_letter is
    'Lakegauge: what could not be archived as an event, with its bytes and the reason. Closed, '
    'never deleted.';
comment on column lakegauge.dead_letter.source is 'Who sent it; see lakegauge.source.';
comment on column lakegauge.dead_letter.closed_as is
    '0: its row was inserted; 1: it was published again and acknowledged; 2: it was dropped.';
comment on column lakegauge.dead_letter.attempts is
    'How often it was retried. A letter that is published hashes it into the message id.';
comment on column lakegauge.dead_letter.tried_at is 'When it was retried last.';
comment on column lakegauge.dead_letter.note is 'Why it was closed, in somebody''s words.';

create table lakegauge.withdrawal (
    number bigint generated always as identity primary key,
    occurred_from timestamptz,
    occurred_to timestamptz,
    requested_at timestamptz not null default now(),
    finished_at timestamptz,
    events bigint check (events >= 0),
    source text not null,
    reason text not null
);
comment on table lakegauge.withdrawal is
    'Lakegauge: which sources were withdrawn, by whom it was asked why. What was withdrawn are rows '
    'with a correction.';

create table lakegauge.sample (
    broker_ns bigint not null,
    sequence bigint not null,
    accesses bigint,
    queries_in_window bigint,
    used_bytes numeric,
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
    'Lakegauge: what a stream''s metrics were after the message at a position. One position, one '
    'set of values.';
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
    'Lakegauge: one row a transaction: which messages it took and what became of their events.';
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
    'Lakegauge: messages that the broker said were deleted before they could be archived, and not '
    'by us.';

create table lakegauge.epoch (
    stream smallint not null references lakegauge.stream (id),
    epoch integer not null,
    sequence bigint not null,
    broker_ns bigint not null,
    created_ns bigint not null,
    next_after bigint not null default 0 check (next_after >= 0),
    closed_at timestamptz not null default now(),
    primary key (stream, epoch)
);
comment on table lakegauge.epoch is
    'Lakegauge: epochs that ended, at the position up to which they were archived.';
-- A purged stream goes on counting, so that its new epoch does not begin at 1. The ledger alone
-- could not tell that from ranges that are gone.
comment on column lakegauge.epoch.next_after is
    'The sequence before the first message of the next epoch.';

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
    noted_verdict bigint not null default 0,
    updated_at timestamptz not null default now(),
    seen bytea not null,
    check (num_nonnulls(derived_floor_at, derived_floor_id) in (0, 2)),
    check (noted_verdict >= 0 and noted_verdict < next_verdict)
) with (fillfactor = 50);
comment on table lakegauge.checkpoint is
    'Lakegauge: up to which message each stream is archived. Changes in the transaction of the '
    'rows, compared and set by writer and writer_transaction.';
-- The sequenced ids seen; rewritten by every transaction, and not worth the time to compress.
alter table lakegauge.checkpoint alter column seen set storage external;
comment on column lakegauge.checkpoint.next_verdict is
    'The number that the next event too old to judge gets; from 1, without gaps.';
-- It moves with the checkpoint, in the transaction that notes the positions on the rows, so that a
-- writer that lost its stream unknowingly can't note one either.
comment on column lakegauge.checkpoint.noted_verdict is
    'Up to which number verdicts were published, read back, and noted on their rows. What is '
    'between it and next_verdict is on its way.';

-- What is needed to drop old partitions: the base that the archive is folded from, and what was
-- dropped.

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
    'Lakegauge: the state that the archive of a stream is folded from, where old rows were '
    'dropped: the aggregator''s snapshot at a position. What was counted up to it is in it.';
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
    'Lakegauge: which days of which kind were dropped by retention, and how many rows of each '
    'stream.';
