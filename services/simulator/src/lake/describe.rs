//! What the lake's model generates, compared with what was published.

use std::collections::BTreeMap;

use domain::{Fact, LakeAccess, Operation, Outcome};

use crate::{
    RunSeed,
    arrivals::{Arrivals, RATE_MEASURED, Spread, Traffic},
    describe::{Figure, MEDIAN, SAMPLE_EVENTS, SHARE, Sampled, TAIL, Unit, Within},
    lake::{Config, Lake, LakeShape, WHOLE_READ_SHARE},
    model::Model,
    rng::{SeededRng, length, to_f64},
    scenario::Scenario,
};

const IBM: &str = "IBM COS trace 000, SNIA, first 10,000 requests (54 min)";
const GUESS: &str = "no published figure";
/// Number of requests over which popularity was measured.
const WINDOW: usize = 10_000;

/// Describes a sample with these settings: without incidents, and with a fixed seed unless one is
/// set.
pub fn describe(config: &Config) -> Vec<Figure> {
    let mut sample = Observations::of(config, &config.shape);
    // A million requests have too few writes for a median that is certain within 5 %.
    let only_writes = LakeShape { mix: vec![(Operation::Write, 1.0)], ..config.shape.clone() };
    let mut rows = sample.operations();
    rows.extend(Observations::of(config, &only_writes).writes());
    rows.extend(sample.reads());
    rows.extend(sample.popularity());
    rows.extend(bursts(config));
    rows.extend(sample.guesses());
    rows
}

#[derive(Default)]
struct Observations {
    operations: BTreeMap<Operation, u64>,
    failed: u64,
    written: Sampled,
    read: Sampled,
    whole_reads: u64,
    durations: BTreeMap<Operation, Sampled>,
    /// Keys of the current window, by number.
    window: Vec<u32>,
    windows: Vec<Popularity>,
}

impl Observations {
    fn of(config: &Config, shape: &LakeShape) -> Self {
        let mut sample = Self::default();
        let origin = RunSeed::of_a_sample(&config.common);
        let calm = Scenario::calm();
        let mut model = Lake::new(origin.model_draw(), shape.clone(), calm, origin.run);
        let mut arrivals = origin.arrivals(&config.common, calm);
        for _ in 0..SAMPLE_EVENTS {
            if let Fact::LakeAccess(access) = model.happen(arrivals.advance()).fact {
                sample.add(&access);
            }
        }
        sample
    }

    fn add(&mut self, access: &LakeAccess) {
        *self.operations.entry(access.operation).or_default() += 1;
        self.durations.entry(access.operation).or_default().push(access.duration_us);
        if access.outcome != Outcome::Ok {
            self.failed += 1;
            return;
        }
        match access.operation {
            Operation::Read => {
                self.read.push(access.bytes);
                self.whole_reads += u64::from(access.object_bytes == Some(access.bytes));
            }
            Operation::Write => self.written.push(access.bytes),
            Operation::Head
            | Operation::List
            | Operation::Copy
            | Operation::Delete
            | Operation::Other => {}
        }
        let number = access.key.rsplit_once("part-").and_then(|(_, end)| end.get(..8));
        self.window.extend(number.and_then(|digits| u32::from_str_radix(digits, 16).ok()));
        if self.window.len() == WINDOW {
            self.windows.push(Popularity::of(&mut self.window));
            self.window.clear();
        }
    }

    fn operations(&self) -> Vec<Figure> {
        let published = [
            (Operation::Head, 0.7317),
            (Operation::Read, 0.2322),
            (Operation::Write, 0.0240),
            (Operation::Copy, 0.0117),
            (Operation::Delete, 0.0004),
        ];
        let all = f64::from(SAMPLE_EVENTS);
        let row = |(operation, published): (Operation, f64)| Figure {
            what: format!("{} requests", operation.name()),
            unit: Unit::Share,
            generated: to_f64(self.operations.get(&operation).copied().unwrap_or(0)) / all,
            published: Some(published),
            within: SHARE,
            source: IBM,
        };
        published.into_iter().map(row).collect()
    }

    fn writes(&mut self) -> Vec<Figure> {
        let mut rows = Vec::new();
        for (share, published, within) in [
            (0.10, 1_088.0, TAIL),
            (0.25, 5_384.0, TAIL),
            (0.50, 65_760.0, MEDIAN),
            (0.75, 1_002_496.0, TAIL),
            (0.90, 5_665_856.0, TAIL),
            (0.99, 37_071_419.0, TAIL),
        ] {
            rows.push(Figure {
                what: format!("object written, p{:.0}", share * 100.0),
                unit: Unit::Bytes,
                generated: self.written.quantile(share),
                published: Some(published),
                within,
                source: IBM,
            });
        }
        rows.push(Figure {
            what: "object written, mean".to_owned(),
            unit: Unit::Bytes,
            generated: self.written.mean(),
            published: Some(7_124_227.0),
            within: Within::Free,
            source: IBM,
        });
        rows
    }

    fn reads(&mut self) -> Vec<Figure> {
        let mut rows = Vec::new();
        for (share, published, within) in [
            (0.10, 656.0, TAIL),
            (0.50, 15_088.0, MEDIAN),
            (0.75, 5_205_248.0, TAIL),
            (0.99, 5_681_856.0, TAIL),
        ] {
            rows.push(Figure {
                what: format!("bytes of a read, p{:.0}", share * 100.0),
                unit: Unit::Bytes,
                generated: self.read.quantile(share),
                published: Some(published),
                within,
                source: IBM,
            });
        }
        rows.push(Figure {
            what: "reads of the whole object".to_owned(),
            unit: Unit::Share,
            generated: to_f64(self.whole_reads) / self.read.len().max(1.0),
            published: Some(WHOLE_READ_SHARE),
            within: SHARE,
            source: IBM,
        });
        rows
    }

    fn popularity(&self) -> Vec<Figure> {
        let number = to_f64(length(&self.windows)).max(1.0);
        let mean =
            |figure: fn(&Popularity) -> f64| self.windows.iter().map(figure).sum::<f64>() / number;
        let row = |what: &str, unit, generated, published, within| Figure {
            what: format!("{what}, in 10,000 requests"),
            unit,
            generated,
            published: Some(published),
            within,
            source: IBM,
        };
        vec![
            row("objects asked for", Unit::Plain, mean(|of| of.objects), 1_511.0, TAIL),
            row("top 1 % of objects", Unit::Share, mean(|of| of.top_1), 0.1405, SHARE),
            row("top 10 % of objects", Unit::Share, mean(|of| of.top_10), 0.3666, SHARE),
            row("objects asked for once", Unit::Share, mean(|of| of.once), 0.2747, SHARE),
            row("rank slope", Unit::Plain, mean(|of| of.slope), -0.64, TAIL),
        ]
    }

    fn guesses(&mut self) -> Vec<Figure> {
        let guess = |what: String, unit, generated| Figure {
            what,
            unit,
            generated,
            published: None,
            within: Within::Free,
            source: GUESS,
        };
        let failed = to_f64(self.failed) / f64::from(SAMPLE_EVENTS);
        let mut rows = vec![guess("failed requests".to_owned(), Unit::Share, failed)];
        for (operation, durations) in &mut self.durations {
            for share in [0.5, 0.99] {
                let what = format!("{} duration, p{:.0}", operation.name(), share * 100.0);
                rows.push(guess(what, Unit::Micros, durations.quantile(share)));
            }
        }
        rows
    }
}

/// Bursts at the rate at which they were measured, whatever the configured rate: a faster lake has
/// more sessions at once.
fn bursts(config: &Config) -> Vec<Figure> {
    let traffic = Traffic {
        rate_per_s: RATE_MEASURED,
        burst_events: config.common.burst_events,
        peak_over_trough: 1.0,
    };
    let origin = RunSeed::of_a_sample(&config.common);
    let rng = SeededRng::new(origin.seed, 0);
    let mut arrivals = Arrivals::new(rng, traffic, Scenario::calm(), origin.start);
    let spread = Spread::measure(&mut arrivals, SAMPLE_EVENTS);
    let row = |what: &str, generated, published| Figure {
        what: format!("{what}, at 3.1 requests/s"),
        unit: Unit::Plain,
        generated,
        published: Some(published),
        within: TAIL,
        source: IBM,
    };
    vec![
        row("coefficient of variation of gaps", spread.gap_cv, 5.85),
        row("variance over mean of counts per second", spread.fano_per_s, 41.7),
    ]
}

/// How requests are spread over objects.
struct Popularity {
    objects: f64,
    top_1: f64,
    top_10: f64,
    once: f64,
    slope: f64,
}

impl Popularity {
    fn of(keys: &mut [u32]) -> Self {
        keys.sort_unstable();
        let mut hits: Vec<u64> = keys.chunk_by(|a, b| a == b).map(length).collect();
        hits.sort_unstable_by(|a, b| b.cmp(a));
        let (all, objects) = (to_f64(length(keys)), to_f64(length(&hits)));
        let top = |parts: usize| {
            let count = hits.len().div_ceil(parts);
            to_f64(hits[..count].iter().sum()) / all
        };
        let once = hits.iter().filter(|hits| **hits == 1).count();
        Self {
            objects,
            top_1: top(100),
            top_10: top(10),
            once: to_f64(u64::try_from(once).unwrap_or(0)) / objects,
            slope: slope(&hits),
        }
    }
}

/// Slope of the line through (ln rank, ln hits) of the hundred most popular objects. At higher
/// ranks, where many objects share a small number of hits, the slope depends on the size of the
/// sample.
fn slope(hits: &[u64]) -> f64 {
    let points: Vec<(f64, f64)> = (1_u32..=100)
        .zip(hits)
        .map(|(rank, hits)| (f64::from(rank).ln(), to_f64(*hits).ln()))
        .collect();
    let number = to_f64(length(&points));
    let mean_x = points.iter().map(|point| point.0).sum::<f64>() / number;
    let mean_y = points.iter().map(|point| point.1).sum::<f64>() / number;
    let (mut product, mut square) = (0.0, 0.0);
    for (x, y) in points {
        product += (x - mean_x) * (y - mean_y);
        square += (x - mean_x) * (x - mean_x);
    }
    product / square
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use service_kit::{Flags, Settings};

    use super::*;

    #[test]
    fn the_lake_is_as_published() {
        let environment = BTreeMap::<&str, &str>::new();
        let flags = Flags::default();
        let config = Config::load(&mut Settings::new(&flags, &environment)).unwrap();
        let rows = describe(&config);
        let wrong: Vec<&Figure> = rows.iter().filter(|row| !row.holds()).collect();
        assert!(wrong.is_empty(), "{}", crate::describe::render(&rows));
    }
}
