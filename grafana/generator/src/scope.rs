//! The choice of an installation, put into every expression: several can share one Prometheus.

/// What begins the name of a series that carries the labels of its target.
const OF_TARGETS: [&str; 4] = ["data_", "lakegauge_", "lakegauge:", "process_"];
/// Series of Prometheus itself that carry them.
const OF_PROMETHEUS: [&str; 2] = ["up", "ALERTS"];
/// What `prometheus/rules/settings.yml` says for all installations, and what follows from it alone.
const OF_NOBODY: [&str; 7] = [
    "lakegauge:lake_capacity:",
    "lakegauge:freshness_",
    "lakegauge:lag_limit:",
    "lakegauge:stalled_limit:",
    "lakegauge:unsaved_limit:",
    "lakegauge:slo_objective:",
    "lakegauge:slo_error_budget:",
];
const MATCHER: &str = "environment=~\"$environment\"";

/// The expression for the installations that the variable `environment` names.
pub(crate) fn scoped(expr: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '$');
    let (mut scoped, mut rest) = (String::with_capacity(expr.len() * 2), expr);
    while let Some(first) = rest.chars().next() {
        let length = if first == '"' {
            // The text of a matcher or a function: to its end, over what is escaped.
            let mut escaped = false;
            let end = rest.char_indices().skip(1).find(|(_, c)| {
                let ends = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |(at, _)| at + 1)
        } else if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (word, after) = rest.split_at(length);
        scoped.push_str(word);
        rest = after;
        if is_series(word) {
            if let Some(matchers) = rest.strip_prefix('{') {
                let comma = if matchers.starts_with('}') { "" } else { "," };
                scoped.push_str(&format!("{{{MATCHER}{comma}"));
                rest = matchers;
            } else {
                scoped.push_str(&format!("{{{MATCHER}}}"));
            }
        }
    }
    scoped
}

fn is_series(word: &str) -> bool {
    let begins = |names: &[&str]| names.iter().any(|name| word.starts_with(name));
    OF_PROMETHEUS.contains(&word) || begins(&OF_TARGETS) && !begins(&OF_NOBODY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_of_a_target_is_scoped_and_nothing_else() {
        for (expr, expected) in [
            ("up", "up{environment=~\"$environment\"}"),
            (
                "sum by (bucket) (rate(data_x_total{bucket=~\"$bucket\"}[$__rate_interval]))",
                "sum by (bucket) (rate(data_x_total{environment=~\"$environment\",\
                 bucket=~\"$bucket\"}[$__rate_interval]))",
            ),
            (
                "lakegauge:a:b / on () group_left () lakegauge:lake_capacity:bytes",
                "lakegauge:a:b{environment=~\"$environment\"} / on () group_left () \
                 lakegauge:lake_capacity:bytes",
            ),
            ("label_replace(x, \"up\", \"a \\\" up\", \"\", \"\")", ""),
            ("data_x{}", "data_x{environment=~\"$environment\"}"),
            ("time() - vector(1)", ""),
        ] {
            let expected = if expected.is_empty() { expr } else { expected };
            assert_eq!(scoped(expr), expected);
        }
    }
}
