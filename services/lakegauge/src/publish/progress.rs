//! The progress of a run, for the user.

use std::io::{IsTerminal as _, Read, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bus::PublishProgress;
use domain::Refusal;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use service_kit::terminal::plain;

use crate::said::PublishNotice;

/// How often the counts are read.
const LOOK: Duration = Duration::from_millis(200);

/// Counts that several tasks increase.
#[derive(Debug, Default)]
pub(crate) struct PublishCounts {
    lines: AtomicU64,
    refused: AtomicU64,
    /// Events in acknowledged messages.
    pub(crate) acknowledged: AtomicU64,
    /// The number of these in messages that the broker already had.
    pub(crate) duplicates: AtomicU64,
    /// Events that the archive had before they were sent, if it could be read.
    pub(crate) archived: AtomicU64,
    /// Whether it could be read for all of them.
    pub(crate) asked: AtomicBool,
    publishers: Mutex<Vec<Arc<PublishProgress>>>,
}

impl PublishCounts {
    /// Watches a publisher, to report when it waits.
    pub(crate) fn watch(&self, publisher: Arc<PublishProgress>) {
        self.publishers.lock().unwrap_or_else(PoisonError::into_inner).push(publisher);
    }

    fn trouble(&self) -> Option<String> {
        let publishers = self.publishers.lock().unwrap_or_else(PoisonError::into_inner);
        publishers.iter().find_map(|publisher| publisher.trouble())
    }

    fn told(&self) -> PublishReport {
        PublishReport {
            lines: self.lines.load(Ordering::Relaxed),
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
            archived: self
                .asked
                .load(Ordering::Relaxed)
                .then(|| self.archived.load(Ordering::Relaxed)),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

/// The counts at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublishReport {
    /// Lines that are not blank.
    pub(crate) lines: u64,
    /// Lines whose event the broker has stored.
    pub(crate) acknowledged: u64,
    /// Of these, lines in messages that the broker already had: it remembers each message, as it
    /// was packed, for two minutes.
    pub(crate) duplicates: u64,
    /// Lines whose event the archive already had; `None` if the archive was not read.
    pub(crate) archived: Option<u64>,
    /// Lines that are no event, or an event that would not be counted.
    pub(crate) refused: u64,
}

impl PublishReport {
    /// # Errors
    ///
    /// Lines were refused.
    pub(crate) fn ensure_none_refused(&self) -> anyhow::Result<()> {
        let Self { lines, refused, .. } = self;
        let (unit, were) = if *lines == 1 { ("line", "was") } else { ("lines", "were") };
        anyhow::ensure!(*refused == 0, "{refused} of {lines} {unit} {were} refused");
        Ok(())
    }
}

impl std::fmt::Display for PublishReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { lines, acknowledged, duplicates, archived, refused } = self;
        let unit = if *lines == 1 { "line" } else { "lines" };
        write!(f, "{lines} {unit}, {acknowledged} acknowledged, ")?;
        match archived {
            // Events sent a moment ago may not be archived yet, but the broker has them.
            Some(archived) => write!(f, "{} known already", archived.max(duplicates))?,
            None => write!(f, "{duplicates} known to the broker from the last two minutes")?,
        }
        write!(f, ", {refused} refused")
    }
}

/// The bar on a terminal, and reports of problems everywhere.
#[derive(Debug)]
pub(crate) struct PublishBar {
    bar: ProgressBar,
    counts: Arc<PublishCounts>,
    ended: Arc<AtomicBool>,
}

impl PublishBar {
    /// For an input of `bytes` bytes, if that is known. Must be called within a runtime.
    pub(crate) fn new(bytes: Option<u64>) -> Self {
        let bar = match bytes {
            Some(bytes) => ProgressBar::new(bytes)
                .with_style(style("{bar:30} {bytes}/{total_bytes}  {msg}  {elapsed}, {eta} to go")),
            None => {
                ProgressBar::no_length().with_style(style("{spinner} {bytes}  {msg}  {elapsed}"))
            }
        };
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let progress = Self { bar, counts: Arc::default(), ended: Arc::default() };
        tokio::spawn(look(progress.bar.clone(), progress.counts(), Arc::clone(&progress.ended)));
        progress
    }

    /// Counts the bytes of the input as they are read.
    pub(crate) fn count<R: Read + Send>(&self, raw: R) -> impl Read + Send + use<R> {
        self.bar.wrap_read(raw)
    }

    pub(crate) fn counts(&self) -> Arc<PublishCounts> {
        Arc::clone(&self.counts)
    }

    /// Counts a line that is not blank.
    pub(crate) fn line(&self) {
        self.counts.lines.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes a line above the bar.
    pub(crate) fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{}", plain(text)));
    }

    /// Counts and reports a refused line.
    pub(crate) fn refused(&self, number: u64, refusal: &Refusal) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        self.say(&format!("line {number}: {refusal}"));
    }

    /// Removes the bar and prints the counts.
    ///
    /// # Errors
    ///
    /// Standard output can't be written.
    pub(crate) fn end(&self) -> std::io::Result<PublishReport> {
        self.ended.store(true, Ordering::Relaxed);
        self.bar.finish_and_clear();
        let told = self.counts.told();
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{told}")?;
        stdout.flush()?;
        Ok(told)
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Keeps the bar up to date, and reports once when publishing waits and once when it continues.
async fn look(bar: ProgressBar, counts: Arc<PublishCounts>, ended: Arc<AtomicBool>) {
    let mut said = PublishNotice::default();
    while !ended.load(Ordering::Relaxed) {
        if let Some(news) = said.news(counts.trouble()) {
            bar.suspend(|| eprintln!("{news}"));
        }
        let told = counts.told();
        bar.set_message(format!("{} acknowledged, {} refused", told.acknowledged, told.refused));
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_is_said_as_far_as_somebody_knows() {
        let report = PublishReport {
            lines: 1,
            acknowledged: 1,
            duplicates: 0,
            archived: Some(1),
            refused: 0,
        };
        assert_eq!(report.to_string(), "1 line, 1 acknowledged, 1 known already, 0 refused");
        let of_broker = PublishReport { lines: 3, archived: None, ..report };
        assert_eq!(
            of_broker.to_string(),
            "3 lines, 1 acknowledged, 0 known to the broker from the last two minutes, 0 refused"
        );
        let just_sent = PublishReport { archived: Some(1), duplicates: 3, ..report };
        assert!(just_sent.to_string().contains("3 known already"));
    }
}
