//! Whether the folder can be counted, for `/readyz` and the log.

use domain::Timestamp;
use service_kit::Condition;

use super::walk::{Share, Unreadable};

/// Reports the result of each walk.
#[derive(Debug)]
pub(crate) struct Standing {
    condition: Condition,
    /// Start of the first of the consecutive walks that could not read everything; `None` after a
    /// complete walk.
    incomplete_since: Option<Timestamp>,
}

impl Standing {
    /// The state before the first walk has ended.
    pub(crate) fn new(condition: Condition) -> Self {
        condition.pass("the first walk has not ended yet");
        Self { condition, incomplete_since: None }
    }

    /// Reports a complete walk that began at `as_of`, and whose inventory is stored.
    pub(crate) fn whole(&mut self, as_of: Timestamp, shares: &[Share]) {
        let sum = |of: fn(&Share) -> u64| shares.iter().map(of).fold(0, u64::saturating_add);
        let (files, bytes) = (sum(|share| share.objects), sum(|share| share.bytes));
        let text = format!("{files} files with {bytes} bytes as of {}", time(as_of));
        if self.incomplete_since.take().is_some() {
            tracing::info!(files, bytes, "the folder can be read again");
        }
        self.condition.pass(text);
    }

    /// Reports a walk that began at `as_of` and could not read everything.
    pub(crate) fn incomplete(&mut self, as_of: Timestamp, why: &Unreadable) {
        let since = time(*self.incomplete_since.get_or_insert(as_of));
        let advice = "used space stays as it is until the folder can be read";
        tracing::warn!(%why, since, advice, "no inventory is published");
        self.condition.fail(format!("no inventory is published since {since}: {why}"));
    }
}

fn time(at: Timestamp) -> String {
    wire::json::format_second(at).unwrap_or_else(|| format!("{} us", at.0))
}

#[cfg(test)]
mod tests {
    use service_kit::Readiness;

    use super::*;

    const FIRST: Timestamp = Timestamp(1_795_848_180_000_000);
    const SECOND: Timestamp = Timestamp(FIRST.0 + 60_000_000);

    #[test]
    fn an_incomplete_walk_says_why_and_since_when_until_one_is_whole() {
        let readiness = Readiness::default();
        let mut standing = Standing::new(readiness.condition("folder"));
        let why = Unreadable { entries: 1, first: "/data/raw: no".to_owned() };
        standing.incomplete(FIRST, &why);
        standing.incomplete(SECOND, &why);
        assert_eq!(
            readiness.describe(),
            "[-]folder no inventory is published since 2026-11-28T06:43:00Z: \
             can't read /data/raw: no\n"
        );
        standing.whole(SECOND, &[Share { objects: 1, bytes: 2 }, Share { objects: 3, bytes: 4 }]);
        assert_eq!(
            readiness.describe(),
            "[+]folder 4 files with 6 bytes as of 2026-11-28T06:44:00Z\n"
        );
        standing.incomplete(SECOND, &why);
        assert!(readiness.describe().contains("since 2026-11-28T06:44:00Z"));
    }
}
