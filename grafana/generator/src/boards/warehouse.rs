//! The data warehouse: how fast it answers, why not faster, and for whom it works.

use crate::{
    board::{Board, Row, Variable},
    panel::{Form, Panel},
};

/// Raw events are many: panels over them look at the end of the range only.
const RAW_EVENTS: &str = "occurred_at between greatest($__timeFrom()::timestamptz, \
     $__timeTo()::timestamptz - interval '15 minutes') and $__timeTo()::timestamptz \
     and warehouse ~ '^(${warehouse:regex})$' and principal ~ '^(${tenant:regex})$'";

pub(super) fn board() -> Board {
    Board {
        uid: "lakegauge-warehouse",
        title: "Data warehouse",
        description: "How fast does the warehouse answer, why not faster, and for whom does it work?",
        from: "now-1h",
        refresh: "30s",
        variables: vec![
            Variable::Prometheus,
            Variable::Environment,
            Variable::Archive,
            Variable::Warehouse,
            Variable::Tenant,
        ],
        rows: vec![response(), load(), who()],
    }
}

/// The rate of a counter of the chosen warehouses.
fn rate(metric: &str, by: &str) -> String {
    format!("sum{by} (rate({metric}{{warehouse=~\"$warehouse\"}}[$__rate_interval]))")
}

fn quantile(share: &str, by: &str) -> String {
    let buckets = rate("data_warehouse_response_duration_seconds_bucket", by);
    format!("histogram_quantile({share}, {buckets})")
}

fn response() -> Row {
    let (count, sum, queued) = (
        rate("data_warehouse_response_duration_seconds_count", ""),
        rate("data_warehouse_response_duration_seconds_sum", ""),
        rate("data_warehouse_queued_seconds_total", ""),
    );
    Row {
        title: "Response time",
        panels: vec![
            Panel::new(
                Form::Lines,
                "Percentiles",
                "s",
                "Queue and execution together. p50 up: everything is slower. Only p99 up: a few \
                 heavy queries, see patterns below.",
            )
            .ask(quantile("0.5", " by (le)"), "p50")
            .ask(quantile("0.95", " by (le)"), "p95")
            .ask(quantile("0.99", " by (le)"), "p99"),
            Panel::new(
                Form::Heatmap,
                "Heat map",
                "s",
                "How many queries took how long. Two bands are two kinds of work; a band that moves \
                 up is a regression.",
            )
            .ask(
                "sum by (le) (increase(data_warehouse_response_duration_seconds_bucket\
                 {warehouse=~\"$warehouse\"}[$__rate_interval]))",
                "{{le}}",
            ),
            Panel::new(
                Form::Lines,
                "Queue against execution",
                "s",
                "Mean time waited and worked per query. Waiting: more slots or less at once. \
                 Working: the statements.",
            )
            .ask(format!("{queued} / ({count} > 0)"), "queued")
            .ask(format!("({sum} - {queued}) / ({count} > 0)"), "executed"),
            Panel::new(
                Form::Bars,
                "Slowest warehouses, p95",
                "s",
                "The ten slowest. One alone: its load or its size; all: what they share.",
            )
            .ask(format!("topk(10, {})", quantile("0.95", " by (le, warehouse)")), "{{warehouse}}"),
            Panel::new(
                Form::Lines,
                "The seed's mean, over all aggregators",
                "ms",
                "The mean over 60 seconds that data_warehouse_tempo_resposta_ms shows, weighted by \
                 queries where there are several aggregators.",
            )
            .ask("lakegauge:warehouse_response_window:mean_ms", "mean"),
            Panel::new(
                Form::Lines,
                "Median of 15 minutes against last week",
                "s",
                "LakegaugeResponseTimeAboveBaseline comes at three times last week's. Nothing for last week: \
                 there is no week of data yet.",
            )
            .ask("lakegauge:warehouse_response_seconds:p50_15m", "now")
            .ask("lakegauge:warehouse_response_seconds:p50_15m offset 1w", "last week"),
        ],
    }
}

fn load() -> Row {
    Row {
        title: "Load",
        panels: vec![
            Panel::new(
                Form::Lines,
                "Queries by statement",
                "reqps",
                "The mix of work. A new kind, or one that vanished, is a job that changed.",
            )
            .ask(rate("data_warehouse_queries_total", " by (statement)"), "{{statement}}"),
            Panel::new(
                Form::Lines,
                "Failures by error",
                "reqps",
                "cancelled and client_error are the user's; timeout and server_error the \
                 warehouse's (LakegaugeErrorBudgetBurn). A step: what was deployed?",
            )
            .ask(
                "sum by (outcome) (rate(data_warehouse_queries_total\
                 {warehouse=~\"$warehouse\", outcome!=\"ok\"}[$__rate_interval]))",
                "{{outcome}}",
            ),
            Panel::new(
                Form::Lines,
                "Records processed",
                "cps",
                "Rows read or written a second. A drop with the same queries: data is missing.",
            )
            .ask(rate("data_warehouse_records_processed_total", ""), "rows"),
            Panel::new(
                Form::Lines,
                "Bytes scanned",
                "Bps",
                "Bytes read from storage a second: what many warehouses are paid by. Up with the \
                 same queries: a filter or partition is lost.",
            )
            .ask(rate("data_warehouse_bytes_scanned_total", ""), "scanned"),
            Panel::new(
                Form::Lines,
                "Answered from a cache",
                "percentunit",
                "Share of queries. Down: data changes more often, or statements differ in a \
                 constant; the same work is done again.",
            )
            .ask(
                format!(
                    "{} / ({} > 0)",
                    rate("data_warehouse_cache_hits_total", ""),
                    rate("data_warehouse_queries_total", "")
                ),
                "hits",
            ),
            Panel::new(
                Form::Bars,
                "Busiest warehouses",
                "reqps",
                "The ten with most queries. A few do most of the work everywhere; one that is new \
                 here is a surprise.",
            )
            .ask(
                format!("topk(10, {})", rate("data_warehouse_queries_total", " by (warehouse)")),
                "{{warehouse}}",
            ),
            Panel::new(
                Form::Lines,
                "Withdrawn",
                "short",
                "Queries that a source reported wrongly and that were withdrawn since the first event, \
                 and their rows. Counters and durations on these boards still have them, the mean \
                 response time and the archive's panels don't.",
            )
            .ask(
                "sum(data_warehouse_queries_withdrawn_total{warehouse=~\"$warehouse\"})",
                "queries",
            )
            .ask(
                "sum(data_warehouse_records_withdrawn_total{warehouse=~\"$warehouse\"})",
                "rows",
            ),
        ],
    }
}

fn who() -> Row {
    let columns = [
        ("queries", "short"),
        ("total_time", "s"),
        ("mean_time", "s"),
        ("p95", "s"),
        ("queued", "s"),
        ("rows", "short"),
        ("scanned", "decbytes"),
        ("cached", "percentunit"),
        ("failed", "percentunit"),
    ];
    let sums = "count(*) as queries, sum(queued_us + executed_us) / 1e6 as total_time, \
         percentile_cont(0.95) within group (order by queued_us + executed_us) / 1e6 as p95, \
         sum(queued_us) / 1e6 as queued, sum(rows_processed) as rows, \
         sum(bytes_scanned) as scanned, avg(cache_hit::integer) as cached, \
         avg((outcome <> 'ok')::integer) as failed";
    Row {
        title: "Who and what (the 15 minutes before the end of the range)",
        panels: vec![
            Panel::new(
                Form::Table,
                "Tenants",
                "none",
                "Work per principal: whom the time and the bytes belong to. The first in total time \
                 is where a change pays most.",
            )
            .sql(format!(
                "select principal as tenant, {sums} \
                 from lakegauge_api.warehouse_query where {RAW_EVENTS} \
                 group by principal order by total_time desc limit 20"
            ))
            .columns(&columns),
            Panel::new(
                Form::Table,
                "Repeated query patterns",
                "none",
                "Statements that differ only in constants, by their fingerprint. Many runs that are \
                 never cached: a materialised view, or a cache.",
            )
            .sql(format!(
                "select fingerprint, min(warehouse) as warehouse, min(statement) as statement, \
                 {sums} from lakegauge_api.warehouse_query where {RAW_EVENTS} \
                 group by fingerprint order by total_time desc limit 20"
            ))
            .columns(&columns),
        ],
    }
}
