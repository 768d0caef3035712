//! The data lake: what is in it, who uses it, what fails.

use crate::{
    board::{Board, Row, Variable},
    panel::{Form, Panel},
};

/// Raw events are many: panels over them look at the end of the range only.
const RAW_EVENTS: &str = "occurred_at between greatest($__timeFrom()::timestamptz, \
     $__timeTo()::timestamptz - interval '15 minutes') and $__timeTo()::timestamptz";

pub(super) fn board() -> Board {
    Board {
        uid: "lakegauge-lake",
        title: "Data lake",
        description: "What is in the lake, who uses it, and what fails?",
        from: "now-1h",
        refresh: "30s",
        variables: vec![
            Variable::Prometheus,
            Variable::Environment,
            Variable::Archive,
            Variable::Bucket,
        ],
        rows: vec![space(), use_of_it(), objects()],
    }
}

fn space() -> Row {
    Row {
        title: "Space",
        panels: vec![
            Panel::new(
                Form::Lines,
                "Used space per bucket",
                "decbytes",
                "A step down is a delete, a step up a load or an inventory that corrected drift. \
                 Who did it: Archive, raw events.",
            )
            .ask(
                "sum by (bucket) (data_lake_storage_used_bytes{bucket=~\"$bucket\"})",
                "{{bucket}}",
            ),
            Panel::new(
                Form::Lines,
                "Growth a day per bucket",
                "decbytes",
                "Bytes a day at the rate of the last hour. A bucket that grows alone is a job that \
                 writes in a loop, or one that no longer expires.",
            )
            .ask(
                "sum by (bucket) (deriv(data_lake_storage_used_bytes{bucket=~\"$bucket\"}[1h])) \
                 * 86400",
                "{{bucket}}",
            ),
            Panel::new(
                Form::Lines,
                "Objects whose size is known",
                "short",
                "Objects and tombstones kept, and those forgotten for want of room: above 0 used \
                 space is an estimate until the next inventory (LakegaugeSpaceIsEstimate).",
            )
            .ask("sum(data_lake_tracked_objects)", "kept")
            .ask("sum(data_lake_forgotten_objects)", "forgotten"),
            Panel::new(
                Form::Lines,
                "Changes that could not be applied",
                "eps",
                "unordered: changes to objects that were forgotten. inventory_…: inventories that \
                 came too late or for a bucket without a label. Many: publish inventories sooner.",
            )
            .ask(
                "sum by (effect) (rate(lakegauge_aggregator_lake_effects_total[$__rate_interval]))",
                "{{effect}}",
            ),
            Panel::new(
                Form::Lines,
                "Withdrawn requests",
                "short",
                "Requests that a source reported wrongly and that were withdrawn since the first event. \
                 Counters and durations on these boards still have them, used space and the archive's \
                 panels don't.",
            )
            .ask(
                "sum by (bucket) (data_lake_accesses_withdrawn_total{bucket=~\"$bucket\"})",
                "{{bucket}}",
            ),
        ],
    }
}

fn duration(share: &str) -> String {
    format!(
        "histogram_quantile({share}, sum by (le) (rate(\
         data_lake_request_duration_seconds_bucket{{bucket=~\"$bucket\"}}[$__rate_interval])))"
    )
}

fn use_of_it() -> Row {
    Row {
        title: "Use",
        panels: vec![
            Panel::new(
                Form::Lines,
                "Accesses by operation",
                "reqps",
                "Many lists or heads for few reads is a client that polls: see noisy principals.",
            )
            .ask(
                "sum by (operation) \
                 (rate(data_lake_accesses_total{bucket=~\"$bucket\"}[$__rate_interval]))",
                "{{operation}}",
            ),
            Panel::new(
                Form::Lines,
                "Failures by outcome",
                "reqps",
                "throttled: slow the client down or ask for more. denied: a policy changed. \
                 server_error, timeout: the store is ill. not_found alone is how clients ask.",
            )
            .ask(
                "sum by (outcome) (rate(data_lake_accesses_total\
                 {bucket=~\"$bucket\", outcome!=\"ok\"}[$__rate_interval]))",
                "{{outcome}}",
            ),
            Panel::new(
                Form::Lines,
                "Request duration",
                "s",
                "How long requests take, by percentile. The half alone rising: the store or the way to \
                 it is slow. p99 alone: large objects, or one client. One bucket alone: choose it.",
            )
            .ask(duration("0.5"), "half within")
            .ask(duration("0.95"), "95 % within")
            .ask(duration("0.99"), "99 % within"),
            Panel::new(
                Form::Lines,
                "Transferred bytes",
                "Bps",
                "Bytes a second by operation. Reads far above last week cost money: which bucket?",
            )
            .ask(
                "sum by (operation) \
                 (rate(data_lake_transferred_bytes_total{bucket=~\"$bucket\"}[$__rate_interval]))",
                "{{operation}}",
            ),
            Panel::new(
                Form::Bars,
                "Hot buckets",
                "reqps",
                "The ten that are asked most. One far above the others may need a cache.",
            )
            .ask(
                "topk(10, sum by (bucket) \
                 (rate(data_lake_accesses_total{bucket=~\"$bucket\"}[$__rate_interval])))",
                "{{bucket}}",
            ),
            Panel::new(
                Form::Table,
                "Cold buckets",
                "none",
                "When each bucket was used last, within the 24 hours before the end of the range, \
                 the coldest first. One that is missing was not used at all: a cheaper class, or \
                 deletion.",
            )
            .sql(
                "select bucket, max(window_start) as last_used, sum(events) as accesses, \
                 sum(events) filter (where operation in ('write', 'copy')) as writes \
                 from lakegauge_api.lake_window \
                 where length_s = (select lakegauge_api.window_length_s(\
                 $__timeTo()::timestamptz - interval '24 hours', $__timeTo()::timestamptz)) \
                 and window_start between $__timeTo()::timestamptz - interval '24 hours' \
                 and $__timeTo()::timestamptz and bucket ~ '^(${bucket:regex})$' \
                 group by bucket order by last_used limit 50",
            )
            .columns(&[("accesses", "short"), ("writes", "short")])
            .size(12, 8),
            Panel::new(
                Form::Table,
                "Noisy principals",
                "none",
                "Who asked most in the 15 minutes before the end of the range. One with most of the \
                 requests and many failures is a client that loops: ask its owner.",
            )
            .sql(format!(
                "select principal, count(*) as requests, sum(bytes) as bytes, \
                 sum(object_bytes) filter (where operation in ('write', 'copy')) as written, \
                 avg((outcome <> 'ok')::integer) as failed from lakegauge_api.lake_access \
                 where {RAW_EVENTS} and bucket ~ '^(${{bucket:regex}})$' \
                 group by principal order by requests desc limit 20"
            ))
            .columns(&[
                ("requests", "short"),
                ("bytes", "decbytes"),
                ("written", "decbytes"),
                ("failed", "percentunit"),
            ])
            .size(12, 8),
        ],
    }
}

fn objects() -> Row {
    let written = format!(
        "{RAW_EVENTS} and operation in ('write', 'copy') and outcome = 'ok' \
         and object_bytes is not null and bucket ~ '^(${{bucket:regex}})$'"
    );
    Row {
        title: "Objects that were written",
        panels: vec![
            Panel::new(
                Form::Columns,
                "Object sizes",
                "short",
                "Objects written in the 15 minutes before the end of the range. Many below 32 MB: \
                 readers open more files than they read data.",
            )
            .sql(format!(
                "with sized as (select width_bucket(object_bytes, array[1024, 32768, 1048576, \
                 33554432, 134217728, 536870912]) as size \
                 from lakegauge_api.lake_access where {written}) \
                 select (array['below 1 KiB', '1 KiB', '32 KiB', '1 MiB', '32 MiB', '128 MiB', \
                 '512 MiB and more'])[size + 1] as \"from\", count(*) as objects \
                 from sized group by size order by size"
            )),
            Panel::new(
                Form::Table,
                "Small files per bucket",
                "none",
                "Share of written objects below 32 MB. Above a half: compact, or write less often; \
                 compare with the planner's time of queries over that bucket.",
            )
            .sql(format!(
                "select bucket, count(*) as objects, \
                 avg((object_bytes < 32000000)::integer) as small, \
                 percentile_cont(0.5) within group (order by object_bytes) as median \
                 from lakegauge_api.lake_access \
                 where {written} group by bucket order by small desc limit 50"
            ))
            .columns(&[("objects", "short"), ("small", "percentunit"), ("median", "decbytes")])
            .size(12, 8),
        ],
    }
}
