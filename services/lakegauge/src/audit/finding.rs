//! What an audit finds.

use event_store::{MessageRange, audit::Doubled};
use serde::Serialize;

/// The kinds of problems of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Trouble {
    /// Expected rows, dead letters or events do not exist.
    Missing,
    /// Something exists more than once.
    Doubled,
    /// Messages that no range of the ledger contains.
    Skipped,
    /// Something exists outside the ranges of the ledger.
    Stray,
    /// The numbers of the ledger contradict each other.
    Unbalanced,
    /// The stream is not the one that was archived, or contradicts the ledger.
    OtherStream,
    /// Messages are stored, but nobody archives them.
    Waiting,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Finding {
    pub(super) trouble: Trouble,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) epoch: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<u64>,
    pub(super) detail: String,
}

/// The findings of one stream, in order.
pub(super) struct Findings<'a> {
    pub(super) stream: &'a str,
    pub(super) all: Vec<Finding>,
}

impl Findings<'_> {
    pub(super) fn push(
        &mut self,
        trouble: Trouble,
        messages: Option<MessageRange>,
        detail: String,
    ) {
        self.all.push(Finding {
            trouble,
            stream: Some(self.stream.to_owned()),
            epoch: messages.map(|messages| messages.epoch),
            first: messages.map(|messages| messages.first),
            last: messages.map(|messages| messages.last),
            detail,
        });
    }
}

/// Identities that exist twice, over all streams.
pub(super) fn doubled(doubled: &Doubled) -> Option<Finding> {
    (doubled.rows > 0).then(|| Finding {
        trouble: Trouble::Doubled,
        stream: None,
        epoch: None,
        first: None,
        last: None,
        detail: format!(
            "{} rows beyond the first of their identity: {}",
            doubled.rows,
            doubled.named.join(", ")
        ),
    })
}
