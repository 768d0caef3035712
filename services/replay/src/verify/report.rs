//! The result of a verification.

use std::fmt;

use domain::Side;
use serde::Serialize;

/// What was compared, what differs, and what could not be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether everything that was compared agrees.
    pub identical: bool,
    /// blake3 over the digests and counts below, in hexadecimal: two archives with the same digest
    /// fold to the same states.
    pub digest: String,
    /// Results by stream.
    pub streams: Vec<StreamReport>,
    /// Results by side, over all of its streams.
    pub sides: Vec<SideReport>,
    /// What could not be compared, and why.
    pub not_compared: Vec<String>,
}

/// The result of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StreamReport {
    /// Name of the stream.
    pub stream: String,
    /// Epoch up to which the stream is archived.
    pub epoch: u32,
    /// Sequence up to which the stream is archived.
    pub sequence: u64,
    /// Events that the archive counts.
    pub events: u64,
    /// Of these, events that the live aggregator cannot have counted at their position: rows are
    /// missing, doubled or displaced.
    pub unexpected: u64,
    /// blake3 of the encoded state at the end of the archive, in hexadecimal.
    pub digest: String,
    /// Epoch and sequence of the snapshot that was compared.
    pub snapshot: Option<(u32, u64)>,
    /// Samples that were compared.
    pub samples: u64,
    /// Samples that differ.
    pub samples_differing: u64,
    /// Samples of messages that are not archived yet.
    pub samples_ahead: u64,
    /// Losses and ended epochs that the archive has recorded.
    pub declared: Vec<String>,
    /// The first key of the state that differs, and the first sample.
    pub differences: Vec<String>,
}

/// The result of one side's window aggregates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SideReport {
    /// `lake` or `warehouse`.
    pub side: String,
    /// Rows that have windows.
    pub rows: u64,
    /// Windows that were compared.
    pub windows: u64,
    /// Windows that differ.
    pub windows_differing: u64,
    /// Windows of lengths that their stream no longer keeps; they are of an earlier epoch.
    pub windows_of_other_lengths: u64,
    /// Windows whose rows retention has dropped.
    pub windows_of_dropped_days: u64,
    /// The first window that differs.
    pub difference: Option<String>,
}

impl SideReport {
    pub(super) fn of(side: Side) -> Self {
        let side = match side {
            Side::Lake => "lake",
            Side::Warehouse => "warehouse",
        };
        Self { side: side.to_owned(), ..Self::default() }
    }
}

impl Report {
    /// All first differences.
    pub fn differences(&self) -> impl Iterator<Item = &str> {
        let of_streams = self.streams.iter().flat_map(|stream| &stream.differences);
        let of_sides = self.sides.iter().filter_map(|side| side.difference.as_ref());
        of_streams.chain(of_sides).map(String::as_str)
    }

    /// Computes the digest, once all results are complete.
    pub(super) fn finish(&mut self) {
        let mut hasher = blake3::Hasher::new();
        for stream in &self.streams {
            let StreamReport { stream, digest, epoch, sequence, events, samples, .. } = stream;
            let line = format!("{stream} {digest} {epoch} {sequence} {events} {samples}\n");
            hasher.update(line.as_bytes());
        }
        for side in &self.sides {
            let SideReport { side, rows, windows, .. } = side;
            hasher.update(format!("{side} {rows} {windows}\n").as_bytes());
        }
        self.digest = hasher.finalize().to_hex().to_string();
        let identical = self.differences().next().is_none();
        self.identical = identical;
        for side in self.sides.iter().filter(|side| side.windows_of_other_lengths > 0) {
            self.not_compared.push(format!(
                "{}: {} windows have lengths that are not kept any more",
                side.side, side.windows_of_other_lengths
            ));
        }
        for side in self.sides.iter().filter(|side| side.windows_of_dropped_days > 0) {
            self.not_compared.push(format!(
                "{}: the rows of {} windows were dropped by retention",
                side.side, side.windows_of_dropped_days
            ));
        }
    }
}

/// Formats the report for people: what was compared, what was not, and whether everything agrees.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stream in &self.streams {
            let StreamReport { stream: name, epoch, sequence, events, samples, .. } = stream;
            writeln!(f, "{name}: {events} events up to epoch {epoch}, sequence {sequence}")?;
            match stream.snapshot {
                Some((epoch, at)) => {
                    writeln!(
                        f,
                        "  state compared with the snapshot at epoch {epoch}, sequence {at}"
                    )?;
                }
                None => writeln!(f, "  state not compared")?,
            }
            if stream.unexpected > 0 {
                writeln!(f, "  {} of them live can't have counted", stream.unexpected)?;
            }
            write!(f, "  {samples} samples compared")?;
            if stream.samples_differing > 0 {
                write!(f, ", {} differ", stream.samples_differing)?;
            }
            if stream.samples_ahead > 0 {
                write!(f, ", {} are ahead of the archive", stream.samples_ahead)?;
            }
            writeln!(f, "\n  state {}", stream.digest)?;
        }
        for side in &self.sides {
            let SideReport { side: name, rows, windows, .. } = side;
            write!(f, "{name}: {windows} windows compared with {rows} rows")?;
            if side.windows_differing > 0 {
                write!(f, ", {} differ", side.windows_differing)?;
            }
            writeln!(f)?;
        }
        for declared in self.streams.iter().flat_map(|stream| &stream.declared) {
            writeln!(f, "declared: {declared}")?;
        }
        for what in &self.not_compared {
            writeln!(f, "not compared: {what}")?;
        }
        for difference in self.differences() {
            writeln!(f, "DIFFERS: {difference}")?;
        }
        writeln!(f, "digest {}", self.digest)?;
        writeln!(f, "{}", if self.identical { "identical" } else { "not identical" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(difference: Option<&str>) -> Report {
        let side = SideReport {
            side: "lake".to_owned(),
            difference: difference.map(str::to_owned),
            ..SideReport::default()
        };
        let mut report = Report { sides: vec![side], ..Report::default() };
        report.finish();
        report
    }

    #[test]
    fn it_is_identical_only_if_nothing_differs() {
        assert!(report(None).identical);
        assert!(report(None).to_string().ends_with("\nidentical\n"));
        let differs = report(Some("window x"));
        assert!(!differs.identical);
        assert!(differs.to_string().contains("DIFFERS: window x\n"), "{differs}");
    }

    #[test]
    fn every_count_and_digest_is_in_the_digest() {
        let mut other = report(None);
        other.sides[0].windows += 1;
        other.finish();
        assert_ne!(other.digest, report(None).digest);
    }
}
