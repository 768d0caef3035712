//! Which buckets and warehouses have series of their own.

use std::collections::BTreeMap;

/// The label of every name that came when all labels were taken.
pub const OTHER: u16 = 0;
/// The name of that label. A bucket with this name shares the label.
pub const OTHER_NAME: &str = "other";

/// Names and their labels. The first names in the order of the stream get a label each, up to a
/// bound, so that no input can make the number of series grow without end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    labels_max: usize,
    by_name: BTreeMap<String, u16>,
}

impl Labels {
    /// No names yet.
    pub const fn new(labels_max: usize) -> Self {
        Self { labels_max, by_name: BTreeMap::new() }
    }

    /// Labels as they were stored, with the same bound.
    pub const fn restore(labels_max: usize, by_name: BTreeMap<String, u16>) -> Self {
        Self { labels_max, by_name }
    }

    /// The names that have a label of their own.
    pub const fn by_name(&self) -> &BTreeMap<String, u16> {
        &self.by_name
    }

    /// The label of a name: a label of its own as long as there is room, else [`OTHER`].
    pub fn label(&mut self, name: &str) -> u16 {
        if let Some(label) = self.by_name.get(name) {
            return *label;
        }
        let next = u16::try_from(self.by_name.len() + 1).unwrap_or(OTHER);
        if self.by_name.len() >= self.labels_max || next == OTHER || name == OTHER_NAME {
            return OTHER;
        }
        self.by_name.insert(name.to_owned(), next);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_names_get_labels_and_the_rest_share_one() {
        let mut labels = Labels::new(2);
        assert_eq!([labels.label("a"), labels.label("b"), labels.label("c")], [1, 2, OTHER]);
        assert_eq!([labels.label("b"), labels.label(OTHER_NAME)], [2, OTHER]);
        let mut roomy = Labels::new(2);
        assert_eq!([roomy.label(OTHER_NAME), roomy.label("a")], [OTHER, 1], "a name that is taken");
    }
}
