-- Window aggregates: what happened per window of event time, of exactly the rows in the archive.
--
-- The distribution of durations is kept as a sketch: two arrays, the buckets that were hit
-- (ascending) and how often. Up to 127 a bucket is one microsecond; above, each power of two is cut
-- into 64 of equal width, so the middle of a bucket is within 1 % of every value in it. Counts of
-- the same bucket add up, whatever they were grouped by.

create table lakegauge.lake_window (
    window_start timestamptz not null,
    events bigint not null,
    revision bigint not null default 1,
    changed_at timestamptz not null default now(),
    length_s integer not null check (length_s > 0),
    operation smallint not null,
    outcome smallint not null,
    bucket text not null,
    bytes numeric not null,
    duration_us numeric not null,
    sketch_buckets integer[] not null,
    sketch_counts bigint[] not null,
    primary key (window_start, length_s, bucket, operation, outcome)
) with (fillfactor = 60);

create table lakegauge.warehouse_window (
    window_start timestamptz not null,
    events bigint not null,
    cache_hits bigint not null,
    revision bigint not null default 1,
    changed_at timestamptz not null default now(),
    length_s integer not null check (length_s > 0),
    statement smallint not null,
    outcome smallint not null,
    warehouse text not null,
    bytes_scanned numeric not null,
    rows_processed numeric not null,
    response_us numeric not null,
    sketch_buckets integer[] not null,
    sketch_counts bigint[] not null,
    primary key (window_start, length_s, warehouse, statement, outcome)
) with (fillfactor = 60);

comment on table lakegauge.lake_window is
    'Requests per window of event time, bucket, operation and outcome.';
comment on table lakegauge.warehouse_window is
    'Queries per window of event time, warehouse, statement and outcome.';

create type lakegauge.sketch as (buckets integer[], counts bigint[]);
comment on type lakegauge.sketch is 'Buckets that were hit, ascending, and how often.';

create function lakegauge.sketch_add(
    left_buckets integer[], left_counts bigint[], right_buckets integer[], right_counts bigint[]
) returns lakegauge.sketch
language sql immutable parallel safe
begin atomic
    select array_agg(bucket order by bucket), array_agg(count order by bucket)
    from (
        select bucket, sum(count)::bigint as count
        from unnest(left_buckets || right_buckets, left_counts || right_counts)
            as part (bucket, count)
        group by bucket
    ) as summed;
end;
comment on function lakegauge.sketch_add is 'Two sketches as one.';

create function lakegauge.sketch_step(
    state lakegauge.sketch, buckets integer[], counts bigint[]
) returns lakegauge.sketch
language sql immutable parallel safe
return lakegauge.sketch_add((state).buckets, (state).counts, buckets, counts);
comment on function lakegauge.sketch_step is 'A step of api.sketch_sum.';

create aggregate api.sketch_sum(buckets integer[], counts bigint[]) (
    sfunc = lakegauge.sketch_step,
    stype = lakegauge.sketch,
    initcond = '({},{})',
    parallel = safe
);
comment on aggregate api.sketch_sum(integer[], bigint[]) is
    'Adds up the sketches of any windows: api.sketch_sum(sketch_buckets, sketch_counts).';

create function lakegauge.bucket_value(bucket integer) returns bigint
language sql immutable parallel safe
return case
    when bucket < 128 then bucket::bigint
    else ((bucket - (bucket / 64 - 1) * 64)::bigint << (bucket / 64 - 1))
        + (1::bigint << (bucket / 64 - 1)) / 2
end;
comment on function lakegauge.bucket_value is
    'The middle of a bucket, in microseconds: within 1 % of every value in it.';

create function api.sketch_percentile(sketch lakegauge.sketch, share double precision)
returns bigint
language sql immutable parallel safe
begin atomic
    select lakegauge.bucket_value(bucket)
    from (
        select bucket, sum(count) over (order by bucket) as passed, sum(count) over () as total
        from unnest((sketch).buckets, (sketch).counts) as part (bucket, count)
    ) as ranked
    where passed >= greatest(ceil(total * share::numeric), 1)
    order by bucket
    limit 1;
end;
comment on function api.sketch_percentile is
    'The duration in microseconds below which a share (0 to 1) of the events lies, within 1 %: '
    'api.sketch_percentile(api.sketch_sum(sketch_buckets, sketch_counts), 0.99).';

revoke all on function
    lakegauge.sketch_add(integer[], bigint[], integer[], bigint[]),
    lakegauge.sketch_step(lakegauge.sketch, integer[], bigint[]),
    lakegauge.bucket_value(integer),
    api.sketch_sum(integer[], bigint[]),
    api.sketch_percentile(lakegauge.sketch, double precision)
from public;
grant execute on function
    lakegauge.sketch_add(integer[], bigint[], integer[], bigint[]),
    lakegauge.sketch_step(lakegauge.sketch, integer[], bigint[]),
    lakegauge.bucket_value(integer),
    api.sketch_sum(integer[], bigint[]),
    api.sketch_percentile(lakegauge.sketch, double precision)
to lakegauge_archiver, lakegauge_reader;

do $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'anon') then
        revoke all on function
            lakegauge.sketch_add(integer[], bigint[], integer[], bigint[]),
            lakegauge.sketch_step(lakegauge.sketch, integer[], bigint[]),
            lakegauge.bucket_value(integer),
            api.sketch_sum(integer[], bigint[]),
            api.sketch_percentile(lakegauge.sketch, double precision)
        from anon;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
        grant execute on function
            lakegauge.sketch_add(integer[], bigint[], integer[], bigint[]),
            lakegauge.sketch_step(lakegauge.sketch, integer[], bigint[]),
            lakegauge.bucket_value(integer),
            api.sketch_sum(integer[], bigint[]),
            api.sketch_percentile(lakegauge.sketch, double precision)
        to authenticated;
    end if;
end
$$;
