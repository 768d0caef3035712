//! Asks the aggregator, the archiver and the archive.

use std::time::Duration;

use aggregator::api::Now;
use domain::Timestamp;
use event_store::dead_letters::{DeadLetterFilter, DeadLetters};
use service_kit::scrape::Scrape;
use service_kit::terminal::plain;
use service_kit::{Clock, http_client};
use wire::json::format_time;

use super::{
    Config, banner,
    readings::{Archiver, Readings},
};

/// Longest wait for everything except the aggregator's numbers, so that a part that hangs does not
/// keep the screen from showing that.
const BESIDE_WAIT: Duration = Duration::from_secs(1);
/// The most dead letters that are shown.
const LETTERS_MAX: usize = 20;
/// Only dead letters of the last hour are shown, in seconds.
const LETTERS_RECENT_S: i64 = 3_600;
/// The most pages of dead letters that are searched: more are not worth the time.
const LETTER_PAGES_MAX: usize = 10;
/// Bytes of a dead letter that are read, because none are shown.
const LETTER_BYTES: u32 = 1;

/// The source of the readings.
#[derive(Debug)]
pub(super) struct Probe {
    config: Config,
    clock: Clock,
    /// Events that the archiver had committed at the last reading, and its time in milliseconds.
    archived: Option<(f64, u64)>,
    letters: Option<DeadLetters>,
    /// Since when the aggregator has not answered, in microseconds since 1970.
    silent_since_us: Option<i64>,
}

impl Probe {
    /// A source without a reading yet.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            clock: Clock::system(),
            archived: None,
            letters: None,
            silent_since_us: None,
        }
    }

    /// Takes one reading of all parts. Parts that do not answer are reported, and not waited for.
    pub(super) async fn look(&mut self) -> Readings {
        let metrics = self.config.metrics;
        let archiver = self.config.archiver;
        let (now, history, archiver, letters) = tokio::join!(
            http_client::get(metrics, "/api/now"),
            http_client::get(metrics, "/api/history"),
            tokio::time::timeout(BESIDE_WAIT, http_client::get(archiver, "/metrics")),
            tokio::time::timeout(BESIDE_WAIT, self.letters()),
        );
        let letters = letters.unwrap_or_else(|_| {
            Err(format!("not known: the archive does not answer in {} s", BESIDE_WAIT.as_secs()))
        });
        // 503 has the same format, without numbers.
        let now = now.and_then(|(_, text)| Ok(serde_json::from_str::<Now>(&text)?));
        let since_us = match &now {
            Ok(_) => None,
            Err(_) => Some(self.silent_since_us.unwrap_or_else(|| self.clock.now_us())),
        };
        self.silent_since_us = since_us;
        let now = now.map_err(|error| {
            let since = banner::clock(since_us.unwrap_or_default() / 1_000);
            format!(
                "the aggregator does not answer at {metrics} since {since}: {error:#} \
                 (--metrics-addr). Look at its log, and start it if it does not run; what was \
                 acknowledged is not lost."
            )
        });
        let history = history.ok().and_then(|(_, text)| serde_json::from_str(&text).ok());
        let archiver = archiver.ok().and_then(Result::ok).filter(|(status, _)| *status == 200);
        Readings {
            now,
            history: history.unwrap_or_default(),
            archiver: archiver.map(|(_, text)| self.archiver(&Scrape::parse(&text))),
            letters,
        }
    }

    fn archiver(&mut self, page: &Scrape) -> Archiver {
        let archived = page.sum("lakegauge_archiver_events_total", "result=\"inserted\"");
        let now_ms = self.clock.monotonic_ms();
        let before = self.archived;
        self.archived = archived.map(|archived| (archived, now_ms));
        let events_per_s = before.zip(archived).and_then(|((then, then_ms), archived)| {
            let ms = u32::try_from(now_ms - then_ms).ok().filter(|ms| *ms > 0)?;
            // A counter that decreased belongs to a process that was restarted.
            Some((archived - then).max(0.0) * 1e3 / f64::from(ms))
        });
        Archiver {
            lag: page.sum("lakegauge_archiver_lag_messages", ""),
            events_per_s,
            letters_open: page.sum("lakegauge_archive_dead_letters_open", ""),
        }
    }

    /// The open dead letters of the last hour, the newest first.
    async fn letters(&mut self) -> Result<Vec<String>, String> {
        let Some(store) = &self.config.store else {
            return Err("not known: DATABASE_URL is not set".to_owned());
        };
        let mut letters = match self.letters.take() {
            Some(letters) => letters,
            None => {
                DeadLetters::read(store).await.map_err(|error| format!("not known: {error}"))?
            }
        };
        let since = Timestamp(self.clock.now_us()).plus_seconds(-LETTERS_RECENT_S);
        let filter = DeadLetterFilter {
            since: Some(since),
            open: Some(true),
            ..DeadLetterFilter::default()
        };
        let (mut found, mut after) = (Vec::new(), 0);
        for _ in 0..LETTER_PAGES_MAX {
            let page = letters.page(&filter, after, LETTER_BYTES).await;
            let page = page.map_err(|error| format!("not known: {error}"))?;
            let Some(last) = page.last() else { break };
            after = last.number;
            found.extend(page.iter().map(|letter| {
                let time = format_time(letter.received_at).unwrap_or_default();
                let time = time.get(11..19).unwrap_or_default();
                plain(&format!(
                    "{:>6}  {time}  {:<12} {:<16} {:<20} {}",
                    letter.number,
                    letter.stream,
                    letter.source.as_deref().unwrap_or("-"),
                    letter.reason.name(),
                    letter.detail
                ))
            }));
            let excess = found.len().saturating_sub(LETTERS_MAX);
            found.drain(..excess);
        }
        found.reverse();
        self.letters = Some(letters);
        Ok(found)
    }
}
