//! What other programs published while the simulators ran.

use std::collections::{BTreeMap, BTreeSet};

use event_store::SourceTally;
use service_kit::metrics::float;
use service_kit::terminal::{grouped, plain};

/// The most names of sources in a note; there may be thousands.
const NAMES_MAX: usize = 5;

/// Events and dead letters of sources that are not simulators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PublishedBeside {
    /// Rows, by their side, and dead letters.
    pub(crate) sum: SourceTally,
    names: Vec<String>,
}

impl PublishedBeside {
    /// The part of the archive's growth that is not from simulators.
    pub(crate) fn of(grown: &BTreeMap<String, SourceTally>, simulators: &BTreeSet<&str>) -> Self {
        let mut beside = Self::default();
        for (name, growth) in grown.iter().filter(|(name, _)| !simulators.contains(name.as_str())) {
            beside.sum.lake = beside.sum.lake.saturating_add(growth.lake);
            beside.sum.warehouse = beside.sum.warehouse.saturating_add(growth.warehouse);
            beside.sum.dead_letters = beside.sum.dead_letters.saturating_add(growth.dead_letters);
            beside.names.push(name.clone());
        }
        beside
    }

    /// Rows of both sides.
    pub(crate) const fn events(&self) -> u64 {
        self.sum.lake.saturating_add(self.sum.warehouse)
    }

    /// A note for people; `None` if only the simulators published.
    pub(crate) fn note(&self) -> Option<String> {
        if self.names.is_empty() {
            return None;
        }
        let number = |number: u64, one: &str, more: &str| {
            format!("{} {}", grouped(float(number)), if number == 1 { one } else { more })
        };
        let mut what = vec![number(self.events(), "event", "events")];
        if self.sum.dead_letters > 0 {
            what.push(number(self.sum.dead_letters, "dead letter", "dead letters"));
        }
        let said = self.names.iter().take(NAMES_MAX);
        let mut names: Vec<String> = said
            .map(|name| if name.is_empty() { "no name".to_owned() } else { plain(name) })
            .collect();
        if self.names.len() > NAMES_MAX {
            names.push(format!("{} more", self.names.len() - NAMES_MAX));
        }
        let is_one = self.events().saturating_add(self.sum.dead_letters) == 1;
        let (were, their) = if is_one { ("was", "its") } else { ("were", "their") };
        let sources = if self.names.len() == 1 { "another source" } else { "other sources" };
        let (what, names) = (what.join(" and "), names.join(", "));
        Some(format!(
            "{what} of {sources} ({names}) {were} published beside the simulators: {their} share \
             is not checked"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(of: &[(&str, SourceTally)]) -> BTreeMap<String, SourceTally> {
        of.iter().map(|(name, growth)| ((*name).to_owned(), *growth)).collect()
    }

    #[test]
    fn what_no_simulator_published_is_said_with_its_sources() {
        let simulators = BTreeSet::from(["sim"]);
        let own = ("sim", SourceTally { lake: 7, ..SourceTally::default() });
        let alone = PublishedBeside::of(&grown(&[own]), &simulators);
        assert_eq!((alone.note(), alone.events()), (None, 0));
        let one = ("git", SourceTally { lake: 1, ..SourceTally::default() });
        let beside = PublishedBeside::of(&grown(&[own, one]), &simulators);
        assert_eq!(
            beside.note().unwrap(),
            "1 event of another source (git) was published beside the simulators: its share is \
             not checked"
        );
        let names: Vec<String> = (0..7).map(|number| format!("s{number}")).collect();
        let letters = SourceTally { dead_letters: 2, warehouse: 1_000, lake: 0 };
        let many: Vec<(&str, SourceTally)> =
            names.iter().map(|name| (name.as_str(), letters)).collect();
        let note = PublishedBeside::of(&grown(&many), &simulators).note().unwrap();
        assert!(note.starts_with("7,000 events and 14 dead letters of other sources"), "{note}");
        assert!(note.contains("(s0, s1, s2, s3, s4, 2 more)"), "{note}");
    }
}
