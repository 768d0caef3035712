//! The result of an audit, for people and as a certificate.

use std::io::Write;

use domain::ArchiveSide;
use event_store::{MessageRange, audit::StreamLedger};
use serde::Serialize;
use service_kit::terminal::plain;

use super::{
    compare::Comparisons,
    finding::{Finding, Trouble},
};

/// The most findings that are written; all of them are counted.
const FINDINGS_SHOWN_MAX: usize = 1_000;

/// The result of an audit. The digest covers everything except the time, so that two audits of the
/// same archive have the same digest.
#[derive(Debug, Serialize)]
pub(super) struct Certificate {
    /// Version of this format.
    pub(super) lakegauge_audit: u32,
    pub(super) well: bool,
    /// When the view of the archive was taken, by the database's clock.
    pub(super) taken_at: String,
    pub(super) identity: AuditedPipeline,
    pub(super) streams: Vec<OfStream>,
    pub(super) findings: Vec<Finding>,
    /// All findings, including those that are not written.
    pub(super) findings_total: usize,
    pub(super) unchecked: Vec<String>,
    /// The blake3 hash of identity, streams, findings and what was not checked, in hexadecimal.
    pub(super) digest: String,
}

/// What was audited.
#[derive(Debug, Serialize)]
pub(super) struct AuditedPipeline {
    /// The archive's own name.
    pub(super) archive: String,
    /// The pipeline whose events it keeps; `None` if no archiver has used it yet.
    pub(super) pipeline: Option<String>,
    /// Whether the broker was checked, and belongs to the same pipeline.
    pub(super) with_broker: bool,
}

impl AuditedPipeline {
    pub(super) fn of(archive: &ArchiveSide, with_broker: bool) -> Self {
        Self {
            archive: archive.id.to_string(),
            pipeline: archive.pipeline.as_ref().map(|pipeline| pipeline.id.to_string()),
            with_broker,
        }
    }
}

/// The sums of one stream.
#[derive(Debug, Serialize)]
pub(super) struct OfStream {
    pub(super) stream: String,
    pub(super) epoch: Option<u32>,
    pub(super) sequence: Option<u64>,
    /// The messages that the ledger contains without a gap.
    pub(super) ranges: Vec<Span>,
    pub(super) transactions: u64,
    pub(super) events: u64,
    pub(super) inserted: u64,
    pub(super) duplicates: u64,
    pub(super) dead: u64,
    pub(super) rows: u64,
    pub(super) letters: u64,
    /// Dead letters whose rows were inserted later.
    pub(super) letters_retried: u64,
    pub(super) dropped_rows: u64,
    pub(super) declared_lost: Vec<Span>,
    pub(super) declared_lost_messages: u64,
    /// The blake3 hash over each range of the ledger with its counts, in hexadecimal.
    pub(super) ledger_digest: String,
    #[serde(flatten)]
    pub(super) compared: Comparisons,
}

/// Messages of an epoch, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Span {
    pub(super) epoch: u32,
    pub(super) first: u64,
    pub(super) last: u64,
}

impl From<MessageRange> for Span {
    fn from(messages: MessageRange) -> Self {
        Self { epoch: messages.epoch, first: messages.first, last: messages.last }
    }
}

impl OfStream {
    pub(super) fn new(ledger: &StreamLedger, compared: Comparisons) -> Self {
        let mut of = Self {
            stream: ledger.stream.clone(),
            epoch: ledger.checkpoint.map(|mark| mark.epoch),
            sequence: ledger.checkpoint.map(|mark| mark.sequence),
            ranges: spans(ledger),
            transactions: 0,
            events: 0,
            inserted: 0,
            duplicates: 0,
            dead: 0,
            rows: ledger.samples.unwrap_or(0),
            letters: 0,
            letters_retried: 0,
            dropped_rows: ledger.dropped_rows,
            declared_lost: ledger.lost.iter().copied().map(Span::from).collect(),
            declared_lost_messages: ledger.lost.iter().map(|lost| lost.last - lost.first + 1).sum(),
            ledger_digest: String::new(),
            compared,
        };
        let mut hasher = blake3::Hasher::new();
        for range in &ledger.ranges {
            of.transactions += 1;
            of.events += range.events;
            of.inserted += range.inserted;
            of.duplicates += range.duplicates;
            of.dead += range.dead;
            of.rows += range.rows;
            of.letters += range.letters;
            of.letters_retried += range.retried;
            let messages = range.messages;
            let line = format!(
                "{} {} {} {} {} {} {} {} {} {}\n",
                messages.epoch,
                messages.first,
                messages.last,
                range.events,
                range.inserted,
                range.duplicates,
                range.dead,
                range.rows,
                range.letters,
                range.retried
            );
            hasher.update(line.as_bytes());
        }
        of.ledger_digest = hasher.finalize().to_hex().to_string();
        of
    }
}

/// The ranges of the ledger; those that follow each other are joined.
fn spans(ledger: &StreamLedger) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for range in &ledger.ranges {
        let messages = range.messages;
        match spans.last_mut() {
            Some(span) if span.epoch == messages.epoch && span.last + 1 == messages.first => {
                span.last = messages.last;
            }
            Some(_) | None => spans.push(messages.into()),
        }
    }
    spans
}

impl Certificate {
    pub(super) fn new(
        taken_at: String,
        identity: AuditedPipeline,
        streams: Vec<OfStream>,
        mut findings: Vec<Finding>,
        unchecked: Vec<String>,
    ) -> serde_json::Result<Self> {
        let covered = (&identity, &streams, &findings, &unchecked);
        let digest = blake3::hash(&serde_json::to_vec(&covered)?);
        let findings_total = findings.len();
        findings.truncate(FINDINGS_SHOWN_MAX);
        Ok(Self {
            lakegauge_audit: 1,
            well: findings_total == 0,
            taken_at,
            identity,
            streams,
            findings,
            findings_total,
            unchecked,
            digest: digest.to_hex().to_string(),
        })
    }

    /// Writes one JSON object.
    pub(super) fn write_json(&self, out: &mut impl Write) -> std::io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }

    /// Writes text for people.
    pub(super) fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let AuditedPipeline { archive, pipeline, with_broker } = &self.identity;
        let beside = if *with_broker { "with its broker" } else { "alone" };
        match pipeline {
            Some(pipeline) => writeln!(out, "pipeline {pipeline}, archive {archive}, {beside}")?,
            None => writeln!(out, "archive {archive}, of no pipeline yet, {beside}")?,
        }
        for stream in &self.streams {
            write_stream(out, stream)?;
        }
        for finding in &self.findings {
            writeln!(out, "{}", plain(&line(finding)))?;
        }
        if self.findings_total > self.findings.len() {
            writeln!(out, "… and {} more", self.findings_total - self.findings.len())?;
        }
        for stream in &self.streams {
            for span in &stream.declared_lost {
                writeln!(out, "declared lost  {} {}", stream.stream, place(span))?;
            }
        }
        for unchecked in &self.unchecked {
            writeln!(out, "not checked    {unchecked}")?;
        }
        writeln!(out, "taken at {}, digest {}", self.taken_at, self.digest)?;
        match self.findings_total {
            0 => writeln!(out, "all is well"),
            1 => writeln!(out, "one finding"),
            more => writeln!(out, "{more} findings"),
        }
    }
}

fn write_stream(out: &mut impl Write, stream: &OfStream) -> std::io::Result<()> {
    let OfStream { events, inserted, duplicates, dead, rows, letters, .. } = stream;
    let places: Vec<String> = stream.ranges.iter().map(place).collect();
    let places = if places.is_empty() { "nothing".to_owned() } else { places.join("; ") };
    writeln!(out, "{}: {places}, in {} transactions", stream.stream, stream.transactions)?;
    writeln!(
        out,
        "  {events} events = {inserted} inserted + {duplicates} duplicates + {dead} dead"
    )?;
    write!(out, "  {rows} rows and {letters} dead letters exist")?;
    if stream.letters_retried > 0 {
        write!(out, ", {} of these dead letters as rows", stream.letters_retried)?;
    }
    if stream.dropped_rows > 0 {
        write!(out, "; retention dropped {} rows", stream.dropped_rows)?;
    }
    writeln!(out)?;
    if stream.compared.messages_read_again > 0 {
        writeln!(
            out,
            "  {} messages of the stream read again: {} events",
            stream.compared.messages_read_again, stream.compared.events_read_again
        )?;
    }
    Ok(())
}

fn place(span: &Span) -> String {
    format!("epoch {}, messages {} to {}", span.epoch, span.first, span.last)
}

fn line(finding: &Finding) -> String {
    let trouble = match finding.trouble {
        Trouble::Missing => "MISSING",
        Trouble::Doubled => "DOUBLED",
        Trouble::Skipped => "SKIPPED",
        Trouble::Stray => "STRAY",
        Trouble::Unbalanced => "UNBALANCED",
        Trouble::OtherStream => "STREAM",
        Trouble::Waiting => "WAITING",
    };
    let mut line = format!("{trouble:<14} ");
    if let Some(stream) = &finding.stream {
        line.push_str(&format!("{stream} "));
    }
    if let (Some(epoch), Some(first), Some(last)) = (finding.epoch, finding.first, finding.last) {
        line.push_str(&format!("{}: ", place(&Span { epoch, first, last })));
    }
    line + &finding.detail
}
