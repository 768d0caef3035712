-- Window aggregates: what happened per window of event time, of exactly the rows in the archive.
--
-- The distribution of durations is kept as a sketch. Up to 127 a bucket is one microsecond; above,
-- each power of two is cut into 64 of equal width, so the middle of a bucket is within 1 % of every
-- value in it. Counts of the same bucket add up, whatever they were grouped by. A sketch is stored
-- as pairs, ascending: bucket * 2^19 + count. A window whose sketch would be one pair has none: its
-- bucket_max and events say it.
--
-- A small lake has nearly as many windows as events, so every byte of a window counts: what windows
-- of one bucket, operation and outcome have in common stands once, in window_series; columns stand
-- by falling alignment, those that nearly always have few digits as numeric, of which there can be
-- no overflow; the eight columns of lake_window keep its tuple's header at 24 bytes.

create table lakegauge.window_series (
    id integer generated always as identity primary key,
    stream smallint not null references lakegauge.stream (id),
    action smallint not null,
    outcome smallint not null,
    name text not null,
    unique (stream, name, action, outcome)
);
comment on table lakegauge.window_series is
    'Lakegauge: bucket or warehouse, operation or kind of statement, and outcome that windows of a '
    'stream have in common.';

-- Windows of one stream are written by one transaction at a time; those of different streams side
-- by side. The number of a series is only given in the transaction of its first window.
create table lakegauge.lake_window (
    window_start timestamptz not null,
    series integer not null,
    length_s integer not null check (length_s > 0),
    bucket_max smallint not null,
    events numeric not null,
    bytes numeric not null,
    duration_us numeric not null,
    sketch integer[],
    primary key (window_start, length_s, series)
);

create table lakegauge.warehouse_window (
    window_start timestamptz not null,
    series integer not null,
    length_s integer not null check (length_s > 0),
    bucket_max smallint not null,
    events numeric not null,
    bytes_scanned numeric not null,
    response_us numeric not null,
    rows_processed numeric not null,
    cache_hits numeric not null,
    sketch integer[],
    primary key (window_start, length_s, series)
);

comment on table lakegauge.lake_window is
    'Lakegauge: requests per window of event time and series.';
comment on table lakegauge.warehouse_window is
    'Lakegauge: queries per window of event time and series.';

create table lakegauge.window_kept (
    stream smallint not null references lakegauge.stream (id),
    length_s integer not null check (length_s > 0),
    kept_from timestamptz,
    primary key (stream, length_s)
);
comment on table lakegauge.window_kept is
    'Lakegauge: which windows a stream keeps: each length, and the time from which on; null: from '
    'the first. A window of such a time holds every event of it, one from before is not there.';

create type lakegauge.window_sketch as (pairs integer[]);
comment on type lakegauge.window_sketch is
    'Lakegauge: durations of one window: bucket * 2^19 + count, ascending.';
create type lakegauge.sketch as (buckets integer[], counts bigint[]);
comment on type lakegauge.sketch is
    'Lakegauge: durations of any windows: buckets that were hit, ascending, and how often.';

create function lakegauge.window_sketch(bucket_max smallint, events numeric, pairs integer[])
returns lakegauge.window_sketch
language sql immutable parallel safe
return row(coalesce(pairs, array[(bucket_max::integer << 19) + events::integer]))
    ::lakegauge.window_sketch;
comment on function lakegauge.window_sketch is 'Lakegauge: the sketch of a window as it is stored.';

-- A source that does not know how long a request took says 0, and bucket 0 holds nothing else: left out
-- here, and stored all the same, so that a window is exactly what its rows add up to.
create function lakegauge.known_durations(sketch lakegauge.window_sketch)
returns lakegauge.window_sketch
language sql immutable parallel safe
return case
    when (sketch).pairs[1] >= 524288 then sketch
    else row(array(select pair from unnest((sketch).pairs) as pair where pair >= 524288
        order by pair))::lakegauge.window_sketch
end;
comment on function lakegauge.known_durations is
    'Lakegauge: the sketch of a window without the requests whose duration is not known.';

-- Grouped once, at the end: a state that is added up at each step is copied at each step.
create function lakegauge.sketch_add_up(sketches lakegauge.window_sketch[])
returns lakegauge.sketch
language sql immutable parallel safe
begin atomic
    select row(array_agg(bucket order by bucket), array_agg(count order by bucket))
        ::lakegauge.sketch
    from (
        select pair >> 19 as bucket, sum(pair & 524287)::bigint as count
        from unnest(sketches) as sketch, unnest(sketch.pairs) as pair
        group by 1
    ) as summed;
end;
comment on function lakegauge.sketch_add_up is 'Lakegauge: the end of sketch_sum.';

create aggregate lakegauge_api.sketch_sum(lakegauge.window_sketch) (
    sfunc = array_append,
    stype = lakegauge.window_sketch[],
    finalfunc = lakegauge.sketch_add_up,
    combinefunc = array_cat,
    parallel = safe
);
comment on aggregate lakegauge_api.sketch_sum(lakegauge.window_sketch) is
    'Lakegauge: adds up the sketches of any windows: lakegauge_api.sketch_sum(sketch).';

create function lakegauge.bucket_value(bucket integer) returns bigint
language sql immutable parallel safe
return case
    when bucket < 128 then bucket::bigint
    else ((bucket - (bucket / 64 - 1) * 64)::bigint << (bucket / 64 - 1))
        + (1::bigint << (bucket / 64 - 1)) / 2
end;
comment on function lakegauge.bucket_value is
    'Lakegauge: the middle of a bucket, in microseconds: within 1 % of every value in it.';

create function lakegauge_api.sketch_percentile(sketch lakegauge.sketch, share double precision)
returns bigint
language sql immutable parallel safe
begin atomic
    -- Doubles count exactly up to 2^53, and are added up three times as fast as numeric.
    select lakegauge.bucket_value(bucket)
    from (
        select bucket,
            sum(count::double precision) over (order by bucket rows unbounded preceding) as passed
        from unnest((sketch).buckets, (sketch).counts) as part (bucket, count)
    ) as ranked
    where passed >= (
        select greatest(ceil(sum(count) * share::numeric), 1)::double precision
        from unnest((sketch).counts) as every (count)
    )
    order by bucket
    limit 1;
end;
comment on function lakegauge_api.sketch_percentile is
    'Lakegauge: the duration in microseconds below which a share (0 to 1) of the events lies, '
    'within 1 %: lakegauge_api.sketch_percentile(lakegauge_api.sketch_sum(sketch), 0.99).';

-- 1,500 windows, as many as a chart shows: a day by the minute, two months by the hour.
create function lakegauge_api.window_length_s(range_from timestamptz, range_to timestamptz)
returns integer
language sql stable parallel safe
begin atomic
    select coalesce(
        min(length_s) filter (
            where is_kept and extract(epoch from range_to - range_from) / length_s <= 1500
        ),
        max(length_s)
    )
    from (
        select length_s, bool_and(kept_from is null or kept_from <= range_from) as is_kept
        from lakegauge.window_kept
        group by length_s
    ) as known;
end;
comment on function lakegauge_api.window_length_s is
    'Lakegauge: the length of windows that fits a range of time: the shortest that is kept from its '
    'beginning and has at most 1,500 windows in it, or else the longest. where length_s = (select '
    'lakegauge_api.window_length_s(from, to)) and window_start between from and to.';

do $$
declare
    signature text;
    person text;
begin
    foreach signature in array array[
        'lakegauge.window_sketch(smallint, numeric, integer[])',
        'lakegauge.known_durations(lakegauge.window_sketch)',
        'lakegauge.sketch_add_up(lakegauge.window_sketch[])',
        'lakegauge.bucket_value(integer)',
        'lakegauge_api.sketch_sum(lakegauge.window_sketch)',
        'lakegauge_api.sketch_percentile(lakegauge.sketch, double precision)',
        'lakegauge_api.window_length_s(timestamptz, timestamptz)']
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
