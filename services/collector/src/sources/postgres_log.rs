//! Reads PostgreSQL's log in JSON (`log_destination = jsonlog`). Each executed statement is a
//! query. Pure.
//!
//! Difficulties, found in PostgreSQL's source code and in logs of PostgreSQL 15:
//!
//! - The duration of a statement is part of the message text. In the extended protocol, parsing and
//!   binding have durations of their own; only the execution counts as a query.
//! - The log does not contain how many rows a statement read. `auto_explain` adds a line with the
//!   plan and its measured numbers, besides the line with the duration. If there are plans, the
//!   plan is the query, and the line with the duration is not counted as well. `COPY … FROM` has no
//!   plan.
//! - Messages and severities are translated (`lc_messages`), and the times are in `log_timezone`.
//! - A statement that failed has no duration.
//! - `session_id` and `line_num` together identify a line, even if the file is read again.

mod plan;
mod statement;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use domain::{Event, Fact, Outcome, Reason, Refusal, Side, Statement, Timestamp, WarehouseQuery};
use serde::Deserialize;

use self::{plan::Plan, statement::kind_of};
use super::{decimal::scaled, fingerprint::fingerprint, undecodable::undecodable};
use crate::parsed::Parsed;

/// Prefix of the application names of this project. Statements on such connections are not counted.
const OWN_APPLICATIONS: &str = "lakegauge";

/// The settings for reading a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresLog {
    /// Name of the server. It becomes the warehouse of its queries.
    pub warehouse: String,
    /// Whether `auto_explain` writes plans. If so, each plan is a query.
    pub has_plans: bool,
}

/// The content of some lines of a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LogRead {
    /// The queries, and the lines that can't be read.
    pub parsed: Parsed,
    /// Number of lines with a plan.
    pub plans: u64,
    /// Number of statements for which a loaded `auto_explain` writes a plan.
    pub planned: u64,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    timestamp: Cow<'a, str>,
    #[serde(borrow, default)]
    user: Cow<'a, str>,
    #[serde(borrow, default)]
    dbname: Cow<'a, str>,
    #[serde(borrow, default)]
    session_id: Cow<'a, str>,
    #[serde(default)]
    line_num: u64,
    #[serde(borrow, default)]
    error_severity: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    application_name: Cow<'a, str>,
    #[serde(default)]
    query_id: i64,
}

/// The content of a log message.
enum Message<'a> {
    /// A statement that ran for `executed_us` microseconds.
    Statement { executed_us: u64, text: &'a str },
    /// The plan of a statement, with measured numbers.
    Plan { executed_us: u64, json: &'a str },
    /// No execution: another message, or a step before the execution.
    Other,
}

impl PostgresLog {
    /// Reads complete lines. Never fails: a line that can't be read becomes a refused record.
    pub fn read(&self, lines: &[u8]) -> LogRead {
        let mut read = LogRead::default();
        for line in lines.split(|byte| *byte == b'\n') {
            let line = line.trim_ascii();
            if !line.is_empty() {
                let event = self.event(line, &mut read);
                // Only the bytes of dead letters are copied.
                let bytes = if event.is_err() { without_texts(line) } else { String::new() };
                read.parsed.add(Side::Warehouse, event, bytes.as_bytes());
            }
        }
        read
    }

    /// The query of a line; `None` if the line is about something else.
    fn event(&self, line: &[u8], read: &mut LogRead) -> Result<Option<Event>, Refusal> {
        let line: Line<'_> = serde_json::from_slice(line).map_err(|error| undecodable(&error))?;
        let message = message(&line)?;
        if line.application_name.starts_with(OWN_APPLICATIONS) {
            return Ok(None);
        }
        let query = match message {
            Message::Other => return Ok(None),
            Message::Plan { executed_us, json } => {
                read.plans = read.plans.saturating_add(1);
                if !self.has_plans {
                    return Ok(None);
                }
                let plan = Plan::read(json)?;
                WarehouseQuery {
                    rows_processed: plan.rows_read,
                    rows_returned: plan.rows_returned,
                    bytes_scanned: plan.bytes_scanned,
                    ..self.query(&line, executed_us, plan.statement, &plan.text)
                }
            }
            Message::Statement { executed_us, text } => {
                let kind = kind_of(text);
                if is_planned(kind) {
                    read.planned = read.planned.saturating_add(1);
                }
                if self.has_plans && kind != Statement::Copy {
                    return Ok(None);
                }
                self.query(&line, executed_us, kind, text)
            }
        };
        let occurred_at = moment(&line.timestamp)?;
        if line.session_id.is_empty() || line.line_num == 0 {
            let detail = "session_id and line_num are what tells one line from another";
            return Err(Refusal::of_field(Reason::MissingField, "session_id", detail));
        }
        let number = line.line_num.to_string();
        let parts = [&*self.warehouse, &*line.session_id, &*number];
        let id = wire::derived::of_record("postgres log", &parts);
        Ok(Some(Event { id, occurred_at, fact: Fact::WarehouseQuery(query) }))
    }

    fn query(
        &self,
        line: &Line<'_>,
        executed_us: u64,
        statement: Statement,
        text: &str,
    ) -> WarehouseQuery {
        WarehouseQuery {
            warehouse: self.warehouse.clone(),
            database: line.dbname.clone().into_owned(),
            statement,
            // PostgreSQL has no queue.
            queued_us: 0,
            executed_us,
            rows_processed: 0,
            rows_returned: 0,
            bytes_scanned: 0,
            cache_hit: false,
            outcome: Outcome::Ok,
            principal: line.user.clone().into_owned(),
            // The id is 0 if `compute_query_id` is off.
            fingerprint: match line.query_id {
                0 => fingerprint(text),
                id => id.to_string(),
            },
        }
    }
}

/// Whether `auto_explain` writes a plan for this kind of statement.
const fn is_planned(kind: Statement) -> bool {
    matches!(
        kind,
        Statement::Select
            | Statement::Insert
            | Statement::Update
            | Statement::Delete
            | Statement::Merge
    )
}

fn message<'a>(line: &'a Line<'_>) -> Result<Message<'a>, Refusal> {
    let wrong = |field: &'static str, detail: &str| {
        Err(Refusal::of_field(Reason::WrongField, field, detail.to_owned()))
    };
    match &*line.error_severity {
        "LOG" => {}
        "DEBUG" | "INFO" | "NOTICE" | "WARNING" | "ERROR" | "FATAL" | "PANIC" => {
            return Ok(Message::Other);
        }
        _ => return wrong("error_severity", "is in another language: set lc_messages = 'C'"),
    }
    let Some(rest) = line.message.strip_prefix("duration: ") else {
        if is_duration_of_another_language(&line.message) {
            return wrong("message", "is in another language: set lc_messages = 'C'");
        }
        return Ok(Message::Other);
    };
    let Some((duration, rest)) = rest.split_once(" ms  ") else {
        // PostgreSQL writes such a line with `log_duration` but without
        // `log_min_duration_statement`.
        let detail = "is a duration without its statement: set log_min_duration_statement = 0";
        return wrong("message", detail);
    };
    let Some(executed_us) = scaled(duration, 3).and_then(|us| u64::try_from(us).ok()) else {
        return wrong("message", "has a duration that is no number of milliseconds");
    };
    if let Some(json) = rest.strip_prefix("plan:\n") {
        return Ok(Message::Plan { executed_us, json });
    }
    match rest.split_once(": ") {
        Some((step, text)) if step == "statement" || step.starts_with("execute ") => {
            Ok(Message::Statement { executed_us, text })
        }
        Some((step, _)) if step.starts_with("parse ") || step.starts_with("bind ") => {
            Ok(Message::Other)
        }
        Some(_) | None => wrong("message", "has a duration of something that is not known"),
    }
}

/// Whether a message is a translated duration, such as `Dauer: 0.123 ms  Anweisung: …`: a short
/// text, a colon, and a number with three decimals.
fn is_duration_of_another_language(message: &str) -> bool {
    let Some((word, rest)) = message.split_once([':', '：']) else { return false };
    let number: String = rest.trim_start().chars().take_while(|c| !c.is_whitespace()).collect();
    let (whole, decimals) = number.split_once(['.', ',']).unwrap_or((&number, ""));
    word.chars().count() <= 40
        && !word.chars().any(|c| c.is_ascii_digit())
        && !whole.is_empty()
        && decimals.len() == 3
        && [whole, decimals].concat().bytes().all(|digit| digit.is_ascii_digit())
}

/// The time of a line, in milliseconds. It is in the zone of `log_timezone`; only UTC and GMT are
/// accepted, because the names of other zones can't be resolved.
fn moment(text: &str) -> Result<Timestamp, Refusal> {
    let utc = text.strip_suffix(" UTC").or_else(|| text.strip_suffix(" GMT"));
    utc.and_then(|local| wire::json::parse_time(&format!("{local}Z"))).ok_or_else(|| {
        let detail = "is no time in UTC: set log_timezone = 'UTC'";
        Refusal::of_field(Reason::WrongField, "timestamp", detail)
    })
}

/// A line without the texts of its statement, because dead letters are stored and people read them.
fn without_texts(line: &[u8]) -> String {
    const KEPT: [&str; 6] =
        ["timestamp", "session_id", "line_num", "error_severity", "backend_type", "query_id"];
    match serde_json::from_slice::<serde_json::Value>(line) {
        Ok(serde_json::Value::Object(mut fields)) => {
            fields.retain(|name, _| KEPT.contains(&name.as_str()));
            serde_json::Value::Object(fields).to_string()
        }
        Ok(_) | Err(_) => String::new(),
    }
}
