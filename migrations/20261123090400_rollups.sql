-- Rollups: what the rows add up to by day, and what is known of each key. For the questions that
-- windows can't answer, because they know neither principals nor patterns of queries nor keys.
--
-- They follow the rows by the ledger, up to a minute behind, on a connection of their own: the
-- transaction of the rows pays nothing for them. What a step adds and how far it went is one
-- transaction, so that every row is added once. They stay when retention drops the rows.

create table lakegauge.rolled_up (
    stream smallint not null references lakegauge.stream (id),
    part text not null check (part in ('days', 'keys')),
    epoch integer not null default 0,
    sequence bigint not null default 0,
    rolled_at timestamptz not null default now(),
    forgotten_to timestamptz,
    primary key (stream, part)
);
comment on table lakegauge.rolled_up is
    'Lakegauge: up to which message the rollups of a stream have added the rows: by day, and by '
    'key.';

-- A deleted key is kept so that an older write, which comes late, does not bring the key back. What is
-- older than retention is refused as a dead letter, so that no such write comes any more; one that
-- still comes to a key that is not known, as from an older copy of a stream, changes nothing.
comment on column lakegauge.rolled_up.forgotten_to is
    'Of part keys: keys that were deleted before this, or read last and never changed, are forgotten '
    'with the rows of their time; null: none.';

create table lakegauge.lake_day (
    events bigint not null,
    day date not null,
    stream smallint not null,
    operation smallint not null,
    outcome smallint not null,
    bucket text not null,
    principal text not null,
    bytes numeric not null,
    duration_us numeric not null,
    primary key (day, bucket, principal, operation, outcome, stream)
);
comment on table lakegauge.lake_day is
    'Lakegauge: requests per day (UTC) of event time, bucket, principal, operation and outcome.';

create table lakegauge.warehouse_day (
    events bigint not null,
    day date not null,
    stream smallint not null,
    outcome smallint not null,
    warehouse text not null,
    principal text not null,
    bytes_scanned numeric not null,
    queued_us numeric not null,
    executed_us numeric not null,
    rows_processed numeric not null,
    primary key (day, warehouse, principal, outcome, stream)
);
comment on table lakegauge.warehouse_day is
    'Lakegauge: queries per day (UTC) of event time, warehouse, principal and outcome.';

create table lakegauge.pattern_day (
    events bigint not null,
    failures bigint not null,
    response_us_max bigint not null,
    day date not null,
    stream smallint not null,
    statement smallint not null,
    warehouse text not null,
    fingerprint text not null,
    bytes_scanned numeric not null,
    queued_us numeric not null,
    executed_us numeric not null,
    primary key (day, fingerprint, warehouse, statement, stream)
);
comment on table lakegauge.pattern_day is
    'Lakegauge: queries per day (UTC) of event time, fingerprint, warehouse and kind of statement.';

create table lakegauge.lake_object (
    changed_at timestamptz,
    read_at timestamptz,
    bytes bigint,
    change_id uuid,
    stream smallint not null,
    change smallint,
    bucket text not null,
    key text not null,
    sequencer text,
    changed_by text,
    primary key (bucket, key, stream),
    check (num_nonnulls(changed_at, change_id, change, changed_by) in (0, 4)),
    -- Only what is stored has a size.
    check ((bytes is null) = (change is null or change = 5))
);
comment on table lakegauge.lake_object is
    'Lakegauge: each key that was written, deleted or read: the change that decides, and the last '
    'read, within an hour.';

create table lakegauge.lake_growth (
    day date not null,
    stream smallint not null,
    bucket text not null,
    bytes numeric not null,
    objects bigint not null,
    primary key (day, bucket, stream)
);
comment on table lakegauge.lake_growth is
    'Lakegauge: by how many bytes and objects each bucket grew per day (UTC) of event time.';

-- Which rows have a key: for each 32 pages of rows (about 1,700) a Bloom filter of their keys, that
-- one time in a hundred says yes for a key that is not there. Nothing is written for it when rows
-- come in; autovacuum makes the filters afterwards.
create index lake_access_key on lakegauge.lake_access
    using brin (key text_bloom_ops (n_distinct_per_range = 1700, false_positive_rate = 0.01))
    with (pages_per_range = 32, autosummarize = on);

-- Adds the rows of a range of messages to the days, without what corrections take back; with an index
-- only that row of a message. A day on which nothing is left has no row.
create function lakegauge.roll_up_days(
    of_stream smallint, of_epoch integer, first bigint, last bigint,
    occurred_from timestamptz, occurred_to timestamptz, only_index integer default null
) returns void
-- How many rows a range of messages has, the planner can't know: it would sort them on disk.
language sql
set work_mem = '64MB' set enable_sort = off set jit = off
begin atomic
    insert into lakegauge.lake_day as known (day, bucket, principal, operation, outcome, stream,
        events, bytes, duration_us)
    select (event.occurred_at at time zone 'utc')::date as day, event.bucket, event.principal,
        event.operation, event.outcome, of_stream,
        sum(counted.sign), sum(counted.sign * event.bytes), sum(counted.sign * event.duration_us)
    from lakegauge.lake_access as event
    cross join lateral (select case when event.correction is null then 1 else -1 end)
        as counted (sign)
    where event.stream = of_stream and event.epoch = of_epoch
        and event.sequence between first and last
        and event.occurred_at between occurred_from and occurred_to
        and event.correction is distinct from 1
        and (only_index is null or event.index = only_index)
    group by 1, 2, 3, 4, 5
    on conflict (day, bucket, principal, operation, outcome, stream) do update set
        events = known.events + excluded.events, bytes = known.bytes + excluded.bytes,
        duration_us = known.duration_us + excluded.duration_us;

    insert into lakegauge.warehouse_day as known (day, warehouse, principal, outcome, stream,
        events, bytes_scanned, queued_us, executed_us, rows_processed)
    select (event.occurred_at at time zone 'utc')::date as day, event.warehouse, event.principal,
        event.outcome, of_stream,
        sum(counted.sign),
        sum(counted.sign * event.bytes_scanned),
        sum(counted.sign * event.queued_us),
        sum(counted.sign * event.executed_us),
        sum(counted.sign * event.rows_processed)
    from lakegauge.warehouse_query as event
    cross join lateral (select case when event.correction is null then 1 else -1 end)
        as counted (sign)
    where event.stream = of_stream and event.epoch = of_epoch
        and event.sequence between first and last
        and event.occurred_at between occurred_from and occurred_to
        and (only_index is null or event.index = only_index)
    group by 1, 2, 3, 4
    on conflict (day, warehouse, principal, outcome, stream) do update set
        events = known.events + excluded.events,
        bytes_scanned = known.bytes_scanned + excluded.bytes_scanned,
        queued_us = known.queued_us + excluded.queued_us,
        executed_us = known.executed_us + excluded.executed_us,
        rows_processed = known.rows_processed + excluded.rows_processed;

    -- A maximum can't be taken back: it stays as long as anything is left of the day.
    insert into lakegauge.pattern_day as known (day, fingerprint, warehouse, statement, stream,
        events, failures, response_us_max, bytes_scanned, queued_us, executed_us)
    select (event.occurred_at at time zone 'utc')::date as day, event.fingerprint, event.warehouse,
        event.statement, of_stream,
        sum(counted.sign),
        coalesce(sum(counted.sign) filter (where event.outcome <> 0), 0),
        max(event.queued_us + event.executed_us),
        sum(counted.sign * event.bytes_scanned),
        sum(counted.sign * event.queued_us),
        sum(counted.sign * event.executed_us)
    from lakegauge.warehouse_query as event
    cross join lateral (select case when event.correction is null then 1 else -1 end)
        as counted (sign)
    where event.stream = of_stream and event.epoch = of_epoch
        and event.sequence between first and last
        and event.occurred_at between occurred_from and occurred_to
        and (only_index is null or event.index = only_index)
    group by 1, 2, 3, 4
    on conflict (day, fingerprint, warehouse, statement, stream) do update set
        events = known.events + excluded.events, failures = known.failures + excluded.failures,
        response_us_max = greatest(known.response_us_max, excluded.response_us_max),
        bytes_scanned = known.bytes_scanned + excluded.bytes_scanned,
        queued_us = known.queued_us + excluded.queued_us,
        executed_us = known.executed_us + excluded.executed_us;

    delete from lakegauge.lake_day as known using (
        select distinct (event.occurred_at at time zone 'utc')::date as day, event.bucket
        from lakegauge.lake_access as event
        where event.stream = of_stream and event.epoch = of_epoch
            and event.sequence between first and last
            and event.occurred_at between occurred_from and occurred_to
            and event.correction = 0
    ) as touched
    where known.day = touched.day and known.bucket = touched.bucket and known.stream = of_stream
        and known.events = 0;
    delete from lakegauge.warehouse_day as known using (
        select distinct (event.occurred_at at time zone 'utc')::date as day, event.warehouse
        from lakegauge.warehouse_query as event
        where event.stream = of_stream and event.epoch = of_epoch
            and event.sequence between first and last
            and event.occurred_at between occurred_from and occurred_to
            and event.correction = 0
    ) as touched
    where known.day = touched.day and known.warehouse = touched.warehouse
        and known.stream = of_stream and known.events = 0;
    delete from lakegauge.pattern_day as known using (
        select distinct (event.occurred_at at time zone 'utc')::date as day, event.fingerprint
        from lakegauge.warehouse_query as event
        where event.stream = of_stream and event.epoch = of_epoch
            and event.sequence between first and last
            and event.occurred_at between occurred_from and occurred_to
            and event.correction = 0
    ) as touched
    where known.day = touched.day and known.fingerprint = touched.fingerprint
        and known.stream = of_stream and known.events = 0;
end;
comment on function lakegauge.roll_up_days is 'Lakegauge: adds rows to their days.';

-- What corrections of a range of messages change in what is known of keys. The bytes count for the
-- day of the change that is withdrawn.
create function lakegauge.roll_up_corrected_keys(
    of_stream smallint, of_epoch integer, first bigint, last bigint,
    occurred_from timestamptz, occurred_to timestamptz, only_index integer
) returns void
language sql
set work_mem = '64MB' set enable_seqscan = off set jit = off
begin atomic
    with gone as (
        update lakegauge.lake_object as object set changed_at = null, bytes = null,
            change_id = null, change = null, sequencer = null, changed_by = null
        from lakegauge.lake_access as event
        where event.stream = of_stream and event.epoch = of_epoch
            and event.sequence between first and last
            and event.occurred_at between occurred_from and occurred_to
            and event.correction = 0 and (only_index is null or event.index = only_index)
            and object.bucket = event.bucket and object.key = event.key
            and object.stream = of_stream
            and object.changed_at = event.occurred_at and object.change_id = event.of_id
        returning (event.occurred_at at time zone 'utc')::date as day, event.bucket,
            case when event.operation <> 5 then coalesce(event.object_bytes, event.bytes) end
                as bytes
    )
    insert into lakegauge.lake_growth as known (day, bucket, stream, bytes, objects)
    select gone.day, gone.bucket, of_stream, -coalesce(sum(gone.bytes), 0), -count(gone.bytes)
    from gone
    group by 1, 2
    on conflict (day, bucket, stream) do update set
        bytes = known.bytes + excluded.bytes, objects = known.objects + excluded.objects;

    with back as (
        select distinct on (event.bucket, event.key) event.bucket, event.key, event.occurred_at,
            event.of_at, event.of_id, event.operation, event.principal, event.sequencer,
            case when event.operation <> 5 then coalesce(event.object_bytes, event.bytes) end
                as bytes,
            coalesce('1' || event.sequencer, '') collate "C" as place
        from lakegauge.lake_access as event
        where event.stream = of_stream and event.epoch = of_epoch
            and event.sequence between first and last
            and event.occurred_at between occurred_from and occurred_to
            and event.correction = 1 and (only_index is null or event.index = only_index)
        order by event.bucket, event.key, event.of_at desc, place desc, event.of_id desc
    ), step as (
        select back.*, known.bytes as known_bytes
        from back
        left join lateral (
            select object.changed_at, object.sequencer, object.change_id, object.bytes
            from lakegauge.lake_object as object
            where object.bucket = back.bucket and object.key = back.key
                and object.stream = of_stream
            limit 1
        ) as known on true
        where known.changed_at is null
            or (back.of_at, back.place, back.of_id)
                > (known.changed_at, coalesce('1' || known.sequencer, '') collate "C",
                    known.change_id)
    ), growth as (
        insert into lakegauge.lake_growth as known (day, bucket, stream, bytes, objects)
        select (step.occurred_at at time zone 'utc')::date, step.bucket, of_stream,
            sum(coalesce(step.bytes, 0)::numeric - coalesce(step.known_bytes, 0)::numeric),
            count(step.bytes) - count(step.known_bytes)
        from step
        group by 1, 2
        on conflict (day, bucket, stream) do update set
            bytes = known.bytes + excluded.bytes, objects = known.objects + excluded.objects
    )
    insert into lakegauge.lake_object (bucket, key, stream, changed_at, bytes, change_id, change,
        sequencer, changed_by)
    select step.bucket, step.key, of_stream, step.of_at, step.bytes, step.of_id, step.operation,
        step.sequencer, step.principal
    from step
    order by step.bucket, step.key
    on conflict (bucket, key, stream) do update set
        changed_at = excluded.changed_at, bytes = excluded.bytes, change_id = excluded.change_id,
        change = excluded.change, sequencer = excluded.sequencer,
        changed_by = excluded.changed_by;

    -- A key of which only wrong reports spoke.
    delete from lakegauge.lake_object as object
    using lakegauge.lake_access as event
    where event.stream = of_stream and event.epoch = of_epoch
        and event.sequence between first and last
        and event.occurred_at between occurred_from and occurred_to
        and event.correction = 0 and (only_index is null or event.index = only_index)
        and object.bucket = event.bucket and object.key = event.key and object.stream = of_stream
        and object.changed_at is null and object.read_at is null;
end;
comment on function lakegauge.roll_up_corrected_keys is
    'Lakegauge: takes corrections into what is known of keys.';

-- Takes the rows of a range of messages into what is known of their keys. Which change decides is
-- what the aggregator goes by as well: the latest by time, then sequencer as bytes, then id. What
-- each change made a bucket grow by counts for the day of the change.
create function lakegauge.roll_up_keys(
    of_stream smallint, of_epoch integer, first bigint, last bigint,
    occurred_from timestamptz, occurred_to timestamptz, only_index integer default null
) returns void
-- Each key is looked up by the index, whatever the planner takes the tables for: it plans all of it
-- before the first row, when the table of keys may be empty.
language sql
set work_mem = '64MB' set enable_seqscan = off set jit = off
begin atomic
    with change as (
        select event.bucket, event.key, event.occurred_at, event.id, event.operation,
            event.principal, event.sequencer,
            case when event.operation <> 5 then coalesce(event.object_bytes, event.bytes) end
                as bytes,
            -- None comes before every sequencer.
            coalesce('1' || event.sequencer, '') collate "C" as place
        from lakegauge.lake_access as event
        where event.stream = of_stream and event.epoch = of_epoch
            and event.sequence between first and last
            and event.occurred_at between occurred_from and occurred_to
            and event.operation in (3, 4, 5) and event.outcome = 0
            and event.correction is null
            and (only_index is null or event.index = only_index)
    ), step as (
        select change.*, known.bytes as known_bytes,
            lag(coalesce(change.bytes, -1)) over versions as before,
            lead(change.id) over versions is null as is_last
        from change
        left join lateral (
            select object.changed_at, object.sequencer, object.change_id, object.bytes
            from lakegauge.lake_object as object
            where object.bucket = change.bucket and object.key = change.key
                and object.stream = of_stream
            limit 1
        ) as known on true
        where (known.changed_at is null
                and change.occurred_at >= coalesce((select done.forgotten_to
                    from lakegauge.rolled_up as done
                    where done.stream = of_stream and done.part = 'keys'), '-infinity'))
            or (change.occurred_at, change.place, change.id)
                > (known.changed_at, coalesce('1' || known.sequencer, '') collate "C",
                    known.change_id)
        window versions as (partition by change.bucket, change.key
            order by change.occurred_at, change.place, change.id)
    ), grown as (
        -- -1 stands for: not there.
        select (occurred_at at time zone 'utc')::date as day, bucket,
            coalesce(bytes, -1) as after, coalesce(before, known_bytes, -1) as before
        from step
    ), growth as (
        insert into lakegauge.lake_growth as known (day, bucket, stream, bytes, objects)
        select day, bucket, of_stream,
            sum(greatest(after, 0)::numeric - greatest(before, 0)::numeric),
            sum((after >= 0)::integer - (before >= 0)::integer)
        from grown
        group by 1, 2
        on conflict (day, bucket, stream) do update set
            bytes = known.bytes + excluded.bytes, objects = known.objects + excluded.objects
    )
    insert into lakegauge.lake_object (bucket, key, stream, changed_at, bytes, change_id, change,
        sequencer, changed_by)
    select bucket, key, of_stream, occurred_at, bytes, id, operation, sequencer, principal
    from step
    where is_last
    order by bucket, key
    on conflict (bucket, key, stream) do update set
        changed_at = excluded.changed_at, bytes = excluded.bytes, change_id = excluded.change_id,
        change = excluded.change, sequencer = excluded.sequencer,
        changed_by = excluded.changed_by;

    -- A key that is read all the time is written once an hour of event time, and not once a minute.
    insert into lakegauge.lake_object as object (bucket, key, stream, read_at)
    select read.bucket, read.key, of_stream, read.at
    from (
        select event.bucket, event.key, max(event.occurred_at) as at
        from lakegauge.lake_access as event
        where event.stream = of_stream and event.epoch = of_epoch
            and event.sequence between first and last
            and event.occurred_at between occurred_from and occurred_to
            and event.operation = 0 and event.outcome = 0 and event.correction is null
            and (only_index is null or event.index = only_index)
        group by 1, 2
    ) as read
    left join lateral (
        select object.read_at from lakegauge.lake_object as object
        where object.bucket = read.bucket and object.key = read.key and object.stream = of_stream
        limit 1
    ) as known on true
    where known.read_at is null or read.at >= known.read_at + interval '1 hour'
    order by read.bucket, read.key
    on conflict (bucket, key, stream) do update set read_at = excluded.read_at;

    -- After the events: of a range that has both, the events came first.
    select lakegauge.roll_up_corrected_keys(of_stream, of_epoch, first, last, occurred_from,
        occurred_to, only_index);
end;
comment on function lakegauge.roll_up_keys is 'Lakegauge: takes rows into what is known of keys.';

-- One step: ranges of the ledger with about as many events. False: there was nothing to add. Who
-- rolls up and who inserts a row afterwards take turns by the row of the position.
create function lakegauge.roll_up(of_stream smallint, of_part text, events_max bigint)
returns boolean
language plpgsql set search_path = ''
as $$
declare
    done lakegauge.rolled_up;
    step record;
begin
    insert into lakegauge.rolled_up (stream, part) values (of_stream, of_part)
        on conflict do nothing;
    select * into strict done from lakegauge.rolled_up
        where stream = of_stream and part = of_part for update;
    select epoch, min(first) as first, max(last) as last, min(occurred_from) as occurred_from,
            max(occurred_to) as occurred_to
        into step
        from (
            select ledger.*, sum(events) over ranges - events as before,
                first_value(epoch) over ranges as epoch_of_step
            from lakegauge.ledger
            where stream = of_stream and (epoch, last) > (done.epoch, done.sequence)
            window ranges as (order by epoch, last)
            order by epoch, last limit 10000
        ) as next
        where epoch = epoch_of_step and before < events_max
        group by epoch;
    if step.last is null then
        return false;
    end if;
    -- A range without rows has no times.
    if step.occurred_from is not null then
        if of_part = 'days' then
            perform lakegauge.roll_up_days(of_stream, step.epoch, step.first, step.last,
                step.occurred_from, step.occurred_to);
        else
            perform lakegauge.roll_up_keys(of_stream, step.epoch, step.first, step.last,
                step.occurred_from, step.occurred_to);
        end if;
    end if;
    update lakegauge.rolled_up set epoch = step.epoch, sequence = step.last, rolled_at = now()
        where stream = of_stream and part = of_part;
    return true;
end
$$;
comment on function lakegauge.roll_up(smallint, text, bigint) is
    'Lakegauge: adds the next rows of a stream to its rollups.';

-- A row that was inserted where the rollups have been already: of a dead letter.
create function lakegauge.roll_up_row(
    of_stream smallint, of_epoch integer, of_sequence bigint, of_index integer,
    occurred_at timestamptz
) returns void
language plpgsql set search_path = ''
as $$
declare
    done record;
begin
    -- Locked before it is compared: a position that is being moved is compared once it has moved.
    for done in
        select part, epoch, sequence from lakegauge.rolled_up where stream = of_stream for update
    loop
        continue when (done.epoch, done.sequence) < (of_epoch, of_sequence);
        if done.part = 'days' then
            perform lakegauge.roll_up_days(of_stream, of_epoch, of_sequence, of_sequence,
                occurred_at, occurred_at, of_index);
        else
            perform lakegauge.roll_up_keys(of_stream, of_epoch, of_sequence, of_sequence,
                occurred_at, occurred_at, of_index);
        end if;
    end loop;
end
$$;
comment on function lakegauge.roll_up_row is
    'Lakegauge: adds one row to the rollups that have passed its position.';

-- Looks at a range of pages of the table, since an index on what was deleted would make every
-- overwrite more expensive. Gives the number of keys that were forgotten, and the page to go on from;
-- null: there is none.
create function lakegauge.forget_deleted_keys(
    of_stream smallint, kept_from timestamptz, first_page bigint, pages bigint,
    out forgotten bigint, out next_page bigint
)
language plpgsql set search_path = ''
as $$
declare
    page_bytes constant bigint := current_setting('block_size');
begin
    -- First, and under the lock of the position: what is forgotten must not be brought back.
    update lakegauge.rolled_up set forgotten_to = greatest(forgotten_to, kept_from)
        where stream = of_stream and part = 'keys';
    forgotten := 0;
    if not found then
        return;
    end if;
    delete from lakegauge.lake_object as object
        where object.ctid >= format('(%s,0)', first_page)::tid
            and object.ctid < format('(%s,0)', first_page + pages)::tid
            and object.stream = of_stream and object.bytes is null
            and greatest(object.changed_at, object.read_at) < kept_from;
    get diagnostics forgotten = row_count;
    if (first_page + pages) * page_bytes < pg_relation_size('lakegauge.lake_object') then
        next_page := first_page + pages;
    end if;
end
$$;
comment on function lakegauge.forget_deleted_keys is
    'Lakegauge: forgets keys that are not stored and were changed and read last before a time.';

-- What is known of keys can be added up again from the rows, as long as they are there.
create function lakegauge.forget_keys(of_stream smallint) returns boolean
language plpgsql set search_path = ''
as $$
begin
    delete from lakegauge.rolled_up where stream = of_stream and part = 'keys';
    if not found then
        return false;
    end if;
    delete from lakegauge.lake_object where stream = of_stream;
    delete from lakegauge.lake_growth where stream = of_stream;
    return true;
end
$$;
comment on function lakegauge.forget_keys is
    'Lakegauge: lets go of what is known of the keys of a stream.';

do $$
declare
    name text;
    person text;
    signature text;
begin
    foreach name in array array['rolled_up', 'lake_day', 'warehouse_day', 'pattern_day',
        'lake_object', 'lake_growth']
    loop
        perform lakegauge.keep_private(format('lakegauge.%I', name)::regclass);
        execute format('alter table lakegauge.%I enable row level security', name);
        execute format('create policy readers_read on lakegauge.%I for select to lakegauge_reader
            using (true)', name);
        execute format('grant select on lakegauge.%I to lakegauge_reader', name);
        foreach person in array array['authenticated', 'service_role'] loop
            continue when not exists (select from pg_catalog.pg_roles where rolname = person);
            execute format('grant select on lakegauge.%I to %I', name, person);
            execute format('create policy %I on lakegauge.%I for select to %I using (true)',
                person || '_reads', name, person);
        end loop;
        execute format('alter table lakegauge.%I owner to lakegauge_archiver', name);
    end loop;
    foreach signature in array array[
        'lakegauge.roll_up_days(smallint, integer, bigint, bigint, timestamptz, timestamptz,
            integer)',
        'lakegauge.roll_up_keys(smallint, integer, bigint, bigint, timestamptz, timestamptz,
            integer)',
        'lakegauge.roll_up_corrected_keys(smallint, integer, bigint, bigint, timestamptz,
            timestamptz, integer)',
        'lakegauge.roll_up(smallint, text, bigint)',
        'lakegauge.roll_up_row(smallint, integer, bigint, integer, timestamptz)',
        'lakegauge.forget_keys(smallint)',
        'lakegauge.forget_deleted_keys(smallint, timestamptz, bigint, bigint)']
    loop
        perform lakegauge.keep_private(signature::regprocedure);
        execute format('grant execute on function %s to lakegauge_archiver', signature);
    end loop;
end
$$;
