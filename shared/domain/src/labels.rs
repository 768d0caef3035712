//! Which buckets and warehouses have series of their own.

use std::collections::BTreeMap;

/// The label of everything that came too late for one of its own.
pub const OTHER: u16 = 0;
/// Its name. A bucket of that name shares it.
pub const OTHER_NAME: &str = "other";

/// Names and their labels: the first that come get one each, in the order of the stream, so that no
/// input makes the number of series grow without end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    labels_max: usize,
    by_name: BTreeMap<String, u16>,
}

impl Labels {
    /// No name yet.
    pub const fn new(labels_max: usize) -> Self {
        Self { labels_max, by_name: BTreeMap::new() }
    }

    /// What was stored of an earlier one with the same bound.
    pub const fn restore(labels_max: usize, by_name: BTreeMap<String, u16>) -> Self {
        Self { labels_max, by_name }
    }

    /// The names that have a label of their own.
    pub const fn by_name(&self) -> &BTreeMap<String, u16> {
        &self.by_name
    }

    /// The label of a name; its own as long as there is room.
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
