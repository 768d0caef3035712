//! `lakegauge publish --dry-run`: shows what a file contains, before anything is sent.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use domain::{
    Event, Fact, LakeAccessRestored, LakeAccessWithdrawn, Refusal, Rules, Stream, Timestamp,
    WarehouseQueryWithdrawn, accept::accept, partition,
};
use service_kit::Clock;
use service_kit::metrics::float;
use service_kit::terminal::{grouped, plain};
use wire::{Packer, PackerLimits, Sealed, Subjects, json::format_time};

use super::{
    Config,
    input::{self, Line},
    lanes::PARTITIONS,
    lines::{Identifier, NoEvent, TooManyLines},
    open,
    unpack::unpacked,
};

/// The most names of buckets and warehouses with sums of their own; the others have one sum.
const NAMES_MAX: usize = 10_000;
/// The most names that are shown: the busiest.
const NAMES_SHOWN: usize = 10;

/// Reads the input to its end and shows what would be published, without a connection.
///
/// # Errors
///
/// The input can't be read, or one of its lines is refused.
pub(super) fn preview(config: &Config, file: &Path) -> anyhow::Result<()> {
    let (raw, _) = open(file)?;
    let mut preview = Preview::new(config);
    let mut too_many = None;
    let give = |lines| match preview.lines(lines) {
        Ok(goes_on) => goes_on,
        Err(error) => {
            too_many = Some(error);
            false
        }
    };
    input::read_lines(unpacked(raw)?, give)?;
    preview.flush();
    let mut out = std::io::stdout().lock();
    out.write_all(preview.describe().as_bytes())?;
    out.flush()?;
    if let Some(error) = too_many {
        return Err(error.into());
    }
    let Preview { refused, number, .. } = preview;
    let lines = counted(number, "line", "lines");
    anyhow::ensure!(refused == 0, "{} of {lines} would be refused", grouped(float(refused)));
    Ok(())
}

fn counted(number: u64, one: &str, more: &str) -> String {
    format!("{} {}", grouped(float(number)), if number == 1 { one } else { more })
}

/// What was read so far.
struct Preview {
    strict: bool,
    source: String,
    identifier: Identifier,
    clock: Clock,
    /// The rules of a new pipeline, because there is no connection to the real one.
    rules: Rules,
    subjects: Subjects,
    packers: BTreeMap<String, Packer>,
    format: wire::Format,
    /// Lines that are not blank.
    number: u64,
    refused: u64,
    messages: u64,
    message_bytes: u64,
    kinds: BTreeMap<&'static str, EventSums>,
    buckets: NamedSums,
    warehouses: NamedSums,
}

/// Sums of one kind or name.
#[derive(Clone, Copy, Debug, Default)]
struct EventSums {
    events: u64,
    /// Bytes transferred or scanned, by the events.
    bytes: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl EventSums {
    fn add(&mut self, at: Timestamp, bytes: u64) {
        self.events += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = self.last.max(Some(at));
    }
}

/// Sums by name, for a bounded number of names.
#[derive(Debug, Default)]
struct NamedSums {
    names: BTreeMap<String, EventSums>,
    others: EventSums,
}

impl NamedSums {
    fn add(&mut self, name: &str, at: Timestamp, bytes: u64) {
        let room = self.names.len() < NAMES_MAX;
        match self.names.get_mut(name) {
            Some(sums) => sums.add(at, bytes),
            None if room => self.names.entry(name.to_owned()).or_default().add(at, bytes),
            None => self.others.add(at, bytes),
        }
    }

    fn describe(&self, text: &mut String, what: &str, bytes: &str) {
        let mut busiest: Vec<(&String, &EventSums)> = self.names.iter().collect();
        busiest.sort_by_key(|(name, sums)| (std::cmp::Reverse(sums.events), *name));
        for (name, sums) in busiest.iter().take(NAMES_SHOWN) {
            let (name, events) = (plain(name), counted(sums.events, "event", "events"));
            let moved = grouped(float(sums.bytes));
            text.push_str(&format!("  {what} {name}: {events}, {moved} bytes {bytes}\n"));
        }
        let more = busiest.len().saturating_sub(NAMES_SHOWN);
        if more > 0 || self.others.events > 0 {
            let hidden = busiest.iter().skip(NAMES_SHOWN).map(|(_, sums)| sums.events);
            let events = hidden.sum::<u64>() + self.others.events;
            let at_least = if self.others.events > 0 { "more than " } else { "" };
            let names = counted(u64::try_from(more).unwrap_or(u64::MAX), what, &format!("{what}s"));
            let events = counted(events, "event", "events");
            text.push_str(&format!("  {at_least}{names} besides: {events}\n"));
        }
    }
}

impl Preview {
    fn new(config: &Config) -> Self {
        Self {
            strict: config.strict,
            source: config.source.clone(),
            identifier: Identifier::new(config.source.clone(), config.lines_without_id_max),
            clock: Clock::system(),
            rules: Rules::default(),
            subjects: Subjects::new(&config.bus.subject_prefix),
            packers: BTreeMap::new(),
            format: config.format,
            number: 0,
            refused: 0,
            messages: 0,
            message_bytes: 0,
            kinds: BTreeMap::new(),
            buckets: NamedSums::default(),
            warehouses: NamedSums::default(),
        }
    }

    /// Adds some lines. Returns whether to continue.
    fn lines(&mut self, lines: Vec<Line>) -> Result<bool, TooManyLines> {
        for Line { number, text } in lines {
            self.number += 1;
            let refused = match text.map(|text| self.identifier.event(&text)) {
                Ok(Ok(event)) => self.event(&event),
                Ok(Err(NoEvent::Refused(refusal))) | Err(refusal) => Err(refusal),
                Ok(Err(NoEvent::TooMany(error))) => return Err(error),
            };
            if let Err(refusal) = refused {
                self.refused += 1;
                eprintln!("{}", plain(&format!("line {number}: {refusal}")));
                if self.strict {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn event(&mut self, event: &Event) -> Result<(), Refusal> {
        let partition = partition::of(event, PARTITIONS);
        let stream = Stream { side: event.fact.side(), partition };
        accept(event, stream, Timestamp(self.clock.now_us()), &self.rules)?;
        let at = event.occurred_at;
        let (kind, bytes) = match &event.fact {
            Fact::LakeAccess(access) => {
                self.buckets.add(&access.bucket, at, access.bytes);
                ("lake.access", access.bytes)
            }
            Fact::LakeInventory(inventory) => {
                self.buckets.add(&inventory.bucket, at, 0);
                ("lake.inventory", 0)
            }
            Fact::WarehouseQuery(query) => {
                self.warehouses.add(&query.warehouse, at, query.bytes_scanned);
                ("warehouse.query", query.bytes_scanned)
            }
            Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { access, .. })
            | Fact::LakeAccessRestored(LakeAccessRestored { access, .. }) => {
                self.buckets.add(&access.bucket, at, 0);
                ("corrections", 0)
            }
            Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { query, .. }) => {
                self.warehouses.add(&query.warehouse, at, 0);
                ("corrections", 0)
            }
        };
        self.kinds.entry(kind).or_default().add(at, bytes);
        let subject = self.subjects.of(&event.fact, partition, &self.source);
        let format = self.format;
        let packer = self.packers.entry(subject).or_insert_with_key(|subject| {
            Packer::new(subject.clone(), format, PackerLimits::default())
        });
        // At one moment, because packing by age depends on the time of sending.
        let sealed = packer.push(0, event);
        self.count(sealed);
        Ok(())
    }

    fn count(&mut self, sealed: Option<Sealed>) {
        let Some(sealed) = sealed else { return };
        self.messages += 1;
        let bytes = u64::try_from(sealed.payload.len()).unwrap_or(u64::MAX);
        self.message_bytes = self.message_bytes.saturating_add(bytes);
    }

    fn flush(&mut self) {
        for mut packer in std::mem::take(&mut self.packers).into_values() {
            let sealed = packer.flush();
            self.count(sealed);
        }
    }

    fn describe(&self) -> String {
        let events = self.kinds.values().map(|sums| sums.events).sum();
        let mut text = format!(
            "nothing was sent: {}, {}, {} refused\n",
            counted(self.number, "line", "lines"),
            counted(events, "event", "events"),
            grouped(float(self.refused)),
        );
        let time = |at: Option<Timestamp>| at.and_then(format_time).unwrap_or_default();
        for (kind, sums) in &self.kinds {
            let events = counted(sums.events, "event", "events");
            let (first, last) = (time(sums.first), time(sums.last));
            text.push_str(&format!("  {kind}: {events}, from {first} to {last}\n"));
        }
        self.buckets.describe(&mut text, "bucket", "transferred");
        self.warehouses.describe(&mut text, "warehouse", "scanned");
        text.push_str(&format!(
            "  to send: {} in at least {}, source {}\n",
            counted(self.message_bytes, "byte", "bytes"),
            counted(self.messages, "message", "messages"),
            self.source,
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use service_kit::Settings;

    use super::*;

    fn preview(lines: &[&str]) -> Preview {
        let config = Settings::defaults(Config::load).unwrap();
        let mut preview = Preview::new(&config);
        let lines = (1..)
            .zip(lines)
            .map(|(number, text)| Line { number, text: Ok(text.as_bytes().to_vec()) });
        assert!(preview.lines(lines.collect()).unwrap());
        preview.flush();
        preview
    }

    #[test]
    fn a_dry_run_says_what_the_file_holds() {
        let access = |bucket: &str, second: u32| {
            format!(
                r#"{{"type":"lake.access","occurred_at":"2026-11-01T00:00:{second:02}Z","bucket":"{bucket}","key":"k","operation":"write","bytes":1000,"duration_us":2,"outcome":"ok","principal":""}}"#
            )
        };
        let query = r#"{"type":"warehouse.query","occurred_at":"2026-11-02T00:00:00Z","warehouse":"etl","database":"dw","statement":"select","queued_us":0,"executed_us":0,"rows_processed":0,"rows_returned":0,"bytes_scanned":7,"cache_hit":false,"outcome":"ok","principal":"","fingerprint":""}"#;
        let lines = [access("raw", 3), access("raw", 1), access("other", 2)];
        let preview = preview(&[&lines[0], &lines[1], "no event", &lines[2], query]);
        let text = preview.describe();
        for expected in [
            "nothing was sent: 5 lines, 4 events, 1 refused\n",
            "  lake.access: 3 events, from 2026-11-01T00:00:01.000000Z to 2026-11-01T00:00:03.000000Z\n",
            "  warehouse.query: 1 event, from ",
            "  bucket raw: 2 events, 2,000 bytes transferred\n  bucket other: 1 event, ",
            "  warehouse etl: 1 event, 7 bytes scanned\n",
            " in at least 2 messages, source publish\n",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }

    #[test]
    fn many_names_are_summed_up() {
        let mut sums = NamedSums::default();
        for number in 0..NAMES_MAX + 5 {
            sums.add(&number.to_string(), Timestamp(0), 1);
        }
        let mut text = String::new();
        sums.describe(&mut text, "bucket", "transferred");
        assert_eq!(text.lines().count(), NAMES_SHOWN + 1);
        assert!(text.ends_with("more than 9,990 buckets besides: 9,995 events\n"), "{text}");
    }
}
