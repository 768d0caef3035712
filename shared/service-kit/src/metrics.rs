//! Registration of metrics, and conversion of numbers for them.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, core::Collector,
};

/// Declares metrics as a struct: each is written once, with its field, its kind, its name and its
/// help text. A kind is a method of [`Registrar`]; further arguments of the method follow the help
/// text.
///
/// ```
/// service_kit::metrics! {
///     /// How a queue is doing.
///     #[derive(Debug)]
///     pub struct QueueMetrics {
///         length: gauge("queue_length", "Items that wait."),
///         taken: counters("queue_taken_total", "Items taken, by how they ended.", &["result"]),
///     }
/// }
/// let registry = prometheus::Registry::new();
/// let metrics = QueueMetrics::register(&registry).unwrap();
/// metrics.length.set(7);
/// metrics.taken.with_label_values(&["done"]).inc();
/// ```
#[macro_export]
macro_rules! metrics {
    (
        $(#[$attribute:meta])*
        $vis:vis struct $Name:ident {
            $($field:ident: $kind:ident($name:literal, $help:literal $(, $more:expr)? $(,)?),)+
        }
    ) => {
        $(#[$attribute])*
        $vis struct $Name {
            $($field: $crate::metrics::kind::$kind,)+
        }

        impl $Name {
            /// Registers them.
            ///
            /// # Errors
            ///
            /// A name that is taken: a mistake of ours.
            $vis fn register<'a>(
                all: impl Into<$crate::metrics::Registrar<'a>>,
            ) -> $crate::metrics::kind::Registered<Self> {
                let all = all.into();
                Ok(Self { $($field: all.$kind($name, $help $(, $more)?)?,)+ })
            }
        }
    };
}

/// The type of each kind of metric, by the name of the method that registers it.
#[doc(hidden)]
#[expect(non_camel_case_types, reason = "the names are those of the methods")]
pub mod kind {
    pub type counter = prometheus::IntCounter;
    pub type counters = prometheus::IntCounterVec;
    pub type gauge = prometheus::IntGauge;
    pub type gauges = prometheus::IntGaugeVec;
    pub type known_gauge = super::KnownGauge;
    pub type float_gauge = prometheus::Gauge;
    pub type float_gauges = prometheus::GaugeVec;
    pub type histogram = prometheus::Histogram;
    pub type Registered<T> = prometheus::Result<T>;
}

/// Registers metrics, each with its name and help text. Each method fails if the name is in use or
/// not allowed, which is a programming error.
#[derive(Clone, Copy, Debug)]
pub struct Registrar<'a> {
    registry: &'a Registry,
    /// A label of every metric, with its value.
    label: Option<(&'a str, &'a str)>,
}

/// For metrics that exist once.
impl<'a> From<&'a Registry> for Registrar<'a> {
    fn from(registry: &'a Registry) -> Self {
        Self { registry, label: None }
    }
}

impl<'a> Registrar<'a> {
    /// For metrics that exist once for each value of a label, for example for each stream.
    pub const fn with_label(registry: &'a Registry, name: &'a str, value: &'a str) -> Self {
        Self { registry, label: Some((name, value)) }
    }

    /// A counter.
    pub fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.registered(IntCounter::with_opts(self.options(name, help))?)
    }

    /// Counters, one for each value of further labels.
    pub fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.registered(IntCounterVec::new(self.options(name, help), labels)?)
    }

    /// A gauge of whole numbers.
    pub fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.registered(IntGauge::with_opts(self.options(name, help))?)
    }

    /// Gauges of whole numbers, one for each value of further labels.
    pub fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntGaugeVec> {
        self.registered(IntGaugeVec::new(self.options(name, help), labels)?)
    }

    /// A gauge of whole numbers that is missing until it is set.
    pub fn known_gauge(&self, name: &str, help: &str) -> prometheus::Result<KnownGauge> {
        self.gauges(name, help, NO_LABELS).map(KnownGauge)
    }

    /// A gauge of any number.
    pub fn float_gauge(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.registered(Gauge::with_opts(self.options(name, help))?)
    }

    /// Gauges of any number, one for each value of further labels.
    pub fn float_gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<GaugeVec> {
        self.registered(GaugeVec::new(self.options(name, help), labels)?)
    }

    /// A histogram with these boundaries.
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        boundaries: &[f64],
    ) -> prometheus::Result<Histogram> {
        let common_opts = self.options(name, help);
        let options = HistogramOpts { common_opts, buckets: boundaries.to_vec() };
        self.registered(Histogram::with_opts(options)?)
    }

    fn options(&self, name: &str, help: &str) -> Opts {
        let options = Opts::new(name, help);
        match self.label {
            Some((label, value)) => options.const_label(label, value),
            None => options,
        }
    }

    fn registered<C: Collector + Clone + 'static>(&self, collector: C) -> prometheus::Result<C> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

/// A gauge that is missing until its value is known, because 0 would be a value.
#[derive(Clone, Debug)]
pub struct KnownGauge(IntGaugeVec);

const NO_LABELS: &[&str] = &[];

impl KnownGauge {
    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.0.with_label_values(NO_LABELS).set(value);
    }

    /// The value, if it is known.
    pub fn get(&self) -> Option<i64> {
        let is_known = self.0.collect().iter().any(|family| !family.get_metric().is_empty());
        is_known.then(|| self.0.with_label_values(NO_LABELS).get())
    }

    /// Removes the value, because it is no longer known.
    pub fn forget(&self) {
        self.0.reset();
    }
}

/// Raises a counter to a sum that is kept elsewhere and never decreases.
pub fn raise(counter: &IntCounter, sum: u64) {
    counter.inc_by(sum.saturating_sub(counter.get()));
}

/// A count for a gauge.
pub fn clamped(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A count for a metric: exact up to 2^53, then rounded.
#[expect(clippy::as_conversions, reason = "rounding to 53 bits is what is wanted")]
pub const fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn the_metrics_of_each_value_of_a_label_are_one_family() {
        let registry = Registry::new();
        for stream in ["LAKE_0", "WAREHOUSE_0"] {
            let all = Registrar::with_label(&registry, "stream", stream);
            all.gauge("position", "Where it is.").unwrap().set(7);
            all.counters("events", "How many.", &["result"])
                .unwrap()
                .with_label_values(&["new"])
                .inc();
            all.gauge("position", "Where it is.").unwrap_err();
        }
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        assert_eq!(
            lines,
            [
                "# TYPE events counter",
                "events{result=\"new\",stream=\"LAKE_0\"} 1",
                "events{result=\"new\",stream=\"WAREHOUSE_0\"} 1",
                "# TYPE position gauge",
                "position{stream=\"LAKE_0\"} 7",
                "position{stream=\"WAREHOUSE_0\"} 7",
            ]
        );
    }

    #[test]
    fn what_is_not_known_has_no_series_and_a_sum_only_rises() {
        let registry = Registry::new();
        let all = Registrar::from(&registry);
        let known = all.known_gauge("bound", "Bound.").unwrap();
        let sum = all.counter("sum_total", "Sum.").unwrap();
        let series = || {
            let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned);
            lines.collect::<Vec<_>>()
        };
        assert_eq!(series(), ["sum_total 0"]);
        known.set(0);
        raise(&sum, 7);
        assert_eq!(
            (series(), known.get()),
            (vec!["bound 0".to_owned(), "sum_total 7".to_owned()], Some(0))
        );
        known.forget();
        assert_eq!(known.get(), None);
        raise(&sum, 5);
        assert_eq!(series(), ["sum_total 7"]);
    }
}
