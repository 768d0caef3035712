//! Which sources send events, and when they last did. The number of series is bounded.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use prometheus::{IntCounter, IntGauge};
use service_kit::metrics::Registrar;
use wire::Subjects;

/// The most sources of a stream with their own series. The rest is counted as `other`, like buckets
/// and warehouses: names come from outside, without a limit.
const NAMED_MAX: usize = 50;
/// The name for all other sources. A source with this name is counted among them.
const OTHER: &str = "other";

service_kit::metrics! {
    /// The series of one stream.
    #[derive(Clone, Debug)]
    struct Series {
        events: counters("lakegauge_aggregator_source_events_total",
            "Events counted by this process, by source; other: all sources after the first 50.",
            &["source"]),
        heard: gauges("lakegauge_aggregator_source_last_message_timestamp_seconds",
            "When the broker stored the newest message of a source.", &["source"]),
    }
}

/// Counts the events of a stream by their sources.
#[derive(Debug)]
pub(crate) struct SourceMetrics {
    series: Series,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The source of the last message, since the next one usually comes from the same source.
    last: Option<(String, OneSource)>,
    by_name: BTreeMap<String, OneSource>,
}

#[derive(Clone, Debug)]
struct OneSource {
    events: IntCounter,
    heard: IntGauge,
}

impl SourceMetrics {
    /// The metrics of a stream; they are empty until a source sends a message.
    ///
    /// # Errors
    ///
    /// A metric's name is taken, which is a programming error.
    pub(crate) fn register(all: Registrar<'_>) -> prometheus::Result<Self> {
        Ok(Self { series: Series::register(all)?, known: Mutex::default() })
    }

    /// Records a message and the number of its new events. `subject` is without the prefix;
    /// `broker_ns` is when the broker stored the message, in nanoseconds since 1970. Subjects
    /// without a source, like those of verdicts, are ignored.
    pub(crate) fn observe(&self, subject: &str, broker_ns: i64, events: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_last = known.last.as_ref().is_some_and(|(last, _)| last == subject);
        if !is_last {
            let Some(name) = Subjects::source(subject) else { return };
            let source = self.source(&mut known.by_name, name);
            known.last = Some((subject.to_owned(), source));
        }
        if let Some((_, source)) = &known.last {
            source.events.inc_by(events);
            let taken_at_s = broker_ns / 1_000_000_000;
            source.heard.set(taken_at_s.max(source.heard.get()));
        }
    }

    fn source(&self, by_name: &mut BTreeMap<String, OneSource>, name: String) -> OneSource {
        let name = if by_name.len() < NAMED_MAX || by_name.contains_key(&name) {
            name
        } else {
            OTHER.to_owned()
        };
        let labels = [name.as_str()];
        let one = || OneSource {
            events: self.series.events.with_label_values(&labels),
            heard: self.series.heard.with_label_values(&labels),
        };
        by_name.entry(name.clone()).or_insert_with(one).clone()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    const SECOND_NS: i64 = 1_000_000_000;

    #[test]
    fn events_are_counted_by_source_and_names_have_an_end() {
        let registry = Registry::new();
        let all = Registrar::with_label(&registry, "stream", "LAKE_0");
        let sources = SourceMetrics::register(all).unwrap();
        sources.observe("lake.access.0.git", 7 * SECOND_NS, 3);
        sources.observe("lake.access.0.git", 9 * SECOND_NS, 1);
        sources.observe("lake.inventory.0.git", 8 * SECOND_NS, 1);
        sources.observe("lake.late.0", 30 * SECOND_NS, 1);
        for number in 0..10_000 {
            sources.observe(&format!("lake.access.0.hostile-{number}"), SECOND_NS, 2);
        }
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let says = |metric: &str, source: &str, value: &str| {
            let line = format!(
                "lakegauge_aggregator_source_{metric}{{source=\"{source}\",stream=\"LAKE_0\"}} \
                 {value}"
            );
            assert!(text.lines().any(|found| found == line), "{line} of\n{text}");
        };
        says("events_total", "git", "5");
        says("last_message_timestamp_seconds", "git", "9");
        says("events_total", "hostile-48", "2");
        says("events_total", OTHER, "19902");
        let series = text.lines().filter(|line| line.contains("events_total{")).count();
        assert_eq!(series, NAMED_MAX + 1);
    }
}
