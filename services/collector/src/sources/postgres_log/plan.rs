//! Reads the JSON plans of `auto_explain`: how many rows a statement really read and returned.

use domain::{Reason, Refusal, Statement};
use serde_json::Value;

use super::{super::decimal::scaled, statement::kind_of};

/// Bytes of a page, with PostgreSQL's usual build options.
const PAGE_BYTES: u64 = 8_192;
/// Decimals of row numbers. The rows in a plan are averages over the loops of a node; PostgreSQL 18
/// and later write them with two decimals.
const DECIMALS: u32 = 2;

/// The content of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) statement: Statement,
    /// Text of the statement, for its fingerprint.
    pub(super) text: String,
    /// Rows that the leaf nodes read, including those that a filter removed. For an insert, the
    /// rows that were given to it.
    pub(super) rows_read: u64,
    pub(super) rows_returned: u64,
    /// Bytes of the pages of tables and indexes that were read, whether from the cache or not.
    pub(super) bytes_scanned: u64,
}

impl Plan {
    pub(super) fn read(json: &str) -> Result<Self, Refusal> {
        let wrong = |detail: &str| {
            Refusal::of_field(Reason::WrongField, "message", format!("has a plan that {detail}"))
        };
        let explained: Value = serde_json::from_str(json)
            .map_err(|_| wrong("is not JSON: set auto_explain.log_format = 'json'"))?;
        let plan = explained.get("Plan").filter(|plan| plan.is_object());
        let plan = plan.ok_or_else(|| wrong("has no node"))?;
        let text = explained["Query Text"].as_str().unwrap_or_default().to_owned();
        let pages = number(plan, "Shared Hit Blocks", 0).saturating_add(number(
            plan,
            "Shared Read Blocks",
            0,
        ));
        let returned = number(plan, "Actual Rows", DECIMALS);
        Ok(Self {
            statement: statement(plan, &text),
            rows_read: whole(rows_read(plan)),
            rows_returned: whole(returned.saturating_mul(loops(plan))),
            bytes_scanned: whole_pages(pages),
            text,
        })
    }
}

fn statement(plan: &Value, text: &str) -> Statement {
    match (plan["Node Type"].as_str(), plan["Operation"].as_str()) {
        (Some("ModifyTable"), Some("Insert")) => Statement::Insert,
        (Some("ModifyTable"), Some("Update")) => Statement::Update,
        (Some("ModifyTable"), Some("Delete")) => Statement::Delete,
        (Some("ModifyTable"), Some("Merge")) => Statement::Merge,
        _ if kind_of(text) == Statement::CreateTableAs => Statement::CreateTableAs,
        _ => Statement::Select,
    }
}

/// Rows read by all nodes that read rows themselves, times 10^[`DECIMALS`].
fn rows_read(node: &Value) -> i128 {
    let children = node["Plans"].as_array().map(Vec::as_slice).unwrap_or_default();
    let own = if hands_on(node, children) {
        0
    } else {
        ["Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck"]
            .into_iter()
            .map(|name| number(node, name, DECIMALS))
            .fold(0_i128, i128::saturating_add)
            .saturating_mul(loops(node))
    };
    children.iter().map(rows_read).fold(own, i128::saturating_add)
}

/// Whether a node passes on the rows of other nodes instead of reading rows itself.
fn hands_on(node: &Value, children: &[Value]) -> bool {
    let is_of = |child: &Value| {
        matches!(
            child["Parent Relationship"].as_str(),
            Some("Outer" | "Inner" | "Member" | "Subquery")
        )
    };
    matches!(node["Node Type"].as_str(), Some("CTE Scan" | "WorkTable Scan"))
        || children.iter().any(is_of)
}

fn loops(node: &Value) -> i128 {
    number(node, "Actual Loops", 0)
}

/// A number of a node, times 10^`decimals`; 0 if it is missing.
fn number(node: &Value, name: &str, decimals: u32) -> i128 {
    let power = i32::try_from(decimals).unwrap_or(0);
    let number = node[name].as_number().and_then(|number| scaled(&number.to_string(), power));
    number.unwrap_or(0).max(0)
}

/// Rows without decimals, rounded half up.
fn whole(rows: i128) -> u64 {
    let unit = 10_i128.pow(DECIMALS);
    u64::try_from(rows.saturating_add(unit / 2) / unit).unwrap_or(u64::MAX)
}

fn whole_pages(pages: i128) -> u64 {
    u64::try_from(pages).unwrap_or(u64::MAX).saturating_mul(PAGE_BYTES)
}
