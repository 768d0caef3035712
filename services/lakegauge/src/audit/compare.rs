//! Compares the ledger with the rows and with the stream. Pure.

use std::collections::BTreeMap;

use event_store::{MessageRange, audit::StreamLedger};
use serde::Serialize;

use super::finding::{Finding, Findings, Trouble};
use crate::waiting::WaitingMessages;

/// What the stream still contains of the ledger's messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reread {
    /// The sequence of the oldest message that exists.
    pub(super) first_sequence: u64,
    /// The sequence of the newest message that was ever stored.
    pub(super) last_sequence: u64,
    /// The epoch in force, if one is set.
    pub(super) epoch: Option<u32>,
    /// Why it is another stream than the archived one.
    pub(super) other: Option<String>,
    /// The messages after the checkpoint.
    pub(super) waiting: Option<WaitingMessages>,
    /// By the place of a range in the ledger: messages that exist, and their items.
    pub(super) ranges: BTreeMap<usize, (u64, u64)>,
}

/// What was compared, for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Comparisons {
    /// Ranges whose messages were all read again.
    pub(super) ranges_read_again: u64,
    /// Messages read again.
    pub(super) messages_read_again: u64,
    /// Items in them.
    pub(super) events_read_again: u64,
    /// Ranges whose rows can no longer be counted, because retention dropped days of them.
    pub(super) ranges_dropped: u64,
}

/// The findings of one stream, in order.
pub(super) fn compare(
    ledger: &StreamLedger,
    reread: Option<&Reread>,
) -> (Vec<Finding>, Comparisons) {
    let mut findings = Findings { stream: &ledger.stream, all: Vec::new() };
    coverage(ledger, &mut findings);
    ends(ledger, &mut findings);
    let mut compared = Comparisons::default();
    contents(ledger, &mut findings, &mut compared);
    totals(ledger, &mut findings);
    if let Some(reread) = reread {
        stream(ledger, reread, &mut findings, &mut compared);
    }
    (findings.all, compared)
}

/// Checks that each epoch's ranges begin at its first message, follow each other, and add up.
fn coverage(ledger: &StreamLedger, findings: &mut Findings<'_>) {
    let mut before = MessageRange::default();
    for range in &ledger.ranges {
        let messages = range.messages;
        let last = if messages.epoch == before.epoch {
            before.last
        } else {
            begins_after(ledger, messages.epoch)
        };
        let expected = last.saturating_add(1);
        if messages.first > expected {
            let gap = MessageRange { first: expected, last: messages.first - 1, ..messages };
            let count = gap.last - gap.first + 1;
            findings.push(
                Trouble::Skipped,
                Some(gap),
                format!("{count} messages are in no range of the ledger"),
            );
        } else if messages.first < expected {
            findings.push(
                Trouble::Doubled,
                Some(messages),
                format!("the range before it ends at {}", before.last),
            );
        }
        if range.events != range.inserted + range.duplicates + range.dead {
            findings.push(
                Trouble::Unbalanced,
                Some(messages),
                format!(
                    "{} events are not {} inserted + {} duplicates + {} dead",
                    range.events, range.inserted, range.duplicates, range.dead
                ),
            );
        }
        before = messages;
    }
}

/// The sequence before the first message of an epoch: a purged stream continues its sequence.
fn begins_after(ledger: &StreamLedger, epoch: u32) -> u64 {
    ledger.next_after.range(..epoch).next_back().map_or(0, |(_, after)| *after)
}

/// Checks that each epoch's ranges end where it was closed, the last one at the checkpoint.
fn ends(ledger: &StreamLedger, findings: &mut Findings<'_>) {
    let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
    for range in &ledger.ranges {
        let end = ends.entry(range.messages.epoch).or_default();
        *end = (*end).max(range.messages.last);
    }
    let mut expected = ledger.closed.clone();
    if let Some(checkpoint) = ledger.checkpoint {
        expected.insert(checkpoint.epoch, checkpoint.sequence);
    }
    for (epoch, sequence) in &expected {
        let end = ends.remove(epoch).unwrap_or_else(|| begins_after(ledger, *epoch));
        if end < *sequence {
            findings.push(
                Trouble::Skipped,
                Some(MessageRange { epoch: *epoch, first: end + 1, last: *sequence }),
                format!("archived up to {sequence}, but the ledger ends at {end}"),
            );
        } else if end > *sequence {
            findings.push(
                Trouble::Stray,
                Some(MessageRange { epoch: *epoch, first: sequence + 1, last: end }),
                format!("archived up to {sequence}, but the ledger continues to {end}"),
            );
        }
    }
    for (epoch, end) in ends {
        findings.push(
            Trouble::Stray,
            Some(MessageRange { epoch, first: 1, last: end }),
            "the ledger has an epoch that was not closed and is not being archived".to_owned(),
        );
    }
}

/// Checks that the numbers of rows and dead letters match the ledger, and that none is elsewhere.
fn contents(ledger: &StreamLedger, findings: &mut Findings<'_>, compared: &mut Comparisons) {
    for range in &ledger.ranges {
        // The row of a refused event was inserted later, when its dead letter was retried.
        let expected = range.inserted + range.retried;
        if range.dropped {
            compared.ranges_dropped += 1;
        }
        if ledger.samples.is_none() {
            let there = range.rows;
            if there < expected && !range.dropped {
                let detail = format!("{} rows of {expected}", expected - there);
                findings.push(Trouble::Missing, Some(range.messages), detail);
            } else if there > expected {
                let detail = format!("{there} rows where {expected} were inserted");
                findings.push(Trouble::Doubled, Some(range.messages), detail);
            }
        }
        if range.letters < range.dead {
            let detail = format!("{} dead letters of {}", range.dead - range.letters, range.dead);
            findings.push(Trouble::Missing, Some(range.messages), detail);
        } else if range.letters > range.dead {
            let detail = format!("{} dead letters where {} were kept", range.letters, range.dead);
            findings.push(Trouble::Doubled, Some(range.messages), detail);
        }
    }
    for outside in &ledger.outside {
        findings.push(
            Trouble::Stray,
            Some(outside.messages),
            format!("{} {} are outside the ranges of the ledger", outside.count, outside.what),
        );
    }
}

/// Checks that everything that was inserted exists or was dropped.
fn totals(ledger: &StreamLedger, findings: &mut Findings<'_>) {
    let sum = |of: fn(&event_store::audit::LedgerRange) -> u64| -> u64 {
        ledger.ranges.iter().map(of).sum()
    };
    let inserted = sum(|range| range.inserted + range.retried);
    let (there, what) = match ledger.samples {
        Some(samples) => (samples, "samples"),
        // Without dropped days each range was compared separately.
        None if ledger.ranges.iter().any(|range| range.dropped) => {
            (sum(|range| range.rows) + ledger.dropped_rows, "rows, dropped ones included,")
        }
        None => return,
    };
    if there < inserted {
        let detail = format!("{} of {inserted} {what} in all", inserted - there);
        findings.push(Trouble::Missing, None, detail);
    } else if there > inserted {
        let detail = format!("{there} {what} where {inserted} were inserted in all");
        findings.push(Trouble::Doubled, None, detail);
    }
}

/// Checks that the stream is the archived one, reaches as far, and contains what the ledger says.
fn stream(
    ledger: &StreamLedger,
    reread: &Reread,
    findings: &mut Findings<'_>,
    compared: &mut Comparisons,
) {
    let Some(checkpoint) = ledger.checkpoint else { return };
    if let Some(why) = &reread.other {
        findings.push(Trouble::OtherStream, None, why.clone());
        return;
    }
    if reread.epoch.is_some_and(|epoch| epoch != checkpoint.epoch) {
        let epoch = reread.epoch.unwrap_or_default();
        let detail = format!(
            "epoch {epoch} is in force, epoch {} is archived: is the archiver running?",
            checkpoint.epoch
        );
        findings.push(Trouble::OtherStream, None, detail);
        return;
    }
    if reread.first_sequence > checkpoint.sequence.saturating_add(1) {
        let gap = MessageRange {
            epoch: checkpoint.epoch,
            first: checkpoint.sequence + 1,
            last: reread.first_sequence - 1,
        };
        let detail = "the stream no longer has what follows the checkpoint".to_owned();
        findings.push(Trouble::Missing, Some(gap), detail);
    }
    if let Some(waiting) = reread.waiting.filter(WaitingMessages::is_overdue) {
        let detail = format!(
            "{} messages wait behind the checkpoint at {}, the oldest for {} s: is the archiver \
             running and ready?",
            waiting.messages, checkpoint.sequence, waiting.oldest_s
        );
        findings.push(Trouble::Waiting, None, detail);
    }
    for (place, range) in ledger.ranges.iter().enumerate() {
        let messages = range.messages;
        let Some((read, items)) = reread.ranges.get(&place).copied() else { continue };
        let lost = ledger.lost.iter().filter(|lost| lost.epoch == messages.epoch).map(|lost| {
            let first = lost.first.max(messages.first);
            let last = lost.last.min(messages.last);
            (last + 1).saturating_sub(first)
        });
        let expected = messages.last - messages.first + 1 - lost.sum::<u64>();
        compared.messages_read_again += read;
        compared.events_read_again += items;
        if read < expected {
            // The messages were trimmed, or deleted since, so the ledger can't be checked.
            if items > range.events {
                let detail =
                    format!("{items} events in the stream, {} in the ledger", range.events);
                findings.push(Trouble::Missing, Some(messages), detail);
            }
            continue;
        }
        compared.ranges_read_again += 1;
        if items != range.events {
            let trouble =
                if items > range.events { Trouble::Missing } else { Trouble::OtherStream };
            let detail = format!("{items} events in the stream, {} in the ledger", range.events);
            findings.push(trouble, Some(messages), detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::Mark;
    use event_store::audit::{LedgerRange, Outside};

    use super::*;

    fn range(epoch: u32, first: u64, last: u64, inserted: u64, dead: u64) -> LedgerRange {
        LedgerRange {
            messages: MessageRange { epoch, first, last },
            events: inserted + dead + 1,
            inserted,
            duplicates: 1,
            dead,
            rows: inserted,
            letters: dead,
            ..LedgerRange::default()
        }
    }

    fn ledger(ranges: Vec<LedgerRange>) -> StreamLedger {
        let last = ranges.last().unwrap().messages;
        let mark = Mark { epoch: last.epoch, sequence: last.last, broker_ns: 5, created_ns: 5 };
        StreamLedger {
            stream: "LAKE_0".to_owned(),
            checkpoint: Some(mark),
            ranges,
            ..StreamLedger::default()
        }
    }

    fn whole() -> StreamLedger {
        let mut ledger = ledger(vec![
            range(1, 1, 10, 100, 0),
            range(1, 11, 20, 90, 2),
            range(2, 1, 5, 50, 0),
            range(2, 6, 9, 40, 1),
        ]);
        ledger.closed.insert(1, 20);
        ledger
    }

    fn reread() -> Reread {
        let ranges = BTreeMap::from([(2, (5, 51)), (3, (4, 42))]);
        Reread { first_sequence: 1, last_sequence: 12, epoch: Some(2), ranges, ..Reread::default() }
    }

    fn troubles(
        ledger: &StreamLedger,
        reread: Option<&Reread>,
    ) -> Vec<(Trouble, Option<(u64, u64)>)> {
        let (findings, _) = compare(ledger, reread);
        let place = |finding: &Finding| Some((finding.first?, finding.last?));
        findings.iter().map(|finding| (finding.trouble, place(finding))).collect()
    }

    #[test]
    fn a_whole_ledger_has_no_findings_with_and_without_the_stream() {
        assert_eq!(troubles(&whole(), None), []);
        let (findings, compared) = compare(&whole(), Some(&reread()));
        assert_eq!(findings, []);
        assert_eq!((compared.ranges_read_again, compared.events_read_again), (2, 93));
    }

    #[test]
    fn a_missing_row_and_one_too_many_name_their_range() {
        let mut ledger = whole();
        ledger.ranges[1].rows -= 1;
        ledger.ranges[3].rows += 2;
        assert_eq!(
            troubles(&ledger, None),
            [(Trouble::Missing, Some((11, 20))), (Trouble::Doubled, Some((6, 9)))]
        );
    }

    #[test]
    fn a_missing_letter_names_its_range() {
        let mut ledger = whole();
        ledger.ranges[1].letters -= 1;
        assert_eq!(troubles(&ledger, None), [(Trouble::Missing, Some((11, 20)))]);
    }

    #[test]
    fn a_retried_letter_is_a_row_more_and_still_a_letter() {
        let mut ledger = whole();
        ledger.ranges[1].retried = 1;
        ledger.ranges[1].rows += 1;
        assert_eq!(troubles(&ledger, None), []);
        ledger.ranges[1].rows -= 1;
        assert_eq!(troubles(&ledger, None), [(Trouble::Missing, Some((11, 20)))]);
    }

    #[test]
    fn a_range_that_is_gone_is_skipped_wherever_it_stood() {
        for (gone, place) in [(0, (1, 10)), (1, (11, 20)), (2, (1, 5)), (3, (6, 9))] {
            let mut ledger = whole();
            ledger.ranges.remove(gone);
            assert_eq!(troubles(&ledger, None), [(Trouble::Skipped, Some(place))], "{gone}");
        }
    }

    #[test]
    fn an_epoch_may_begin_behind_1_where_the_one_before_says_so() {
        let mut ledger = whole();
        ledger.next_after.insert(1, 3);
        ledger.ranges[2].messages.first = 4;
        assert_eq!(troubles(&ledger, None), []);
        ledger.ranges.remove(2);
        assert_eq!(troubles(&ledger, None), [(Trouble::Skipped, Some((4, 5)))]);
    }

    #[test]
    fn a_range_that_overlaps_and_numbers_that_do_not_add_up_are_found() {
        let mut ledger = whole();
        ledger.ranges[1].messages.first = 10;
        ledger.ranges[2].duplicates = 0;
        assert_eq!(
            troubles(&ledger, None),
            [(Trouble::Doubled, Some((10, 20))), (Trouble::Unbalanced, Some((1, 5)))]
        );
    }

    #[test]
    fn what_stands_in_no_range_is_stray() {
        let mut ledger = whole();
        let messages = MessageRange { epoch: 2, first: 10, last: 11 };
        ledger.outside.push(Outside { what: "rows", messages, count: 7 });
        assert_eq!(troubles(&ledger, None), [(Trouble::Stray, Some((10, 11)))]);
        let mut ledger = whole();
        ledger.checkpoint = ledger.checkpoint.map(|mark| Mark { sequence: 5, ..mark });
        assert_eq!(troubles(&ledger, None), [(Trouble::Stray, Some((6, 9)))]);
    }

    #[test]
    fn dropped_days_are_counted_as_a_whole() {
        let mut ledger = whole();
        ledger.ranges[0].dropped = true;
        ledger.ranges[0].rows = 30;
        ledger.dropped_rows = 70;
        let (findings, compared) = compare(&ledger, None);
        assert_eq!((findings, compared.ranges_dropped), (Vec::new(), 1));
        ledger.ranges[0].rows = 29;
        assert_eq!(troubles(&ledger, None), [(Trouble::Missing, None)]);
    }

    #[test]
    fn samples_are_compared_as_a_whole() {
        let mut ledger = whole();
        ledger.ranges.iter_mut().for_each(|range| range.rows = 0);
        ledger.samples = Some(280);
        assert_eq!(troubles(&ledger, None), []);
        ledger.samples = Some(279);
        assert_eq!(troubles(&ledger, None), [(Trouble::Missing, None)]);
    }

    #[test]
    fn events_of_the_stream_that_the_ledger_lacks_are_missing() {
        let mut reread = reread();
        reread.ranges.insert(3, (4, 43));
        assert_eq!(troubles(&whole(), Some(&reread)), [(Trouble::Missing, Some((6, 9)))]);
        reread.ranges.insert(3, (4, 41));
        assert_eq!(troubles(&whole(), Some(&reread)), [(Trouble::OtherStream, Some((6, 9)))]);
    }

    #[test]
    fn what_was_trimmed_or_declared_lost_is_told_from_the_ledger_alone() {
        let mut reread = reread();
        reread.first_sequence = 4;
        reread.ranges.insert(2, (2, 20));
        let (findings, compared) = compare(&whole(), Some(&reread));
        assert_eq!((findings, compared.ranges_read_again), (Vec::new(), 1));
        let mut ledger = whole();
        ledger.lost.push(MessageRange { epoch: 2, first: 1, last: 3 });
        reread.ranges.insert(2, (2, 51));
        let (findings, compared) = compare(&ledger, Some(&reread));
        assert_eq!((findings, compared.ranges_read_again), (Vec::new(), 2));
    }

    #[test]
    fn a_stream_that_lost_what_follows_the_checkpoint_is_missing_it() {
        let mut reread = Reread { first_sequence: 12, ..reread() };
        reread.ranges.clear();
        assert_eq!(troubles(&whole(), Some(&reread)), [(Trouble::Missing, Some((10, 11)))]);
    }

    #[test]
    fn messages_that_nobody_archives_are_a_finding_once_they_have_waited_for_long() {
        let waiting = |oldest_s| Reread {
            waiting: Some(WaitingMessages { messages: 3, oldest_s }),
            ..reread()
        };
        assert_eq!(troubles(&whole(), Some(&waiting(5))), []);
        assert_eq!(troubles(&whole(), Some(&waiting(600))), [(Trouble::Waiting, None)]);
    }

    #[test]
    fn another_stream_and_another_epoch_are_said() {
        let other = Reread { other: Some("made again".to_owned()), ..reread() };
        assert_eq!(troubles(&whole(), Some(&other)), [(Trouble::OtherStream, None)]);
        let raised = Reread { epoch: Some(3), ..reread() };
        assert_eq!(troubles(&whole(), Some(&raised)), [(Trouble::OtherStream, None)]);
    }
}
