//! The live line: rates, lag and the four metrics.

use std::time::Duration;

use service_kit::terminal::grouped;

use crate::readings::PartReadings;

/// The line for the current and the previous readings, taken `apart` from each other.
pub(crate) fn line(
    running: Duration,
    now: &PartReadings,
    before: &PartReadings,
    apart: Duration,
) -> String {
    let mut parts = vec![clock_face(running)];
    if let Some(rate) = rate(now.published, before.published, apart) {
        parts.push(format!("in {}/s", grouped(rate)));
    }
    if let Some(rate) = rate(now.archived, before.archived, apart) {
        parts.push(format!("archived {}/s", grouped(rate)));
    }
    parts.push(format!("lag {} + {}", lag(now.archiver_lag), lag(now.aggregator_lag)));
    match &now.four {
        Some(four) => {
            parts.push(format!("{:.3} GB", four.used_gb));
            parts.push(format!("{} accesses", grouped(four.accesses)));
            parts.push(format!("{:.1} ms", four.response_ms));
            parts.push(format!("{} rows", grouped(four.records)));
        }
        None => parts.push("catching up".to_owned()),
    }
    parts.join(" | ")
}

/// `1:02:03`, or `02:03` in the first hour.
pub(crate) fn clock_face(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours == 0 {
        format!("{minutes:02}:{seconds:02}")
    } else {
        format!("{hours}:{minutes:02}:{seconds:02}")
    }
}

fn rate(now: Option<f64>, before: Option<f64>, apart: Duration) -> Option<f64> {
    let grown = now? - before?;
    // A counter that decreased belongs to a process that was restarted.
    (!apart.is_zero()).then(|| (grown / apart.as_secs_f64()).max(0.0))
}

fn lag(lag: Option<f64>) -> String {
    lag.map_or_else(|| "?".to_owned(), grouped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aggregator::api::KeyMetrics;

    #[test]
    fn the_line_has_rates_lag_and_the_four() {
        let before =
            PartReadings { published: Some(0.0), archived: Some(0.0), ..PartReadings::default() };
        let now = PartReadings {
            published: Some(10_000.0),
            archived: Some(9_000.0),
            archiver_lag: Some(12.0),
            aggregator_lag: Some(0.0),
            four: Some(KeyMetrics {
                used_gb: 1.5,
                accesses: 8_000.0,
                response_ms: 532.06,
                records: 9_876_543.0,
            }),
        };
        let text = line(Duration::from_secs(3_723), &now, &before, Duration::from_secs(2));
        assert_eq!(
            text,
            "1:02:03 | in 5,000/s | archived 4,500/s | lag 12 + 0 | 1.500 GB | 8,000 accesses | \
             532.1 ms | 9,876,543 rows"
        );
    }

    #[test]
    fn what_is_not_known_is_not_invented() {
        let nothing = PartReadings::default();
        let text = line(Duration::from_secs(5), &nothing, &nothing, Duration::from_secs(1));
        assert_eq!(text, "00:05 | lag ? + ? | catching up");
    }
}
