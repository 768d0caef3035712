-- What people ask most, each by one view or one call (`rpc` by REST), also over a long time: from
-- hours (windows), days and keys (rollups), and rows where a filter leads to few of them.
--
-- Days are of UTC. A range of days includes both ends; one of times its beginning only.
--
-- Counts are added as doubles in percentiles: exact up to 2^53, and three times as fast as numeric.

create view lakegauge_api.lake_day with (security_invoker = true) as
select
    known.day, known.bucket, known.principal,
    lakegauge.operation_name(known.operation) as operation,
    lakegauge.outcome_name(known.outcome) as outcome,
    known.events, known.bytes, known.duration_us, stream.name as stream
from lakegauge.lake_day as known
join lakegauge.stream on stream.id = known.stream;
comment on view lakegauge_api.lake_day is
    'Lakegauge: requests per day (UTC) of event time, bucket, principal, operation, outcome and '
    'stream. Up to a minute behind: see lakegauge_api.rolled_up.';

create view lakegauge_api.warehouse_day with (security_invoker = true) as
select
    known.day, known.warehouse, known.principal, lakegauge.outcome_name(known.outcome) as outcome,
    known.events, known.bytes_scanned, known.queued_us, known.executed_us, known.rows_processed,
    stream.name as stream
from lakegauge.warehouse_day as known
join lakegauge.stream on stream.id = known.stream;
comment on view lakegauge_api.warehouse_day is
    'Lakegauge: queries per day (UTC) of event time, warehouse, principal, outcome and stream. Up '
    'to a minute behind: see lakegauge_api.rolled_up.';

create view lakegauge_api.pattern_day with (security_invoker = true) as
select
    known.day, known.fingerprint, known.warehouse,
    lakegauge.statement_name(known.statement) as statement,
    known.events, known.failures, known.bytes_scanned, known.queued_us, known.executed_us,
    known.response_us_max, stream.name as stream
from lakegauge.pattern_day as known
join lakegauge.stream on stream.id = known.stream;
comment on view lakegauge_api.pattern_day is
    'Lakegauge: queries per day (UTC) of event time, fingerprint, warehouse, kind of statement and '
    'stream. Up to a minute behind: see lakegauge_api.rolled_up.';

create view lakegauge_api.lake_growth with (security_invoker = true) as
select known.day, known.bucket, known.bytes, known.objects, stream.name as stream
from lakegauge.lake_growth as known
join lakegauge.stream on stream.id = known.stream;
comment on view lakegauge_api.lake_growth is
    'Lakegauge: by how many bytes and objects each bucket grew per day (UTC) of event time, by the '
    'changes that were archived; inventories are not in it. Up to a minute behind.';

create view lakegauge_api.lake_object with (security_invoker = true) as
select
    known.bucket, known.key, known.bytes is not null as is_stored, known.bytes,
    lakegauge.operation_name(known.change) as change, known.changed_at, known.changed_by,
    known.read_at, stream.name as stream
from lakegauge.lake_object as known
join lakegauge.stream on stream.id = known.stream;
comment on view lakegauge_api.lake_object is
    'Lakegauge: each key that is stored, and each that was deleted or read within retention: what is '
    'stored of it, the change that decides, and its last read. Up to a minute behind; empty where '
    'ARCHIVER_KEYS is off.';

create view lakegauge_api.stored_object with (security_invoker = true) as
select
    known.bucket, known.key, known.bytes, known.changed_at, known.changed_by, known.read_at,
    stream.name as stream
from lakegauge.lake_object as known
join lakegauge.stream on stream.id = known.stream
where known.bytes is not null;
comment on view lakegauge_api.stored_object is
    'Lakegauge: what is stored now, by key: of the writes, copies and deletes that were archived. '
    'Up to a minute behind; empty where ARCHIVER_KEYS is off.';

create view lakegauge_api.rolled_up with (security_invoker = true) as
select stream.name as stream, done.part, done.epoch, done.sequence, done.rolled_at,
    done.forgotten_to
from lakegauge.rolled_up as done
join lakegauge.stream on stream.id = done.stream;
comment on view lakegauge_api.rolled_up is
    'Lakegauge: up to which message the rollups of each stream have added the rows: by day (part '
    'days) and by key (part keys).';

-- The longest windows that fit: few rows for a range that is not cut in the middle of one.
create function lakegauge.window_length_within(at_most_s integer, range_from timestamptz)
returns integer
language sql stable parallel safe
begin atomic
    select coalesce(
        max(length_s) filter (where is_kept and length_s <= at_most_s), max(length_s)
    )
    from (
        select length_s, bool_and(kept_from is null or kept_from <= range_from) as is_kept
        from lakegauge.window_kept
        group by length_s
    ) as known;
end;
comment on function lakegauge.window_length_within is
    'Lakegauge: the longest windows of at most so many seconds that are kept from a time on.';

create function lakegauge_api.lake_by_hour(
    range_from timestamptz default date_trunc('hour', now()) - interval '1 day',
    range_to timestamptz default now(),
    only_bucket text default null
) returns table (
    hour timestamptz, bucket text, events bigint, failures bigint, bytes numeric,
    p50_us bigint, p95_us bigint, p99_us bigint
)
language sql stable parallel safe
-- The planner expects few windows, and would look up the series of each. What it is kept from has
-- costs for which it would compile.
set work_mem = '64MB' set enable_nestloop = off set jit = off
begin atomic
    with part as (
        select date_bin('1 hour', known.window_start, timestamptz '2000-01-01 00:00Z') as hour,
            series.name as bucket, series.outcome, known.events, known.bytes,
            coalesce(known.sketch, array[(known.bucket_max::integer << 19)
                + known.events::integer]) as pairs
        from lakegauge.lake_window as known
        join lakegauge.window_series as series on series.id = known.series
        where known.window_start >= range_from and known.window_start < range_to
            and known.length_s = (select lakegauge.window_length_within(3600, range_from))
            and (only_bucket is null or series.name = only_bucket)
    ), summed as (
        select part.hour, part.bucket, sum(part.events)::bigint as events,
            coalesce(sum(part.events) filter (where part.outcome <> 0), 0)::bigint as failures,
            sum(part.bytes) as bytes
        from part
        group by 1, 2
    ), hit as (
        select part.hour, part.bucket, pair >> 19 as duration,
            sum(pair & 524287)::double precision as count
        from part, unnest(part.pairs) as pair
        -- 0 is what a source says that does not know how long a request took.
        where pair >= 524288
        group by 1, 2, 3
    ), ranked as (
        select hit.*, sum(hit.count) over passing as passed, sum(hit.count) over whole as total
        from hit
        window passing as (partition by hit.hour, hit.bucket order by hit.duration),
            whole as (partition by hit.hour, hit.bucket)
    ), percentile as (
        select ranked.hour, ranked.bucket,
            min(duration) filter (where passed >= greatest(ceil(total * 0.50), 1)) as p50,
            min(duration) filter (where passed >= greatest(ceil(total * 0.95), 1)) as p95,
            min(duration) filter (where passed >= greatest(ceil(total * 0.99), 1)) as p99
        from ranked
        group by 1, 2
    )
    select summed.hour, summed.bucket, summed.events, summed.failures, summed.bytes,
        lakegauge.bucket_value(p50), lakegauge.bucket_value(p95), lakegauge.bucket_value(p99)
    from summed
    left join percentile on percentile.hour = summed.hour and percentile.bucket = summed.bucket
    order by summed.hour, summed.bucket;
end;
comment on function lakegauge_api.lake_by_hour is
    'Lakegauge: requests, failures, bytes and percentiles of the duration per hour and bucket; by '
    'default of a day.';

create function lakegauge_api.warehouse_by_hour(
    range_from timestamptz default date_trunc('hour', now()) - interval '7 days',
    range_to timestamptz default now(),
    only_warehouse text default null
) returns table (
    hour timestamptz, warehouse text, events bigint, failures bigint, bytes_scanned numeric,
    p50_us bigint, p95_us bigint, p99_us bigint
)
language sql stable parallel safe
-- The planner expects few windows, and would look up the series of each. What it is kept from has
-- costs for which it would compile.
set work_mem = '64MB' set enable_nestloop = off set jit = off
begin atomic
    with part as (
        select date_bin('1 hour', known.window_start, timestamptz '2000-01-01 00:00Z') as hour,
            series.name as warehouse, series.outcome, known.events, known.bytes_scanned,
            coalesce(known.sketch, array[(known.bucket_max::integer << 19)
                + known.events::integer]) as pairs
        from lakegauge.warehouse_window as known
        join lakegauge.window_series as series on series.id = known.series
        where known.window_start >= range_from and known.window_start < range_to
            and known.length_s = (select lakegauge.window_length_within(3600, range_from))
            and (only_warehouse is null or series.name = only_warehouse)
    ), summed as (
        select part.hour, part.warehouse, sum(part.events)::bigint as events,
            coalesce(sum(part.events) filter (where part.outcome <> 0), 0)::bigint as failures,
            sum(part.bytes_scanned) as bytes_scanned
        from part
        group by 1, 2
    ), hit as (
        select part.hour, part.warehouse, pair >> 19 as duration,
            sum(pair & 524287)::double precision as count
        from part, unnest(part.pairs) as pair
        group by 1, 2, 3
    ), ranked as (
        select hit.*, sum(hit.count) over passing as passed, sum(hit.count) over whole as total
        from hit
        window passing as (partition by hit.hour, hit.warehouse order by hit.duration),
            whole as (partition by hit.hour, hit.warehouse)
    ), percentile as (
        select ranked.hour, ranked.warehouse,
            min(duration) filter (where passed >= greatest(ceil(total * 0.50), 1)) as p50,
            min(duration) filter (where passed >= greatest(ceil(total * 0.95), 1)) as p95,
            min(duration) filter (where passed >= greatest(ceil(total * 0.99), 1)) as p99
        from ranked
        group by 1, 2
    )
    select summed.hour, summed.warehouse, summed.events, summed.failures, summed.bytes_scanned,
        lakegauge.bucket_value(p50), lakegauge.bucket_value(p95), lakegauge.bucket_value(p99)
    from summed
    join percentile on percentile.hour = summed.hour and percentile.warehouse = summed.warehouse
    order by summed.hour, summed.warehouse;
end;
comment on function lakegauge_api.warehouse_by_hour is
    'Lakegauge: queries, failures, bytes scanned and percentiles of the response time per hour and '
    'warehouse; by default of a week.';

create function lakegauge_api.top_buckets(
    of_day date default (now() at time zone 'utc')::date - 1, top integer default 10
) returns table (bucket text, events bigint, failures bigint, bytes_read numeric,
    bytes_written numeric)
language sql stable parallel safe
begin atomic
    select known.bucket, sum(known.events)::bigint as events,
        coalesce(sum(known.events) filter (where known.outcome <> 0), 0)::bigint,
        coalesce(sum(known.bytes) filter (where known.operation = 0), 0),
        coalesce(sum(known.bytes) filter (where known.operation in (3, 4)), 0)
    from lakegauge.lake_day as known
    where known.day = of_day
    group by known.bucket
    order by events desc, known.bucket
    limit top;
end;
comment on function lakegauge_api.top_buckets is
    'Lakegauge: the buckets with the most requests of a day; by default of yesterday.';

create function lakegauge_api.growth_by_bucket(
    from_day date default (now() at time zone 'utc')::date - 30,
    to_day date default (now() at time zone 'utc')::date
) returns table (bucket text, bytes_grown numeric, objects_grown bigint, bytes_written numeric)
language sql stable parallel safe
begin atomic
    with grown as (
        select known.bucket, sum(known.bytes) as bytes, sum(known.objects)::bigint as objects
        from lakegauge.lake_growth as known
        where known.day between from_day and to_day
        group by 1
    ), written as (
        select known.bucket, coalesce(sum(known.bytes)
            filter (where known.operation in (3, 4) and known.outcome = 0), 0) as bytes
        from lakegauge.lake_day as known
        where known.day between from_day and to_day
        group by 1
    )
    select written.bucket, grown.bytes, grown.objects, written.bytes
    from written
    left join grown on grown.bucket = written.bucket
    order by grown.bytes desc nulls last, written.bucket;
end;
comment on function lakegauge_api.growth_by_bucket is
    'Lakegauge: by how much each bucket grew in a range of days of event time, and what was '
    'written to it; by default of 30 days. Growth is null where ARCHIVER_KEYS is off.';

create function lakegauge_api.failures_by_principal(
    from_day date default (now() at time zone 'utc')::date - 6,
    to_day date default (now() at time zone 'utc')::date,
    top integer default 100
) returns table (side text, principal text, outcome text, failures bigint, events bigint)
language sql stable parallel safe
begin atomic
    with known as (
        select 'lake' as side, lake.principal, lake.outcome, lake.events
        from lakegauge.lake_day as lake where lake.day between from_day and to_day
        union all
        select 'warehouse', warehouse.principal, warehouse.outcome, warehouse.events
        from lakegauge.warehouse_day as warehouse where warehouse.day between from_day and to_day
    ), summed as (
        select known.side, known.principal, known.outcome, sum(known.events)::bigint as failures,
            (sum(sum(known.events)) over (partition by known.side, known.principal))::bigint
                as events
        from known
        group by 1, 2, 3
    )
    select summed.side, summed.principal, lakegauge.outcome_name(summed.outcome), summed.failures,
        summed.events
    from summed
    where summed.outcome <> 0
    order by summed.failures desc, summed.side, summed.principal, summed.outcome
    limit top;
end;
comment on function lakegauge_api.failures_by_principal is
    'Lakegauge: how often what a principal asked for failed, and how, among how many events in '
    'all; by default of a week.';

create function lakegauge_api.slowest_patterns(
    from_day date default (now() at time zone 'utc')::date - 6,
    to_day date default (now() at time zone 'utc')::date,
    top integer default 20
) returns table (fingerprint text, events bigint, failures bigint, response_us numeric,
    response_us_mean numeric, response_us_max bigint, bytes_scanned numeric, warehouses text[])
language sql stable parallel safe
begin atomic
    select known.fingerprint, sum(known.events)::bigint, sum(known.failures)::bigint,
        sum(known.queued_us + known.executed_us) as response_us,
        round(sum(known.queued_us + known.executed_us) / sum(known.events)),
        max(known.response_us_max), sum(known.bytes_scanned),
        array_agg(distinct known.warehouse)
    from lakegauge.pattern_day as known
    where known.day between from_day and to_day
    group by known.fingerprint
    order by response_us desc, known.fingerprint
    limit top;
end;
comment on function lakegauge_api.slowest_patterns is
    'Lakegauge: the patterns of queries that took the most time in all; by default of a week.';

create function lakegauge_api.key_history(
    of_bucket text, of_key text, only_operation text default null,
    range_from timestamptz default '-infinity', range_to timestamptz default 'infinity',
    top integer default 100
) returns table (occurred_at timestamptz, operation text, outcome text, principal text,
    bytes bigint, object_bytes bigint, id uuid)
-- The planner takes a Bloom filter for one that lets everything pass, and has to know the range to
-- see that the key of the table is of no use for a long one.
language plpgsql stable parallel safe
set enable_seqscan = off set enable_indexscan = off set plan_cache_mode = force_custom_plan
set jit = off
as $$
begin
    return query
    select event.occurred_at, lakegauge.operation_name(event.operation),
        lakegauge.outcome_name(event.outcome), event.principal, event.bytes, event.object_bytes,
        event.id
    from lakegauge.lake_access as event
    where event.key = of_key and event.bucket = of_bucket and event.correction is null
        and (only_operation is null
            or lakegauge.operation_name(event.operation) = only_operation)
        and event.occurred_at >= range_from and event.occurred_at < range_to
    order by event.occurred_at desc, event.id desc
    limit top;
end
$$;
comment on function lakegauge_api.key_history is
    'Lakegauge: the requests for one key, the latest first: who wrote, read or deleted it '
    '(only_operation => ''delete'').';

create function lakegauge_api.bytes_by_day(
    from_day date default (now() at time zone 'utc')::date - 29,
    to_day date default (now() at time zone 'utc')::date
) returns table (day date, requests bigint, bytes_read numeric, bytes_written numeric,
    queries bigint, bytes_scanned numeric)
language sql stable parallel safe
begin atomic
    with known as (
        select lake.day, lake.events as requests,
            case when lake.operation = 0 then lake.bytes else 0 end as bytes_read,
            case when lake.operation in (3, 4) then lake.bytes else 0 end as bytes_written,
            0 as queries, 0 as bytes_scanned
        from lakegauge.lake_day as lake where lake.day between from_day and to_day
        union all
        select warehouse.day, 0, 0, 0, warehouse.events, warehouse.bytes_scanned
        from lakegauge.warehouse_day as warehouse where warehouse.day between from_day and to_day
    )
    select known.day, sum(known.requests)::bigint, sum(known.bytes_read), sum(known.bytes_written),
        sum(known.queries)::bigint, sum(known.bytes_scanned)
    from known
    group by known.day
    order by known.day;
end;
comment on function lakegauge_api.bytes_by_day is
    'Lakegauge: bytes read from and written to the lake and scanned by the warehouse per day of '
    'event time; by default of 30 days.';

create function lakegauge_api.cost_by_principal(
    month date default (now() at time zone 'utc')::date, top integer default 100
) returns table (principal text, warehouse text, queries bigint, failures bigint,
    bytes_scanned numeric, executed_us numeric, queued_us numeric)
language sql stable parallel safe
begin atomic
    select known.principal, known.warehouse, sum(known.events)::bigint,
        coalesce(sum(known.events) filter (where known.outcome <> 0), 0)::bigint,
        sum(known.bytes_scanned) as bytes_scanned, sum(known.executed_us), sum(known.queued_us)
    from lakegauge.warehouse_day as known
    where known.day >= date_trunc('month', month::timestamp)::date
        and known.day < (date_trunc('month', month::timestamp) + interval '1 month')::date
    group by known.principal, known.warehouse
    order by bytes_scanned desc, known.principal, known.warehouse
    limit top;
end;
comment on function lakegauge_api.cost_by_principal is
    'Lakegauge: what each principal''s queries cost in each warehouse in a month, given by any of '
    'its days: bytes scanned and time; by default of this month.';

create function lakegauge_api.unread_objects(
    days integer default 20, only_bucket text default null, top integer default 1000
) returns table (bucket text, key text, bytes bigint, changed_at timestamptz, changed_by text,
    read_at timestamptz)
language sql stable parallel safe
begin atomic
    select known.bucket, known.key, known.bytes, known.changed_at, known.changed_by, known.read_at
    from lakegauge.lake_object as known
    where known.bytes is not null
        and (only_bucket is null or known.bucket = only_bucket)
        and known.changed_at < now() - days * interval '1 day'
        and (known.read_at is null or known.read_at < now() - days * interval '1 day')
    order by known.bytes desc, known.bucket, known.key
    limit top;
end;
comment on function lakegauge_api.unread_objects is
    'Lakegauge: what is stored and was neither read nor written for so many days, the largest '
    'first; empty where ARCHIVER_KEYS is off.';

-- A stream without new messages has no new sample: what it had stays true, but for what its window
-- of 60 s held, which is over.
create function lakegauge_api.samples(
    range_from timestamptz default date_trunc('minute', now()) - interval '1 hour',
    range_to timestamptz default now(),
    step interval default '1 minute'
) returns table (at timestamptz, used_bytes numeric, accesses numeric, queries_in_window numeric,
    response_us_in_window numeric, records numeric)
language sql stable parallel safe
begin atomic
    select moment.at, sum(sample.used_bytes), sum(sample.accesses),
        sum(case when is_fresh then sample.queries_in_window
            when sample.queries_in_window is not null then 0 end),
        sum(case when is_fresh then sample.response_us_in_window
            when sample.response_us_in_window is not null then 0 end),
        sum(sample.records)
    from generate_series(range_from, range_to, step) as moment (at)
    cross join lakegauge.stream
    cross join lateral (
        select known.*, known.broker_ns
            > (extract(epoch from moment.at - interval '70 seconds') * 1000000000)::bigint
            as is_fresh
        from lakegauge.sample as known
        where known.stream = stream.id
            and known.broker_ns <= (extract(epoch from moment.at) * 1000000000)::bigint
        order by known.broker_ns desc
        limit 1
    ) as sample
    group by moment.at
    order by moment.at;
end;
comment on function lakegauge_api.samples is
    'Lakegauge: what the metrics of both sides were at the same times of the broker''s clock, '
    'partitions added up; by default each minute of the last hour.';

do $$
declare
    name text;
    person text;
    signature text;
begin
    foreach person in array array['lakegauge_archiver', 'lakegauge_reader', 'authenticated',
        'service_role']
    loop
        continue when not exists (select from pg_catalog.pg_roles where rolname = person);
        foreach name in array array['lake_day', 'warehouse_day', 'pattern_day', 'lake_growth',
            'lake_object', 'stored_object', 'rolled_up']
        loop
            if person = 'lakegauge_archiver' then
                perform lakegauge.keep_private(format('lakegauge_api.%I', name)::regclass);
            end if;
            execute format('grant select on lakegauge_api.%I to %I', name, person);
        end loop;
        foreach signature in array array[
            'lakegauge.window_length_within(integer, timestamptz)',
            'lakegauge_api.lake_by_hour(timestamptz, timestamptz, text)',
            'lakegauge_api.warehouse_by_hour(timestamptz, timestamptz, text)',
            'lakegauge_api.top_buckets(date, integer)',
            'lakegauge_api.growth_by_bucket(date, date)',
            'lakegauge_api.failures_by_principal(date, date, integer)',
            'lakegauge_api.slowest_patterns(date, date, integer)',
            'lakegauge_api.key_history(text, text, text, timestamptz, timestamptz, integer)',
            'lakegauge_api.bytes_by_day(date, date)',
            'lakegauge_api.cost_by_principal(date, integer)',
            'lakegauge_api.unread_objects(integer, text, integer)',
            'lakegauge_api.samples(timestamptz, timestamptz, interval)']
        loop
            if person = 'lakegauge_archiver' then
                perform lakegauge.keep_private(signature::regprocedure);
            end if;
            execute format('grant execute on function %s to %I', signature, person);
        end loop;
    end loop;
end
$$;
