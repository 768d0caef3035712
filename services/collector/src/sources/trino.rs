//! Completed queries of Trino and Presto, as their HTTP event listeners send them. Pure.
//!
//! An event is a JSON object without a type. Difficulties, found in source code and recorded
//! events:
//!
//! - An event with `statistics` and `endTime` is a completed query. Created queries and splits lack
//!   at least one of them.
//! - Listeners of Presto put the event into `{"queryCompletedEvent": {…}}`, with `null` for the
//!   other kinds of event.
//! - Some listeners write durations as decimal seconds and others as milliseconds, and no field
//!   contains the unit. The time between start and end shows which unit it is.
//! - Times are seconds since 1970, with a fraction, or texts of RFC 3339.
//! - Every statistic may be missing, and versions add and remove fields.
//! - A query that is sent again because an answer was lost has the same query id.

mod measured;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use domain::{Event, Fact, Outcome, Reason, Refusal, Side, Statement, WarehouseQuery};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use self::measured::{Count, Durations, moment};
use super::{fingerprint::fingerprint, split, undecodable::undecodable};
use crate::parsed::{Parsed, UnreadableReport};

/// Fields that are removed from a refused event, because they may contain data of the query.
const TEXTS: &[&str] = &[
    "query",
    "preparedQuery",
    "expandedQuery",
    "plan",
    "jsonPlan",
    "graphvizPlan",
    "failureMessage",
    "failuresJson",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow)]
    query_completed_event: Option<&'a RawValue>,
    #[serde(borrow)]
    cluster_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    statistics: Option<&'a RawValue>,
    #[serde(borrow)]
    end_time: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Completed<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(default)]
    statistics: Statistics<'a>,
    #[serde(borrow, default)]
    context: QueryContext<'a>,
    #[serde(borrow)]
    failure_info: Option<FailureInfo<'a>>,
    /// The kind of a query in events of Presto. In events of Trino, the context contains it.
    #[serde(borrow)]
    query_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    create_time: Option<&'a RawValue>,
    #[serde(borrow)]
    end_time: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    query_id: Cow<'a, str>,
    #[serde(borrow)]
    query_state: Option<Cow<'a, str>>,
    /// The effect of a data definition or an insert, for people; for example `CREATE TABLE`.
    #[serde(borrow)]
    update_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    query: Option<Cow<'a, str>>,
    /// The fingerprint that Presto made.
    #[serde(borrow)]
    query_hash: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct QueryContext<'a> {
    #[serde(borrow)]
    user: Option<Cow<'a, str>>,
    #[serde(borrow)]
    catalog: Option<Cow<'a, str>>,
    #[serde(borrow)]
    schema: Option<Cow<'a, str>>,
    #[serde(borrow)]
    environment: Option<Cow<'a, str>>,
    #[serde(borrow)]
    query_type: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Statistics<'a> {
    #[serde(borrow)]
    wall_time: Option<&'a RawValue>,
    #[serde(borrow)]
    queued_time: Option<&'a RawValue>,
    #[serde(borrow)]
    execution_time: Option<&'a RawValue>,
    /// Only in events of Presto: the time before the query was queued.
    #[serde(borrow)]
    waiting_for_prerequisites_time: Option<&'a RawValue>,
    physical_input_rows: Option<Count>,
    physical_input_bytes: Option<Count>,
    total_rows: Option<Count>,
    total_bytes: Option<Count>,
    output_rows: Option<Count>,
    written_rows: Option<Count>,
    /// Presto's name for `writtenRows`.
    written_output_rows: Option<Count>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FailureInfo<'a> {
    #[serde(borrow)]
    error_code: Option<ErrorCode<'a>>,
}

#[derive(Deserialize)]
struct ErrorCode<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
}

/// Reads events: one object, several objects (separated by line breaks or not), or an array. Events
/// that are not completed queries are ignored.
///
/// # Errors
///
/// The body is not JSON, is empty, or contains values that are not objects.
pub fn parse(body: &[u8]) -> Result<Parsed, UnreadableReport> {
    let records = split::objects(body)
        .map_err(|why| UnreadableReport(format!("this is no event of Trino or Presto: {why}")))?;
    let mut parsed = Parsed::default();
    for raw in records {
        let read = record(raw.get());
        // Only the bytes of dead letters are copied.
        let bytes = if read.is_err() { without_texts(raw.get()) } else { String::new() };
        parsed.add(Side::Warehouse, read, bytes.as_bytes());
    }
    Ok(parsed)
}

/// The event of a completed query; `None` for every other kind of event.
fn record(text: &str) -> Result<Option<Event>, Refusal> {
    let envelope: Envelope<'_> = read(text)?;
    let text = match envelope.query_completed_event {
        Some(completed) => completed.get(),
        None if envelope.statistics.is_some() && envelope.end_time.is_some() => text,
        None => return Ok(None),
    };
    let completed: Completed<'_> = read(text)?;
    match completed.metadata.query_state.as_deref() {
        None | Some("FINISHED" | "FAILED") => {}
        Some(_) => return Ok(None),
    }
    let query_id = &completed.metadata.query_id;
    if query_id.is_empty() {
        return Err(Refusal::of_field(Reason::WrongField, "metadata.queryId", "it is empty"));
    }
    let occurred_at = moment(completed.end_time, "endTime")?;
    let fact = query(&completed, envelope.cluster_name.as_deref(), occurred_at)?;
    let id = wire::derived::of_record("trino query", &[query_id]);
    Ok(Some(Event { id, occurred_at, fact: Fact::WarehouseQuery(fact) }))
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(|error| undecodable(&error))
}

fn query(
    completed: &Completed<'_>,
    cluster: Option<&str>,
    ended_at: domain::Timestamp,
) -> Result<WarehouseQuery, Refusal> {
    let Completed { metadata, statistics, context, .. } = completed;
    let created_at = completed.create_time.map(|raw| moment(raw, "createTime")).transpose()?;
    let durations = Durations::of(statistics, created_at, ended_at)?;
    let count = |count: Option<Count>| count.map(|Count(number)| number);
    let read = count(statistics.physical_input_rows).or(count(statistics.total_rows));
    let written = count(statistics.written_rows).or(count(statistics.written_output_rows));
    let scanned = count(statistics.physical_input_bytes).or(count(statistics.total_bytes));
    let text = |text: &Option<Cow<'_, str>>| text.as_deref().unwrap_or_default().to_owned();
    let kind = context.query_type.as_deref().or(completed.query_type.as_deref());
    Ok(WarehouseQuery {
        warehouse: cluster.map_or_else(|| text(&context.environment), str::to_owned),
        database: match (text(&context.catalog), text(&context.schema)) {
            (catalog, schema) if schema.is_empty() => catalog,
            (catalog, schema) => format!("{catalog}.{schema}"),
        },
        statement: statement(kind, metadata.update_type.as_deref()),
        queued_us: durations.queued_us,
        executed_us: durations.executed_us,
        rows_processed: read.unwrap_or(0).saturating_add(written.unwrap_or(0)),
        rows_returned: count(statistics.output_rows).unwrap_or(0),
        bytes_scanned: scanned.unwrap_or(0),
        // Neither Trino nor Presto reports whether a result came from a cache.
        cache_hit: false,
        outcome: outcome(completed),
        principal: text(&context.user),
        fingerprint: metadata.query_hash.as_deref().map_or_else(
            || fingerprint(metadata.query.as_deref().unwrap_or_default()),
            str::to_owned,
        ),
    })
}

fn statement(kind: Option<&str>, update: Option<&str>) -> Statement {
    match (kind.unwrap_or_default(), update.unwrap_or_default()) {
        ("SELECT", _) => Statement::Select,
        // `CREATE TABLE AS` is reported as an insert with this update type.
        ("INSERT", "CREATE TABLE") => Statement::CreateTableAs,
        ("INSERT", _) => Statement::Insert,
        ("UPDATE", _) => Statement::Update,
        ("DELETE", _) => Statement::Delete,
        ("MERGE", _) => Statement::Merge,
        ("DATA_DEFINITION", _) => Statement::Ddl,
        ("ANALYZE" | "ALTER_TABLE_EXECUTE", _) => Statement::Maintenance,
        _ => Statement::Other,
    }
}

/// The outcome of a query. The name of the error decides if it is more precise than the error's
/// type, else the type decides.
fn outcome(completed: &Completed<'_>) -> Outcome {
    let failure = &completed.failure_info;
    if failure.is_none() && completed.metadata.query_state.as_deref() != Some("FAILED") {
        return Outcome::Ok;
    }
    let Some(ErrorCode { name, kind }) = failure.as_ref().and_then(|it| it.error_code.as_ref())
    else {
        return Outcome::ServerError;
    };
    match name.as_ref() {
        "USER_CANCELED" | "ADMINISTRATIVELY_KILLED" | "ABANDONED_QUERY" => Outcome::Cancelled,
        "PERMISSION_DENIED" => Outcome::Denied,
        "EXCEEDED_TIME_LIMIT" | "EXCEEDED_CPU_LIMIT" => Outcome::Timeout,
        "QUERY_QUEUE_FULL" | "QUERY_REJECTED" => Outcome::Throttled,
        name if name == "NOT_FOUND" || name.ends_with("_NOT_FOUND") => Outcome::NotFound,
        _ if kind == "USER_ERROR" => Outcome::ClientError,
        _ => Outcome::ServerError,
    }
}

/// The record without data of the query, because dead letters are stored and people read them.
fn without_texts(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(mut value) => {
            take_texts(&mut value);
            value.to_string()
        }
        // The record is valid JSON, because it was split from its neighbours as JSON. It is only
        // nested too deeply to be read, and is not kept.
        Err(_) => String::new(),
    }
}

fn take_texts(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !TEXTS.contains(&name.as_str()));
            fields.values_mut().for_each(take_texts);
        }
        Value::Array(items) => items.iter_mut().for_each(take_texts),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
