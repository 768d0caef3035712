//! Retries dead letters, so that each event is archived exactly once.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bus::{Bus, BusSettings, Publisher, PublisherLimits};
use domain::{Event, Rules, Stream, Timestamp, accept};
use event_store::StoreSettings;
use event_store::dead_letters::{ClosedAs, DeadLetter, DeadLetterFilter, DeadLetters, RowInserted};
use indicatif::{ProgressBar, ProgressDrawTarget};
use service_kit::Clock;
use wire::{
    Subjects,
    republish::{FirstPlace, replacement, reread, seal_again},
    trimmed,
};

use super::{ALL_BYTES, println_line};
use crate::{identity, publish::unpack::unpacked, said::flush_saying};

/// The source in the subjects of events that are published again.
const SOURCE: &str = "dead-letters";
/// A replacement is one event, and no accepted event is larger.
const REPLACEMENT_BYTES_MAX: u64 = 1 << 20;

/// How to retry.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// A file with the event to publish instead.
    pub(super) replace: Option<PathBuf>,
    /// Also publish what would be refused again.
    pub(super) anyway: bool,
}

/// Retries every dead letter that the filter chooses. Returns whether all of them were retried.
///
/// # Errors
///
/// The archive or the broker failed. Earlier retries are complete.
pub(super) async fn retry(
    store: &StoreSettings,
    bus: &BusSettings,
    which: &DeadLetterFilter,
    options: &Options,
    clock: &Clock,
) -> anyhow::Result<bool> {
    let replacement = match options.replace.clone() {
        // A thread of its own, because standard input may block.
        Some(file) => Some(tokio::task::spawn_blocking(move || read_replacement(&file)).await??),
        None => None,
    };
    let many = which.numbers.as_ref().is_some_and(|numbers| numbers.len() > 1);
    anyhow::ensure!(
        !(replacement.is_some() && many),
        "a replacement is for one dead letter: name one"
    );
    let letters = DeadLetters::write(store).await?;
    let connected = Bus::connect(bus).await?;
    // A dead letter of one pipeline is no event of another.
    identity::compare(&connected, store).await?;
    let bar = bar();
    let mut retrying = Retrying {
        letters,
        publishing: Publishing::new(connected, bar.clone()),
        subjects: Subjects::new(&bus.subject_prefix),
        rules: BTreeMap::new(),
        replacement,
        anyway: options.anyway,
        clock,
    };
    let (mut after, mut failed) = (0, 0_u64);
    let mut found = Vec::new();
    loop {
        let page = retrying.letters.page(which, after, ALL_BYTES).await?;
        let Some(last) = page.last() else { break };
        after = last.number;
        for letter in &page {
            found.push(letter.number);
            let number = letter.number;
            match retrying.letter(letter).await? {
                Retried::Done(what) => {
                    bar.suspend(|| println_line(&format!("dead letter {number}: {what}")))?
                }
                Retried::Left(why) => {
                    failed += 1;
                    bar.suspend(|| eprintln!("dead letter {number}: not retried: {why}"));
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    for number in which.numbers.iter().flatten().filter(|number| !found.contains(number)) {
        failed += 1;
        eprintln!("there is no dead letter {number}");
    }
    Ok(failed == 0)
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

fn read_replacement(file: &Path) -> anyhow::Result<Vec<u8>> {
    let about = || format!("the replacement {} can't be read", file.display());
    let input = if file == Path::new("-") {
        unpacked(std::io::stdin())
    } else {
        unpacked(std::fs::File::open(file).with_context(about)?)
    };
    let mut bytes = Vec::new();
    input.with_context(about)?.take(REPLACEMENT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(trimmed(&bytes).to_vec())
}

/// The result for a dead letter.
enum Retried {
    /// It was archived or published; the text describes how.
    Done(String),
    /// It was left unchanged, for this reason.
    Left(String),
}

struct Retrying<'a> {
    letters: DeadLetters,
    publishing: Publishing,
    subjects: Subjects,
    rules: BTreeMap<Stream, Rules>,
    replacement: Option<Vec<u8>>,
    anyway: bool,
    clock: &'a Clock,
}

impl Retrying<'_> {
    async fn letter(&mut self, letter: &DeadLetter) -> anyhow::Result<Retried> {
        if let Some((closed, _)) = letter.closed {
            return Ok(Retried::Done(format!("closed already ({})", closed.name())));
        }
        let Some(stream) = Stream::from_name(&letter.stream) else {
            let why = format!("{} carries no events: drop it", letter.stream);
            return Ok(Retried::Left(why));
        };
        if letter.counted { self.row(letter).await } else { self.event(letter, stream).await }
    }

    /// Inserts the row of an event that was counted.
    async fn row(&mut self, letter: &DeadLetter) -> anyhow::Result<Retried> {
        if self.replacement.is_some() {
            let why = "it was counted unchanged, and can't become another event now";
            return Ok(Retried::Left(why.to_owned()));
        }
        Ok(match self.letters.insert_row(letter).await? {
            RowInserted::Inserted => Retried::Done("its row was inserted".to_owned()),
            RowInserted::Closed(closed) => {
                Retried::Done(format!("closed already ({})", closed.name()))
            }
            RowInserted::Refused { sqlstate, message } => {
                Retried::Left(format!("PostgreSQL still refuses it ({sqlstate}): {message}"))
            }
        })
    }

    /// Publishes an event that was not counted, and then closes the dead letter. A crash between
    /// the two leaves it open, and the next attempt publishes the same identity.
    async fn event(&mut self, letter: &DeadLetter, stream: Stream) -> anyhow::Result<Retried> {
        let first = FirstPlace { stream, position: letter.position, broker_ns: letter.broker_ns };
        let events = match &self.replacement {
            Some(json) => {
                let known = letter.identity.map(|(_, id)| id);
                replacement(&first, known, json).map(|event| vec![event])
            }
            None => reread(&first, letter.parts().1),
        };
        let events = match events {
            Ok(events) => events,
            Err(refusal) => {
                let why = format!("{refusal}; publish a corrected event with --replace");
                return Ok(Retried::Left(why));
            }
        };
        if let Some(why) = self.would_be_refused(&events, stream).await? {
            return Ok(Retried::Left(why));
        }
        let attempt = self.letters.attempt(letter.number).await?;
        let mut parts: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        for event in events {
            let source = letter.source.as_deref().unwrap_or(SOURCE);
            let subject = self.subjects.of(&event.fact, stream.partition, source);
            parts.entry(subject).or_default().push(event);
        }
        let mut places = Vec::new();
        for (subject, events) in parts {
            let sealed = seal_again(&subject, &events, letter.number, attempt);
            let sequence = self.publishing.publish(sealed).await?;
            places.push(format!("message {sequence} on {subject}"));
        }
        self.letters.close(letter.number, ClosedAs::Published, None).await?;
        Ok(Retried::Done(format!("published again as {}", places.join(" and "))))
    }

    /// Why the services would refuse an event again, by the rules of its stream.
    async fn would_be_refused(
        &mut self,
        events: &[Event],
        stream: Stream,
    ) -> anyhow::Result<Option<String>> {
        if self.anyway {
            return Ok(None);
        }
        let now = Timestamp(self.clock.now_us());
        for event in events {
            let to = Stream { side: event.fact.side(), partition: stream.partition };
            let rules = self.rules(to).await?;
            if let Err(refusal) = accept(event, to, now, &rules) {
                return Ok(Some(format!(
                    "it would be refused again: {refusal}; publish a corrected event with \
                     --replace, or this one with --anyway"
                )));
            }
        }
        Ok(None)
    }

    async fn rules(&mut self, stream: Stream) -> anyhow::Result<Rules> {
        if let Some(rules) = self.rules.get(&stream) {
            return Ok(rules.clone());
        }
        let status = self.publishing.bus.stream(&stream.to_string()).await?;
        let rules = Rules::from_metadata(&status.metadata)
            .with_context(|| format!("the rules of stream {stream}"))?;
        self.rules.insert(stream, rules.clone());
        Ok(rules)
    }
}

/// Publishes one message at a time, because its dead letter is closed only after the message is
/// stored.
struct Publishing {
    bus: Bus,
    publisher: Publisher,
    /// The sequence of the last stored message.
    stored: Arc<Mutex<Option<u64>>>,
    bar: ProgressBar,
}

impl Publishing {
    fn new(bus: Bus, bar: ProgressBar) -> Self {
        let stored: Arc<Mutex<Option<u64>>> = Arc::default();
        let told = Arc::clone(&stored);
        let publisher = bus.publisher(PublisherLimits::default(), move |acknowledged| {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(acknowledged.sequence);
        });
        Self { bus, publisher, stored, bar }
    }

    /// Waits until the message is stored, and reports if that takes long.
    async fn publish(&self, sealed: wire::Sealed) -> anyhow::Result<u64> {
        self.publisher.publish(sealed).await?;
        flush_saying(&self.publisher, |news| self.bar.suspend(|| eprintln!("{news}"))).await?;
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner).take();
        stored.context("the broker acknowledged nothing")
    }
}
