//! What a model generates, compared with what was published.

use std::fmt::Write as _;

use crate::rng::{length, to_f64, to_u64};

/// How many events the sample of a description has.
pub const SAMPLE_EVENTS: u32 = 1_000_000;
/// The seed of a description, if no other is given.
pub const SAMPLE_SEED: u64 = 1;

/// How close the generated figure must be to the published one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Within {
    /// Relative to the published figure, in per cent.
    Percent(f64),
    /// For shares, in percentage points.
    Points(f64),
    /// The figure is shown but not checked.
    Free,
}

/// Tolerance of medians.
pub const MEDIAN: Within = Within::Percent(5.0);
/// Tolerance of the 99th percentile and of figures that are as uncertain.
pub const TAIL: Within = Within::Percent(15.0);
/// Tolerance of shares.
pub const SHARE: Within = Within::Points(1.0);

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A share, as a fraction.
    Share,
    /// Bytes.
    Bytes,
    /// Microseconds.
    Micros,
    /// A plain number.
    Plain,
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What the figure is.
    pub what: String,
    /// The unit of the figure.
    pub unit: Unit,
    /// The figure of the model.
    pub generated: f64,
    /// The published figure, if there is one.
    pub published: Option<f64>,
    /// How close the two must be.
    pub within: Within,
    /// Where the figure was published, or that it is a guess.
    pub source: &'static str,
}

impl Figure {
    /// Whether the generated figure is as close to the published one as it must be.
    pub fn holds(&self) -> bool {
        let Some(published) = self.published else { return true };
        match self.within {
            Within::Percent(percent) => (self.generated / published - 1.0).abs() * 100.0 <= percent,
            Within::Points(points) => (self.generated - published).abs() * 100.0 <= points,
            Within::Free => true,
        }
    }
}

/// The rows as a table for people.
pub fn render(rows: &[Figure]) -> String {
    let mut lines: Vec<[String; 5]> =
        vec![["", "generated", "published", "within", "source"].map(str::to_owned)];
    for row in rows {
        let within = match (row.published, row.within) {
            (None, _) | (_, Within::Free) => String::new(),
            (Some(_), Within::Percent(percent)) => format!("{percent} %"),
            (Some(_), Within::Points(points)) => format!("{points} points"),
        };
        let within = if row.holds() { within } else { format!("NOT {within}") };
        lines.push([
            row.what.clone(),
            text_of(row.generated, row.unit),
            row.published.map_or_else(String::new, |figure| text_of(figure, row.unit)),
            within,
            row.source.to_owned(),
        ]);
    }
    let width = |column: usize| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
    };
    let widths = [width(0), width(1), width(2), width(3)];
    let mut text = String::new();
    for [what, generated, published, within, source] in &lines {
        let line = format!(
            "{what:<w0$}  {generated:>w1$}  {published:>w2$}  {within:<w3$}  {source}",
            w0 = widths[0],
            w1 = widths[1],
            w2 = widths[2],
            w3 = widths[3],
        );
        // Writing to a string never fails.
        writeln!(text, "{}", line.trim_end()).unwrap_or_default();
    }
    text
}

fn text_of(figure: f64, unit: Unit) -> String {
    let scaled = |steps: &[(f64, &str)]| {
        let step = steps.iter().rev().find(|(size, _)| figure.abs() >= *size).unwrap_or(&steps[0]);
        format!("{} {}", three_digits(figure / step.0), step.1)
    };
    match unit {
        Unit::Share => format!("{:.2} %", figure * 100.0),
        Unit::Bytes => scaled(&[(1.0, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB")]),
        Unit::Micros => scaled(&[(1.0, "µs"), (1e3, "ms"), (1e6, "s"), (3.6e9, "h")]),
        Unit::Plain => three_digits(figure),
    }
}

fn three_digits(figure: f64) -> String {
    let size = figure.abs();
    if size >= 99.95 {
        format!("{figure:.0}")
    } else if size >= 9.995 {
        format!("{figure:.1}")
    } else {
        format!("{figure:.2}")
    }
}

/// Sampled values of one quantity.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sampled(Vec<u64>);

impl Sampled {
    pub(crate) fn push(&mut self, value: u64) {
        self.0.push(value);
    }

    pub(crate) fn len(&self) -> f64 {
        to_f64(length(&self.0))
    }

    /// The smallest sampled value such that the share `u` of the sample is not above it; 0 for an
    /// empty sample.
    pub(crate) fn quantile(&mut self, u: f64) -> f64 {
        self.0.sort_unstable();
        let rank = (self.len() * u).ceil() - 1.0;
        self.0.get(usize::try_from(to_u64(rank)).unwrap_or(0)).map_or(0.0, |value| to_f64(*value))
    }

    pub(crate) fn mean(&self) -> f64 {
        if self.0.is_empty() {
            0.0
        } else {
            self.0.iter().copied().map(to_f64).sum::<f64>() / self.len()
        }
    }

    /// The share of the values that satisfy a condition.
    pub(crate) fn share(&self, holds: impl Fn(u64) -> bool) -> f64 {
        let held = self.0.iter().filter(|value| holds(**value)).count();
        to_f64(u64::try_from(held).unwrap_or(0)) / self.len().max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(generated: f64, within: Within) -> Figure {
        let (what, unit) = ("size".to_owned(), Unit::Bytes);
        Figure { what, unit, generated, published: Some(0.5), within, source: "a trace" }
    }

    #[test]
    fn a_row_holds_as_far_as_it_says() {
        assert!(row(0.52, MEDIAN).holds() && !row(0.53, MEDIAN).holds());
        assert!(row(0.509, SHARE).holds() && !row(0.511, SHARE).holds());
        assert!(row(9.0, Within::Free).holds());
    }

    #[test]
    fn a_table_has_a_line_a_row_and_says_what_does_not_hold() {
        let rows = [row(65_760.0, Within::Free), row(0.6, MEDIAN)];
        let text = render(&rows);
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("65.8 kB") && text.contains("NOT 5 %"), "{text}");
    }

    #[test]
    fn quantiles_of_a_sample_are_of_its_values() {
        let mut sampled = Sampled::default();
        (1..=100).rev().for_each(|value| sampled.push(value));
        assert_eq!(sampled.quantile(0.5), 50.0);
        assert_eq!(sampled.quantile(0.99), 99.0);
        assert_eq!(sampled.quantile(0.0), 1.0);
        assert_eq!(Sampled::default().quantile(0.5), 0.0);
    }
}
