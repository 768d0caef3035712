//! Sources: each source of a stream has a short number, which rows store.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use crate::{error::StoreError, statement::Doing, stream_id::StreamId};

/// The most names of one stream. Usually there are few; a client that invents a name for every
/// message would otherwise fill the archive. Rows of further names have no source.
pub const SOURCES_MAX: usize = 10_000;

/// The sources of one stream, by name. Pure: names get their numbers here, and are stored in the
/// transaction of the first batch that uses them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    numbers: BTreeMap<String, i16>,
    /// Names added since the last batch.
    new: Vec<(i16, String)>,
}

impl Sources {
    /// The sources that the archive knows.
    pub(crate) fn new(numbers: BTreeMap<String, i16>) -> Self {
        Self { numbers, new: Vec::new() }
    }

    /// The number of a source, assigned at its first use; `None` if there are too many.
    pub fn number(&mut self, name: &str) -> Option<i16> {
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        if self.numbers.len() >= SOURCES_MAX {
            return None;
        }
        // Only the one writer of the stream assigns numbers, one after the other.
        let number = i16::try_from(self.numbers.len() + 1).ok()?;
        self.numbers.insert(name.to_owned(), number);
        self.new.push((number, name.to_owned()));
        Some(number)
    }

    /// The names that are known.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.numbers.keys().map(String::as_str)
    }

    /// The numbers of those names that are known.
    pub fn known<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> BTreeSet<i16> {
        names.into_iter().filter_map(|name| self.numbers.get(name)).copied().collect()
    }

    /// The names that the next batch must store.
    pub fn take_new(&mut self) -> Vec<(i16, String)> {
        std::mem::take(&mut self.new)
    }
}

pub(crate) async fn read(
    connection: &mut PgConnection,
    stream: StreamId,
) -> Result<Sources, StoreError> {
    let rows: Vec<(String, i16)> =
        sqlx::query_as("select name, number from lakegauge.source where stream = $1")
            .bind(stream.id)
            .fetch_all(connection)
            .await
            .doing("reading the names of sources")?;
    Ok(Sources::new(rows.into_iter().collect()))
}

pub(crate) async fn append(
    connection: &mut PgConnection,
    stream: StreamId,
    new: &[(i16, String)],
) -> Result<(), StoreError> {
    if new.is_empty() {
        return Ok(());
    }
    let (numbers, names): (Vec<i16>, Vec<String>) = new.iter().cloned().unzip();
    sqlx::query(
        "insert into lakegauge.source (stream, number, name) \
         select $1, part.* from unnest($2::smallint[], $3::text[]) as part",
    )
    .bind(stream.id)
    .bind(numbers)
    .bind(names)
    .execute(connection)
    .await
    .doing("naming sources")
    .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_and_is_new_once() {
        let mut sources = Sources::new([("git".to_owned(), 1)].into());
        assert_eq!(sources.number("git"), Some(1));
        assert_eq!(sources.number("sim"), Some(2));
        assert_eq!(sources.number("sim"), Some(2));
        assert_eq!(sources.take_new(), [(2, "sim".to_owned())]);
        assert_eq!((sources.take_new(), sources.number("sim")), (Vec::new(), Some(2)));
        assert_eq!(sources.known(&["sim".to_owned(), "other".to_owned()]), [2].into());
    }

    #[test]
    fn names_without_end_are_not_kept() {
        let mut sources = Sources::default();
        for number in 0..SOURCES_MAX + 10 {
            let given = sources.number(&format!("source-{number}"));
            assert_eq!(given.is_some(), number < SOURCES_MAX, "{number}");
        }
        assert_eq!(sources.take_new().len(), SOURCES_MAX);
        assert_eq!(sources.number("source-0"), Some(1), "a known one still has its number");
    }
}
