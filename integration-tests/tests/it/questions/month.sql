-- A million events over 30 days, as a small company's pipeline leaves them: 600,000 requests to 40
-- buckets and 400,000 queries in 7 warehouses, in partitions of a day, with their windows of an hour
-- and their ledger. Names are drawn by a power law; the same at each run but for the time.
select setseed(0.25);
insert into lakegauge.stream (name) values ('LAKE_0'), ('WAREHOUSE_0');
insert into lakegauge.window_kept select id, length_s, kept_from from lakegauge.stream,
    (values (60, date_trunc('day', now(), 'UTC') - interval '2 days'), (3600, null))
    as kept (length_s, kept_from);
update lakegauge.installation set installed_on = (now() at time zone 'utc')::date - 31;

-- Partitions as the archiver makes them.
do $$
declare
    kind text;
    day date;
    name text;
begin
    foreach kind in array array['lake_access', 'warehouse_query'] loop
        for day in select generate_series((now() at time zone 'utc')::date - 31,
            (now() at time zone 'utc')::date, interval '1 day')::date
        loop
            name := kind || to_char(day, '_"d"YYYYMMDD');
            execute format('create table lakegauge.%I (like lakegauge.%I including defaults
                including constraints)', name, kind);
            perform lakegauge.keep_private(format('lakegauge.%I', name)::regclass);
            execute format('alter table lakegauge.%I enable row level security', name);
            execute format('alter table lakegauge.%I attach partition lakegauge.%I for values
                from (%L) to (%L)', kind, name, day || ' 00:00Z', (day + 1) || ' 00:00Z');
            execute format('alter table lakegauge.%I owner to lakegauge_archiver', name);
        end loop;
    end loop;
end
$$;

insert into lakegauge.lake_access (occurred_at, sequence, bytes, object_bytes, duration_us, epoch,
    index, stream, operation, outcome, id, derived, bucket, key, principal)
select at, number / 100 + 1, size, case when operation in (3, 4) then size end,
    200 + (random() ^ 4 * 2000000)::bigint, 1, number % 100, 1, operation,
    case when random() < 0.04 then 1 + floor(random() * 7)::integer else 0 end,
    lpad(to_hex(number), 32, '0')::uuid, false, case bucket when 0 then 'raw' else 'bucket-' || lpad(bucket::text, 2, '0') end,
    'orders/day=' || lpad((file / 40)::text, 4, '0') || '/part-' || lpad(file::text, 6, '0') || '.parquet',
    'service-' || bucket % 5 + 5 * floor(random() * 5)::integer
from (
    select number, now() - interval '30 days' + number * interval '4.32 seconds' as at,
        (1000 + random() ^ 6 * 200000000)::bigint as size,
        floor(random() ^ 2 * 40)::integer as bucket, floor(random() ^ 2 * 6000)::integer as file,
        (array[0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 3, 4, 5])[1 + floor(random() * 13)::integer] as operation
    from generate_series(0, 599999) as number offset 0
) as drawn;

-- The delete that is asked for.
update lakegauge.lake_access set operation = 5, outcome = 0, object_bytes = null
    where id = (select id from lakegauge.lake_access where bucket = 'raw'
        and key = 'orders/day=0106/part-004242.parquet' order by occurred_at desc limit 1);

insert into lakegauge.warehouse_query (occurred_at, sequence, queued_us, executed_us,
    rows_processed, rows_returned, bytes_scanned, epoch, index, stream, statement, outcome, id,
    derived, cache_hit, warehouse, database, principal, fingerprint)
select at, number / 100 + 1, (random() ^ 5 * 500000)::bigint,
    1000 + (pattern + random() ^ 6 * 20000000)::bigint, 10 + pattern, 10,
    (random() ^ 4 * 2000000000)::bigint, 1, number % 100, 2, pattern % 6,
    case when random() < 0.03 then 4 + floor(random() * 4)::integer else 0 end,
    lpad(to_hex(number), 32, '0')::uuid, false, random() < 0.2, 'wh-' || pattern % 7, 'dw',
    'analyst-' || pattern % 3 + floor(random() ^ 2 * 36)::integer, md5(pattern::text)
from (
    select number, now() - interval '30 days' + number * interval '6.48 seconds' as at,
        floor(random() ^ 3 * 800)::integer as pattern
    from generate_series(0, 399999) as number offset 0
) as drawn;

insert into lakegauge.ledger (stream, epoch, first, last, previous, events, inserted, duplicates,
    dead, occurred_from, occurred_to)
select stream, 1, batch * 100 + 1, batch * 100 + 100, nullif(batch * 100, 0), count(*), count(*), 0,
    0, min(occurred_at), max(occurred_at)
from (
    select stream, (sequence - 1) / 100 as batch, occurred_at from lakegauge.lake_access
    union all
    select stream, (sequence - 1) / 100, occurred_at from lakegauge.warehouse_query
) as event
group by 1, batch order by 1, batch;

-- The bucket of a sketch: up to 127 one for each microsecond, then 64 for each power of two.
create function pg_temp.bucket(duration_us bigint) returns integer language sql immutable as $$
    select case when duration_us < 128 then duration_us::integer
        else (duration_us >> shift)::integer + shift * 64 end
    from (select greatest(58 - strpos(duration_us::bit(64)::text, '1'), 0) as shift) as place
$$;

insert into lakegauge.window_series (stream, name, action, outcome)
    select distinct 1, bucket, operation, outcome from lakegauge.lake_access
    union all select distinct 2, warehouse, statement, outcome from lakegauge.warehouse_query;

insert into lakegauge.lake_window
select hour, series, 3600, max(duration), sum(count), sum(bytes), sum(duration_us),
    array_agg((duration << 19) + count::integer order by duration)
from (
    select date_trunc('hour', event.occurred_at, 'UTC') as hour, series.id as series,
        pg_temp.bucket(event.duration_us) as duration, count(*) as count,
        sum(event.bytes) as bytes, sum(event.duration_us) as duration_us
    from lakegauge.lake_access as event
    join lakegauge.window_series as series on series.stream = 1 and series.name = event.bucket
        and series.action = event.operation and series.outcome = event.outcome
    group by 1, 2, 3
) as hit group by 1, 2 order by 1, 2;

insert into lakegauge.warehouse_window
select hour, series, 3600, max(duration), sum(count), sum(bytes), sum(response_us), sum(rows),
    sum(cache_hits), array_agg((duration << 19) + count::integer order by duration)
from (
    select date_trunc('hour', event.occurred_at, 'UTC') as hour, series.id as series,
        pg_temp.bucket(event.queued_us + event.executed_us) as duration, count(*) as count,
        sum(event.bytes_scanned) as bytes, sum(event.rows_processed) as rows,
        sum(event.queued_us + event.executed_us) as response_us,
        count(*) filter (where event.cache_hit) as cache_hits
    from lakegauge.warehouse_query as event
    join lakegauge.window_series as series on series.stream = 2 and series.name = event.warehouse
        and series.action = event.statement and series.outcome = event.outcome
    group by 1, 2, 3
) as hit group by 1, 2 order by 1, 2;
