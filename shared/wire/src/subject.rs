//! The subjects of messages.
//!
//! `lake.access.<p>.<source>`, `lake.inventory.<p>.<source>`, `lake.late.<p>`,
//! `warehouse.query.<p>.<source>`, `warehouse.late.<p>`, `telemetry.sample.<p>`,
//! `telemetry.status.<service>`, `replay.<run>.<side>.<p>`, `replay.<run>.sample`, each after the
//! prefix, if there is one. `<p>` is the partition.

use domain::{Fact, Side, Stream};

/// How many characters of a source's name are kept in a subject.
pub const SOURCE_CHARS_MAX: usize = 64;

/// Makes subjects under one prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subjects {
    /// Empty, or ending with a dot.
    prefix: String,
}

impl Subjects {
    /// Subjects under a prefix, which may be given with or without a final dot; an empty text means
    /// no prefix.
    pub fn new(prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('.');
        Self { prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}.") } }
    }

    /// The prefix: empty, or with a final dot.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Requests to the object store.
    pub fn lake_access(&self, partition: u16, source: &str) -> String {
        format!("{}lake.access.{partition}.{}", self.prefix, source_token(source))
    }

    /// Inventories of buckets: one in each partition, with the share of that partition.
    pub fn lake_inventory(&self, partition: u16, source: &str) -> String {
        format!("{}lake.inventory.{partition}.{}", self.prefix, source_token(source))
    }

    /// Finished queries.
    pub fn warehouse_query(&self, partition: u16, source: &str) -> String {
        format!("{}warehouse.query.{partition}.{}", self.prefix, source_token(source))
    }

    /// Verdicts on events of a stream that were too old to judge.
    pub fn late(&self, stream: Stream) -> String {
        let side = match stream.side {
            Side::Lake => "lake",
            Side::Warehouse => "warehouse",
        };
        format!("{}{side}.late.{}", self.prefix, stream.partition)
    }

    /// Whether a subject, without the prefix, is the one of a stream's verdicts.
    pub fn is_late(subject: &str, stream: Stream) -> bool {
        subject.contains(".late.") && subject == Self::default().late(stream)
    }

    /// The source that sent a message: what follows the partition in a subject without the prefix.
    /// `None` if the subject names no source, as with verdicts, samples and replays.
    ///
    /// Other programs may put any text there, so the text is cut and cleaned as [`source_token`]
    /// does.
    pub fn source(subject: &str) -> Option<String> {
        let mut tokens = subject.splitn(4, '.');
        let side = tokens.next()?;
        let source = tokens.nth(2)?;
        matches!(side, "lake" | "warehouse").then(|| source_token(source))
    }

    /// Samples of a partition.
    pub fn sample(&self, partition: u16) -> String {
        format!("{}telemetry.sample.{partition}", self.prefix)
    }

    /// The status of a service; `*` stands for every service. No stream stores this subject.
    pub fn status(&self, service: &str) -> String {
        format!("{}telemetry.status.{service}", self.prefix)
    }

    /// Messages of a replay run, for a stream.
    pub fn replay(&self, run: &str, stream: Stream) -> String {
        let side = match stream.side {
            Side::Lake => "lake",
            Side::Warehouse => "warehouse",
        };
        format!("{}replay.{run}.{side}.{}", self.prefix, stream.partition)
    }

    /// Samples of the aggregator that counts a replay run.
    pub fn replay_sample(&self, run: &str) -> String {
        format!("{}replay.{run}.sample", self.prefix)
    }

    /// The subject of an event of this kind.
    pub fn of(&self, fact: &Fact, partition: u16, source: &str) -> String {
        match fact {
            Fact::LakeAccess(_) | Fact::LakeAccessWithdrawn(_) | Fact::LakeAccessRestored(_) => {
                self.lake_access(partition, source)
            }
            Fact::LakeInventory(_) => self.lake_inventory(partition, source),
            Fact::WarehouseQuery(_) | Fact::WarehouseQueryWithdrawn(_) => {
                self.warehouse_query(partition, source)
            }
        }
    }

    /// The subject without the prefix; unchanged if it does not have the prefix.
    pub fn strip<'a>(&self, subject: &'a str) -> &'a str {
        subject.strip_prefix(&self.prefix).unwrap_or(subject)
    }
}

/// A source's name as one token of a subject. Characters with a meaning in NATS, and those that are
/// not printable ASCII, become `_`.
pub fn source_token(name: &str) -> String {
    let legal = |c: char| c.is_ascii_graphic() && !matches!(c, '.' | '*' | '>');
    let token: String =
        name.chars().take(SOURCE_CHARS_MAX).map(|c| if legal(c) { c } else { '_' }).collect();
    if token.is_empty() { "_".to_owned() } else { token }
}

/// Why a text cannot be the name of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be one token of a subject: 1 to {SOURCE_CHARS_MAX} printable ASCII characters without \
     `.`, `*`, `>` and spaces; put `-` or `_` in their place"
)]
pub struct NoSourceName;

/// The name of a source as a person gives it. A name that would look different in a subject is
/// refused.
///
/// # Errors
///
/// The name is not a token of a subject.
pub fn source_name(name: &str) -> Result<String, NoSourceName> {
    Some(source_token(name)).filter(|token| token == name).ok_or(NoSourceName)
}

#[cfg(test)]
mod tests {
    use domain::Event;

    use super::*;
    use crate::fixtures;

    #[test]
    fn subjects_stand_under_their_prefix() {
        for (prefix, expected) in [
            ("", "lake.access.0.sim"),
            ("acme", "acme.lake.access.0.sim"),
            ("a.b.", "a.b.lake.access.0.sim"),
        ] {
            let subjects = Subjects::new(prefix);
            assert_eq!(subjects.lake_access(0, "sim"), expected);
            assert_eq!(subjects.strip(expected), "lake.access.0.sim");
            assert_eq!(format!("{}lake.access.0.sim", subjects.prefix()), expected);
        }
        let subjects = Subjects::default();
        assert_eq!(subjects.lake_inventory(1, "s"), "lake.inventory.1.s");
        assert_eq!(subjects.warehouse_query(2, "s"), "warehouse.query.2.s");
        assert_eq!(subjects.late(Stream::warehouse(3)), "warehouse.late.3");
        assert_eq!(subjects.late(Stream::lake(4)), "lake.late.4");
        assert_eq!(subjects.sample(5), "telemetry.sample.5");
        assert_eq!(subjects.replay("r1", Stream::lake(0)), "replay.r1.lake.0");
        assert_eq!(subjects.replay_sample("r1"), "replay.r1.sample");
        assert!(Subjects::is_late("lake.late.4", Stream::lake(4)));
        for other in ["lake.late.3", "warehouse.late.4", "lake.late.4.x", "lake.access.4.late.4"] {
            assert!(!Subjects::is_late(other, Stream::lake(4)), "{other}");
        }
    }

    #[test]
    fn each_kind_of_event_has_its_subject() {
        let subjects = Subjects::new("acme");
        let of = |event: &Event| subjects.of(&event.fact, 7, "s");
        let (access, query) = ("acme.lake.access.7.s", "acme.warehouse.query.7.s");
        let expected = [access, "acme.lake.inventory.7.s", query, access, access, query];
        assert_eq!(fixtures::one_of_each().iter().map(of).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_source_is_what_follows_the_partition() {
        let subjects = Subjects::default();
        let subject = subjects.lake_access(0, "git.one");
        assert_eq!(Subjects::source(&subject).as_deref(), Some("git_one"));
        assert_eq!(Subjects::source("lake.access.0.a.b").as_deref(), Some("a_b"));
        let replayed = subjects.replay("friday", Stream::lake(0));
        for none in [subjects.late(Stream::lake(0)), subjects.sample(0), replayed] {
            assert_eq!(Subjects::source(&none), None);
        }
    }

    #[test]
    fn no_name_of_a_source_can_leave_its_token() {
        for (name, token) in
            [("a.b>c*d e\n", "a_b_c_d_e_"), ("", "_"), ("é", "_"), ("git-1", "git-1")]
        {
            assert_eq!(source_token(name), token);
        }
        assert_eq!(source_token(&"x".repeat(1_000)).len(), SOURCE_CHARS_MAX);
    }

    #[test]
    fn a_name_that_a_subject_would_change_is_refused_with_what_to_do() {
        assert_eq!(source_name("my-log_2"), Ok("my-log_2".to_owned()));
        let long = "x".repeat(SOURCE_CHARS_MAX + 1);
        for name in ["my.source", "a b", "", "é", "a>", &long] {
            let why = source_name(name).unwrap_err().to_string();
            assert!(why.contains("put `-` or `_`"), "{name}: {why}");
        }
    }
}
