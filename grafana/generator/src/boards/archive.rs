//! The archive: days to years by SQL, and from a window down to its raw events.

use crate::{
    board::{Board, Row, Variable},
    panel::{Form, Panel},
};

/// Points of the history: each is one look into an index, however long the range.
const POINTS: &str = "generate_series($__timeFrom()::timestamptz, $__timeTo()::timestamptz, \
     greatest(($__timeTo()::timestamptz - $__timeFrom()::timestamptz) / 300, \
     interval '10 seconds')) as point";
/// Windows of the length that fits the range: at most 1,500 of each series, or hours.
const WINDOWS: &str = "length_s = (select lakegauge_api.window_length_s(\
     $__timeFrom()::timestamptz, $__timeTo()::timestamptz)) \
     and window_start between $__timeFrom()::timestamptz and $__timeTo()::timestamptz";

pub(super) fn board() -> Board {
    Board {
        uid: "lakegauge-archive",
        title: "Archive",
        description: "What was it like then, and which events was it?",
        from: "now-24h",
        refresh: "",
        variables: vec![
            Variable::Prometheus,
            Variable::Environment,
            Variable::Archive,
            Variable::Bucket,
            Variable::Warehouse,
            Variable::Tenant,
        ],
        rows: vec![years(), days(), windows(), raw(), ledger()],
    }
}

/// Days of the range, whole ones.
const DAYS: &str = "day between ($__timeFrom()::timestamptz at time zone 'utc')::date \
     and ($__timeTo()::timestamptz at time zone 'utc')::date";

/// A value of the samples at each point of the range.
fn history(columns: &str, has: &str) -> String {
    format!(
        "select point as time, {columns} from {POINTS} cross join lateral (\
         select * from lakegauge.sample where {has} is not null \
         and broker_ns <= (extract(epoch from point) * 1000000000)::bigint \
         order by broker_ns desc limit 1) as sample order by point"
    )
}

fn years() -> Row {
    Row {
        title: "Days to years, by the broker's clock (from the samples)",
        panels: vec![
            Panel::new(
                Form::Lines,
                "Used space",
                "decbytes",
                "At up to 300 moments of the range, whatever its length. A step: choose a short \
                 range around it, and read the raw events below.",
            )
            .sql(history("used_bytes as used", "used_bytes")),
            Panel::new(
                Form::Lines,
                "Used space per bucket",
                "decbytes",
                "The same for each chosen bucket: which one made the step?",
            )
            .sql(format!(
                "select point as time, bucket as metric, used::numeric as value from {POINTS} \
                 cross join lateral (select buckets from lakegauge.sample \
                 where buckets is not null \
                 and broker_ns <= (extract(epoch from point) * 1000000000)::bigint \
                 order by broker_ns desc limit 1) as sample \
                 cross join lateral jsonb_each_text(sample.buckets) as kept (bucket, used) \
                 where bucket ~ '^(${{bucket:regex}})$' order by point"
            )),
            Panel::new(
                Form::Lines,
                "Accesses since the first event",
                "short",
                "The slope is the load; flat is silence. A step back can only be a declared loss \
                 (marked).",
            )
            .sql(history("accesses", "accesses")),
            Panel::new(
                Form::Lines,
                "Records processed since the first event",
                "short",
                "The slope is the work of the warehouse; flat is silence.",
            )
            .sql(history("records", "records")),
            Panel::new(
                Form::Lines,
                "Response time",
                "ms",
                "The seed's mean of 60 seconds at up to 300 moments. Percentiles are below, for \
                 shorter ranges.",
            )
            .sql(history(
                "response_us_in_window / greatest(queries_in_window, 1) / 1000 as mean",
                "queries_in_window",
            )),
        ],
    }
}

/// By the time of the events: an import stands where it happened, and not at the moment of the import.
fn days() -> Row {
    Row {
        title: "Days, by the time of the events (an imported history too)",
        panels: vec![
            Panel::new(
                Form::Lines,
                "Tracked space per bucket, by event time",
                "decbytes",
                "What the writes, copies and deletes up to the end of each day left, imported ones \
                 included; inventories are not in it. A step: who? See Changed bytes, then raw events.",
            )
            .sql(
                "select time, metric, value from (select \
                 day::timestamp at time zone 'utc' as time, day, bucket as metric, \
                 sum(sum(bytes)) over (partition by bucket order by day) as value \
                 from lakegauge_api.lake_growth \
                 where day <= ($__timeTo()::timestamptz at time zone 'utc')::date \
                 and bucket ~ '^(${bucket:regex})$' group by day, bucket) as tracked \
                 where day >= ($__timeFrom()::timestamptz at time zone 'utc')::date order by time",
            ),
            Panel::new(
                Form::Lines,
                "Changed bytes per bucket and day",
                "decbytes",
                "By how much each bucket grew (or shrank) on that day of event time.",
            )
            .sql(format!(
                "select day::timestamp at time zone 'utc' as time, bucket as metric, \
                 sum(bytes) as value from lakegauge_api.lake_growth \
                 where {DAYS} and bucket ~ '^(${{bucket:regex}})$' \
                 group by day, bucket order by time"
            )),
            Panel::new(
                Form::Lines,
                "Requests and queries per day",
                "short",
                "Of event time. A day without any in the middle: was it quiet, or was it never \
                 imported?",
            )
            .sql(format!(
                "select day::timestamp at time zone 'utc' as time, 'requests' as metric, \
                 sum(events) as value from lakegauge_api.lake_day \
                 where {DAYS} and bucket ~ '^(${{bucket:regex}})$' group by day \
                 union all \
                 select day::timestamp at time zone 'utc', 'queries', sum(events) \
                 from lakegauge_api.warehouse_day \
                 where {DAYS} and warehouse ~ '^(${{warehouse:regex}})$' group by day \
                 order by time"
            )),
        ],
    }
}

fn windows() -> Row {
    Row {
        title: "Windows of 10 s, a minute or an hour, as the range allows",
        panels: vec![
            Panel::new(
                Form::Lines,
                "Accesses a minute by outcome",
                "short",
                "Exactly the rows in the archive, late ones included. Choose a short range around a \
                 spike and read on below.",
            )
            .sql(format!(
                "select window_start as time, outcome as metric, \
                 sum(events) * 60.0 / length_s as value \
                 from lakegauge_api.lake_window \
                 where {WINDOWS} and bucket ~ '^(${{bucket:regex}})$' \
                 group by window_start, length_s, outcome order by window_start"
            )),
            Panel::new(
                Form::Lines,
                "Response time, percentiles",
                "ms",
                "p50, p95, p99 of each window, within 1 %. Up: which pattern? See Data warehouse \
                 at that time.",
            )
            .sql(format!(
                "with hit as (select window_start as time, pair >> 19 as bucket, \
                 sum(pair & 524287) as count \
                 from lakegauge_api.warehouse_window, unnest((sketch).pairs) as pair \
                 where {WINDOWS} \
                 and warehouse ~ '^(${{warehouse:regex}})$' group by 1, 2), \
                 ranked as (select time, bucket, \
                 sum(count) over (partition by time order by bucket) as passed, \
                 sum(count) over (partition by time) as total from hit) \
                 select time, \
                 min(lakegauge.bucket_value(bucket)) filter (where passed >= total * 0.5) / 1000.0 \
                 as p50, \
                 min(lakegauge.bucket_value(bucket)) filter (where passed >= total * 0.95) / 1000.0 \
                 as p95, \
                 min(lakegauge.bucket_value(bucket)) filter (where passed >= total * 0.99) / 1000.0 \
                 as p99 from ranked group by time order by time"
            )),
        ],
    }
}

fn raw() -> Row {
    Row {
        title: "Raw events (the newest 200 of the range)",
        panels: vec![
            Panel::new(
                Form::Table,
                "Lake",
                "none",
                "What was asked, by whom, with which outcome. Choose the range around a spike and \
                 the bucket above. late: it came too late to judge and was counted by a verdict.",
            )
            .sql(
                "select occurred_at as time, bucket, key, operation, outcome, bytes, \
                 object_bytes, duration_us / 1e6 as duration, principal, late \
                 from lakegauge_api.lake_access where $__timeFilter(occurred_at) \
                 and bucket ~ '^(${bucket:regex})$' order by occurred_at desc limit 200",
            )
            .columns(&[
                ("bytes", "decbytes"),
                ("object_bytes", "decbytes"),
                ("duration", "s"),
            ]),
            Panel::new(
                Form::Table,
                "Warehouse",
                "none",
                "What was run, by whom, and how long it waited and worked.",
            )
            .sql(
                "select occurred_at as time, warehouse, database, statement, outcome, \
                 queued_us / 1e6 as queued, executed_us / 1e6 as executed, rows_processed, \
                 bytes_scanned, cache_hit, principal, fingerprint, late \
                 from lakegauge_api.warehouse_query where $__timeFilter(occurred_at) \
                 and warehouse ~ '^(${warehouse:regex})$' and principal ~ '^(${tenant:regex})$' \
                 order by occurred_at desc limit 200",
            )
            .columns(&[
                ("queued", "s"),
                ("executed", "s"),
                ("rows_processed", "short"),
                ("bytes_scanned", "decbytes"),
            ]),
        ],
    }
}

fn ledger() -> Row {
    Row {
        title: "The archive's ledger",
        panels: vec![
            Panel::new(
                Form::Table,
                "Up to where each stream is archived",
                "none",
                "broker_at is the broker's time of the last message archived. Far behind now: see \
                 Pipeline, archive.",
            )
            .sql(
                "select stream, epoch, sequence, broker_at, updated_at \
                 from lakegauge_api.checkpoint \
                 order by stream limit 100",
            )
            .size(12, 6),
            Panel::new(
                Form::Table,
                "Samples against what the archive adds up to",
                "none",
                "Accesses by the newest sample, and rows of the archive by its ledger. The archive \
                 is ahead of a sample by seconds; behind it would be an alarm: `lakegauge audit`.",
            )
            .sql(
                "select (select accesses from lakegauge.sample where accesses is not null \
                 order by broker_ns desc limit 1) as accesses_sampled, \
                 sum(inserted) as rows_inserted, sum(duplicates) as duplicates, \
                 sum(dead) as dead_letters from lakegauge_api.ledger where stream like 'LAKE%'",
            )
            .size(12, 6),
            Panel::new(
                Form::Table,
                "Dead letters",
                "none",
                "The newest 50 in the range. `lakegauge dead-letters show NUMBER` shows the bytes, \
                 `retry` puts them in.",
            )
            .sql(
                "select received_at as time, number, stream, reason, field, detail, closed_at \
                 from lakegauge_api.dead_letter where $__timeFilter(received_at) \
                 order by received_at desc limit 50",
            )
            .otherwise("No dead letters"),
        ],
    }
}
