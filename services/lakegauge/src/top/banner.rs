//! What is wrong, at the top of the screen: the same text as on the page. Pure.

use aggregator::api::{Incident, IncidentKind, Now, PartState, Severity};
use domain::Timestamp;
use ratatui::text::{Line, Span};
use service_kit::terminal::plain;
use wire::json::format_time;

use super::style::{BAD, GOOD, SOFT, STRONG};

/// The most rows of the banner, so that the numbers keep the larger part of a small screen.
const ROWS_MAX: usize = 9;

/// A time of day in UTC, to the second.
pub(super) fn clock(at_ms: i64) -> String {
    let time = format_time(Timestamp(at_ms.saturating_mul(1_000))).unwrap_or_default();
    format!("{} UTC", time.get(11..19).unwrap_or_default())
}

/// One or two sentences: what is wrong, since when, and what waits.
pub(super) fn told(incident: &Incident) -> String {
    let mut text = incident.title.clone();
    if is_count(incident) {
        text.push_str(&format!(": {}", incident.detail));
    }
    if let Some(since_ms) = incident.since_ms {
        text.push_str(&format!(" (since {})", clock(since_ms)));
    }
    text.push('.');
    match (incident.severity, incident.waiting_messages) {
        (Severity::Note, _) => {}
        (Severity::Incident, Some(count)) => {
            text.push_str(&format!(" {count} messages wait to be archived, and nothing is lost."));
        }
        (Severity::Incident, None) => text.push_str(" Nothing that was acknowledged is lost."),
    }
    plain(&text)
}

/// Whether the detail is only a number.
fn is_count(incident: &Incident) -> bool {
    incident.kind == IncidentKind::DeadLetters
}

/// The banner, wrapped to a width; empty while all is well.
pub(super) fn lines(now: &Now, width: u16) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for incident in &now.incidents {
        let is_note = incident.severity == Severity::Note;
        let (mark, style) = if is_note { ("  ", STRONG) } else { ("! ", BAD) };
        let detail = if is_count(incident) { "" } else { incident.detail.as_str() };
        let texts = [(mark, told(incident), style), ("  ", incident.todo.clone(), STRONG)];
        for (mark, text, style) in texts.into_iter().chain([("  ", plain(detail), SOFT)]) {
            let rows = wrapped(&text, usize::from(width).saturating_sub(mark.len()));
            lines.extend(rows.into_iter().map(|row| Line::styled(format!("{mark}{row}"), style)));
        }
    }
    if lines.len() > ROWS_MAX {
        lines.truncate(ROWS_MAX - 1);
        lines.push(Line::styled("  … more: `lakegauge top --once`, or the page", SOFT));
    }
    lines
}

/// Every part in one line; those of a usual pipeline fit into 80 columns.
pub(super) fn parts_line(now: &Now) -> Line<'static> {
    let mut spans = Vec::new();
    for part in &now.parts {
        let (sign, style) = match part.state {
            PartState::Well => ("✓", GOOD),
            PartState::Standby => ("◌", STRONG),
            PartState::Unknown => ("?", STRONG),
            PartState::Failing | PartState::Silent | PartState::Stopped => ("✗", BAD),
        };
        spans.push(Span::styled(sign, style));
        spans.push(Span::raw(plain(&format!("{} ", part.name))));
    }
    Line::from(spans)
}

/// The state of the ledger in a few words, for screens without room for a line.
pub(super) fn ledger_note(now: &Now) -> Span<'static> {
    match now.ledger {
        Some(ledger) if ledger.well => {
            let at = clock(ledger.checked_ms);
            Span::styled(format!("  ledger ok {}", at.trim_end_matches(" UTC")), SOFT)
        }
        Some(_) => Span::styled("  ledger: run `lakegauge audit`", BAD),
        None => Span::default(),
    }
}

/// The state of the archive's ledger.
pub(super) fn ledger_line(now: &Now) -> Line<'static> {
    let Some(ledger) = now.ledger else { return Line::default() };
    let at = clock(ledger.checked_ms);
    let (text, style) = if ledger.well {
        (format!("all is well, at {at}; `lakegauge audit` proves it"), SOFT)
    } else {
        (format!("{} gaps, at {at}: run `lakegauge audit`", ledger.gaps), BAD)
    };
    Line::from(vec![Span::styled("ledger      ", SOFT), Span::styled(text, style)])
}

/// Rows of whole words; a word that is longer than a row is cut by the terminal.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match rows.last_mut() {
            Some(row) if row.chars().count() + 1 + word.chars().count() <= width => {
                row.push(' ');
                row.push_str(word);
            }
            _ => rows.push(word.to_owned()),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use aggregator::api::PipelinePart;

    use super::*;

    #[test]
    fn an_incident_is_told_with_since_when_and_what_waits() {
        let mut incident = Incident {
            title: "The archiver can't reach PostgreSQL".to_owned(),
            since_ms: Some(45_296_000),
            waiting_messages: Some(12),
            ..Incident::default()
        };
        assert_eq!(
            told(&incident),
            "The archiver can't reach PostgreSQL (since 12:34:56 UTC). 12 messages wait to be archived, \
             and nothing is lost."
        );
        incident.waiting_messages = None;
        assert!(told(&incident).ends_with("Nothing that was acknowledged is lost."));
        let letters = Incident {
            kind: IncidentKind::DeadLetters,
            severity: Severity::Note,
            title: "Not archived".to_owned(),
            detail: "15".to_owned(),
            ..Incident::default()
        };
        assert_eq!(told(&letters), "Not archived: 15.");
    }

    #[test]
    fn the_parts_of_a_usual_pipeline_fit_into_a_usual_screen() {
        let names = [
            "NATS",
            "PostgreSQL",
            "aggregator",
            "archiver",
            "lake-simulator",
            "warehouse-simulator",
        ];
        let part = |name: &str| PipelinePart {
            name: name.to_owned(),
            state: PartState::Well,
            ..PipelinePart::default()
        };
        let now = Now { parts: names.map(part).into(), ..Now::default() };
        assert!(parts_line(&now).width() <= 80, "{}", parts_line(&now));
    }

    #[test]
    fn rows_are_as_wide_as_the_screen_and_few() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("", 7), [""; 0]);
        let incident = Incident { title: "word ".repeat(200), ..Incident::default() };
        let now = Now { incidents: vec![incident], ..Now::default() };
        let rows = lines(&now, 40);
        assert_eq!(rows.len(), ROWS_MAX);
        assert!(rows.iter().take(ROWS_MAX - 1).all(|row| row.width() <= 40));
    }
}
