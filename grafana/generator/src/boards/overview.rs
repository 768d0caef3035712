//! Home: how the lake and the warehouse are, in ten seconds.

use crate::{
    board::{Board, Row, Variable},
    panel::{Form, Panel},
};

pub(super) fn board() -> Board {
    Board {
        uid: "lakegauge-overview",
        title: "Overview",
        description: "How are the lake and the warehouse, now and against before?",
        from: "now-1h",
        refresh: "10s",
        variables: vec![Variable::Prometheus, Variable::Environment],
        rows: vec![four(), health(), before(), growth()],
    }
}

fn four() -> Row {
    Row {
        title: "The four metrics",
        panels: vec![
            Panel::new(
                Form::Number,
                "Data lake: used space",
                "decgbytes",
                "data_lake_espaco_utilizado_gb: bytes stored in the lake now, in GB (10^9 bytes). A \
                 jump is a load or a delete: see Data lake, growth per bucket. No data: runbook, \
                 LakegaugeKeyMetricAbsent.",
            )
            .ask("sum(data_lake_espaco_utilizado_gb)", "used"),
            Panel::new(
                Form::Number,
                "Data lake: accesses",
                "short",
                "data_lake_numero_acessos: requests since the first event, whatever their outcome. \
                 It never goes back. If it stands still, see the age of the data below.",
            )
            .ask("sum(data_lake_numero_acessos)", "accesses"),
            Panel::new(
                Form::Number,
                "Data warehouse: response time",
                "ms",
                "data_warehouse_tempo_resposta_ms: mean of the queries that finished in the last 60 \
                 seconds, queue included. A few long queries move it: see Data warehouse, \
                 percentiles.",
            )
            .ask(
                // Of several aggregators, the mean over their queries.
                "sum(data_warehouse_tempo_resposta_ms * data_warehouse_response_window_queries) \
                 / sum(data_warehouse_response_window_queries)",
                "mean",
            ),
            Panel::new(
                Form::Number,
                "Data warehouse: records processed",
                "short",
                "data_warehouse_registros_processados: rows read or written by finished queries \
                 since the first event. It never goes back. If it stands still, see the age of the \
                 data below.",
            )
            .ask("sum(data_warehouse_registros_processados)", "records"),
        ],
    }
}

fn health() -> Row {
    Row {
        title: "Is all well?",
        panels: vec![
            Panel::new(
                Form::Number,
                "Firing alerts",
                "none",
                "Alerts of the last evaluation; 0 is healthy. Otherwise the table below names them, \
                 and docs/runbook.md says what to do.",
            )
            .ask("count(ALERTS{alertstate=\"firing\"}) or vector(0)", "alerts")
            .colours(&[(1.0, "red")])
            .size(4, 5),
            Panel::new(
                Form::Number,
                "Age of the data",
                "s",
                "Time since the newest event of each side happened. Above a minute: is the source \
                 silent, or the pipeline behind? See Pipeline from left to right.",
            )
            .ask("lakegauge:data_age:seconds", "{{side}}")
            .colours(&[(60.0, "orange"), (300.0, "red")])
            .size(5, 5),
            Panel::new(
                Form::Number,
                "Age of this page",
                "s",
                "Time since Prometheus scraped the metrics last. Above a minute everything here is \
                 of the past: look at Status, Targets in Prometheus.",
            )
            .ask("time() - max(timestamp(up{job=\"lakegauge\"}))", "scraped")
            .colours(&[(60.0, "red")])
            .size(4, 5),
            Panel::new(
                Form::Number,
                "Failing now",
                "percentunit",
                "Share of requests and queries that missed their objective in 5 minutes. Red: see \
                 SLO, then failures on the board of that side.",
            )
            .ask("lakegauge:slo_error:ratio_rate5m{slo=~\".*_success\"}", "{{slo}}")
            .colours(&[(0.01, "orange"), (0.05, "red")])
            .size(5, 5),
            Panel::new(
                Form::Number,
                "Error budget left",
                "percentunit",
                "What is left of three days' budget of each objective. Below 0 it is overspent: see \
                 SLO.",
            )
            .ask("lakegauge:slo_error_budget_remaining:ratio3d", "{{slo}}")
            .size(6, 5),
            Panel::new(
                Form::Table,
                "What is firing",
                "none",
                "Each alert with its labels; empty is healthy. What to do stands in docs/runbook.md \
                 under its name.",
            )
            .ask(
                "count by (alertname, severity, side, slo, stream, service) \
                 (ALERTS{alertstate=\"firing\"})",
                "",
            )
            .otherwise("Nothing fires")
            .size(24, 5),
        ],
    }
}

/// Now, and the same hour yesterday and last week.
fn compared(panel: Panel, now: &str, offset: impl Fn(&str) -> String) -> Panel {
    panel.ask(now, "now").ask(offset("1d"), "yesterday").ask(offset("1w"), "last week").size(12, 8)
}

fn before() -> Row {
    let rate =
        |metric: &str, offset: &str| format!("sum(rate({metric}[$__rate_interval]{offset}))");
    let accesses = "data_lake_accesses_total";
    let records = "data_warehouse_records_processed_total";
    let p95 = |offset: &str| {
        format!(
            "histogram_quantile(0.95, sum by (le) \
             (rate(data_warehouse_response_duration_seconds_bucket[$__rate_interval]{offset})))"
        )
    };
    Row {
        title: "Against the same hour yesterday and last week",
        panels: vec![
            compared(
                Panel::new(
                    Form::Lines,
                    "Accesses of the lake",
                    "reqps",
                    "Far below last week: a source stopped (LakegaugeAccessesBelowBaseline). Far above: see \
                     Data lake, noisy principals.",
                ),
                &rate(accesses, ""),
                |by| rate(accesses, &format!(" offset {by}")),
            ),
            compared(
                Panel::new(
                    Form::Lines,
                    "Response time of the warehouse, p95",
                    "s",
                    "Above last week at this hour: see Data warehouse, queue against execution \
                     (LakegaugeResponseTimeAboveBaseline goes by the median).",
                ),
                &p95(""),
                |by| p95(&format!(" offset {by}")),
            ),
            compared(
                Panel::new(
                    Form::Lines,
                    "Records processed by the warehouse",
                    "cps",
                    "A drop with the same number of queries: data is missing upstream.",
                ),
                &rate(records, ""),
                |by| rate(records, &format!(" offset {by}")),
            ),
            compared(
                Panel::new(
                    Form::Lines,
                    "Used space",
                    "decbytes",
                    "The distance between the lines is the growth of a day and of a week.",
                ),
                "lakegauge:lake_storage_used:bytes",
                |by| format!("lakegauge:lake_storage_used:bytes offset {by}"),
            ),
        ],
    }
}

fn growth() -> Row {
    Row {
        title: "How long will it last?",
        panels: vec![
            Panel::new(
                Form::Number,
                "Growth a day",
                "decbytes",
                "Bytes a day at the rate of the last hour. Which bucket: Data lake.",
            )
            .ask("deriv(lakegauge:lake_storage_used:bytes[1h]) * 86400", "growth"),
            Panel::new(
                Form::Number,
                "Days until full",
                "d",
                "At the growth of the last 6 hours. The capacity is lakegauge:lake_capacity:bytes in \
                 prometheus/rules/settings.yml. Below 7 the alert LakegaugeStorageFullSoon comes.",
            )
            .ask(
                "(lakegauge:lake_capacity:bytes - on () group_right () lakegauge:lake_storage_used:bytes) \
                 / (deriv(lakegauge:lake_storage_used:bytes[6h]) > 0) / 86400",
                "days",
            )
            .otherwise("Not growing"),
            Panel::new(
                Form::Number,
                "Used of the capacity",
                "percentunit",
                "Share of the capacity in use. Above 80 % order more or delete: Data lake shows cold \
                 buckets.",
            )
            .ask(
                "lakegauge:lake_storage_used:bytes \
                 / on () group_left () lakegauge:lake_capacity:bytes",
                "used",
            )
            .colours(&[(0.8, "orange"), (0.95, "red")]),
            Panel::new(
                Form::Number,
                "Waiting in the pipeline",
                "short",
                "Messages that are published and not yet counted or archived. Growing: see Pipeline.",
            )
            .ask("sum(lakegauge_aggregator_lag_messages)", "to count")
            .ask("sum(lakegauge_archiver_lag_messages)", "to archive"),
        ],
    }
}
