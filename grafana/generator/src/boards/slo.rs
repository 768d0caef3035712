//! Objectives, what is left of their budgets, and how fast they burn.

use crate::{
    board::{Board, Row, Variable},
    panel::{Form, Panel},
};

pub(super) fn board() -> Board {
    Board {
        uid: "lakegauge-slo",
        title: "SLO",
        description: "Do we keep what we promised, and for how long at this rate?",
        from: "now-24h",
        refresh: "1m",
        variables: vec![Variable::Prometheus, Variable::Environment],
        rows: vec![budgets(), burning(), behind()],
    }
}

fn budgets() -> Row {
    Row {
        title: "Objectives (prometheus/rules/settings.yml)",
        panels: vec![
            Panel::new(
                Form::Number,
                "Objective",
                "percentunit",
                "What was promised. An objective that nobody needs is worse than none: change it.",
            )
            .ask("lakegauge:slo_objective:ratio", "{{slo}}")
            .size(12, 5),
            Panel::new(
                Form::Number,
                "Kept, last 24 hours",
                "percentunit",
                "What was delivered. Below the objective: no risky changes until it recovers.",
            )
            .ask("1 - lakegauge:slo_error:ratio_rate1d", "{{slo}}")
            .size(12, 5),
            Panel::new(
                Form::Bars,
                "Error budget left, three days",
                "percentunit",
                "1 is untouched, 0 used up, below 0 overspent. Which alert comes when: runbook, \
                 LakegaugeErrorBudgetBurn.",
            )
            .ask("lakegauge:slo_error_budget_remaining:ratio3d", "{{slo}}")
            .between(-1.0, 1.0),
            Panel::new(
                Form::Bars,
                "Burn rate, last hour",
                "none",
                "How many times faster than planned the budget is used. Above 14.4 it pages, above \
                 1 for days it is a ticket.",
            )
            .ask("lakegauge:slo_burn_rate:ratio1h", "{{slo}}")
            .colours(&[(1.0, "orange"), (14.4, "red")])
            .between(0.0, 20.0),
        ],
    }
}

fn burning() -> Row {
    let window = |panel: Panel, window: &str, name: &str| {
        panel.ask(
            format!(
                "lakegauge:slo_error:ratio_rate{window} \
                 / on (slo) group_left () lakegauge:slo_error_budget:ratio"
            ),
            &format!("{{{{slo}}}}, {name}"),
        )
    };
    let page = Panel::new(
        Form::Lines,
        "Burn rate: page",
        "none",
        "Both windows above 14.4 (1 h and 5 min) or 6 (6 h and 30 min) page somebody. Only the \
         short one up: it has just begun, or it is over.",
    );
    let ticket = Panel::new(
        Form::Lines,
        "Burn rate: ticket",
        "none",
        "Both windows above 3 (1 d and 2 h) or 1 (3 d and 6 h) for an hour make a ticket.",
    );
    let page = window(window(page, "1h", "1 h"), "5m", "5 min").colours(&[(14.4, "red")]);
    let page = window(window(page, "6h", "6 h"), "30m", "30 min");
    let ticket = window(window(ticket, "1d", "1 d"), "2h", "2 h").colours(&[(3.0, "orange")]);
    let ticket = window(window(ticket, "3d", "3 d"), "6h", "6 h");
    Row { title: "How fast", panels: vec![page, ticket] }
}

fn behind() -> Row {
    let within = "histogram_quantile(0.95, sum by (le) \
         (rate(data_warehouse_response_duration_seconds_bucket[$__rate_interval])))";
    Row {
        title: "What is behind it",
        panels: vec![
            Panel::new(
                Form::Lines,
                "Response time, p95 against 10 s",
                "s",
                "95 % of the queries must answer within 10 s. Above: Data warehouse, queue against \
                 execution.",
            )
            .ask(within, "p95")
            .colours(&[(10.0, "red")]),
            Panel::new(
                Form::Lines,
                "Age of the data against a minute",
                "s",
                "The newest event of each side must be younger than a minute 99 % of the time. \
                 Above: Pipeline, from the left.",
            )
            .ask("lakegauge:data_age:seconds", "{{side}}")
            .colours(&[(60.0, "red")]),
            Panel::new(
                Form::Lines,
                "Missed a second",
                "eps",
                "Events that missed their objective. Spikes burn little, a carpet burns everything.",
            )
            .ask("lakegauge:slo_bad_events:rate5m", "{{slo}}"),
            Panel::new(
                Form::Lines,
                "Counted a second",
                "eps",
                "What the ratios are of. With few events one failure is a large share.",
            )
            .ask("lakegauge:slo_events:rate5m", "{{slo}}"),
        ],
    }
}
