//! Finds the kind of a statement from its words.

use domain::Statement;

/// Maximum number of bytes of a statement that are read. The deciding words are at the beginning.
const BYTES_MAX: usize = 4 << 10;

/// The kind of a statement. The first word decides; for `COPY` and `CREATE` the words after it too.
pub(super) fn kind_of(text: &str) -> Statement {
    let mut words = words(text);
    match words.next().as_deref() {
        Some("SELECT" | "VALUES" | "TABLE" | "WITH" | "FETCH" | "SHOW") => Statement::Select,
        Some("INSERT") => Statement::Insert,
        Some("UPDATE") => Statement::Update,
        Some("DELETE") => Statement::Delete,
        Some("MERGE") => Statement::Merge,
        Some("COPY") => copy(text, words),
        Some("CREATE") => create(words),
        Some(
            "ALTER" | "DROP" | "TRUNCATE" | "COMMENT" | "GRANT" | "REVOKE" | "REINDEX" | "REFRESH",
        ) => Statement::Ddl,
        Some("VACUUM" | "ANALYZE" | "CLUSTER" | "CHECKPOINT") => Statement::Maintenance,
        Some(_) | None => Statement::Other,
    }
}

/// The direction of a `COPY`. A query in parentheses can only be unloaded. For a table, the first
/// `FROM` or `TO` decides.
fn copy(text: &str, mut words: impl Iterator<Item = String>) -> Statement {
    let rest = text.trim_start().get("COPY".len()..).unwrap_or_default();
    let is_load = !rest.trim_start().starts_with('(')
        && words.find(|word| word == "FROM" || word == "TO").is_some_and(|word| word == "FROM");
    if is_load { Statement::Copy } else { Statement::Unload }
}

fn create(words: impl Iterator<Item = String>) -> Statement {
    let mut before = String::new();
    for word in words {
        let is_query = matches!(word.as_str(), "SELECT" | "WITH" | "VALUES" | "TABLE");
        if before == "AS" && is_query {
            return Statement::CreateTableAs;
        }
        // In these statements, `AS` is not followed by a query whose rows are stored.
        let is_definition =
            matches!(word.as_str(), "FUNCTION" | "PROCEDURE" | "RULE" | "TRIGGER" | "VIEW");
        if is_definition && before != "MATERIALIZED" {
            return Statement::Ddl;
        }
        before = word;
    }
    Statement::Ddl
}

/// The words at the beginning of a statement, in upper case.
fn words(text: &str) -> impl Iterator<Item = String> {
    let end = (0..=text.len().min(BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
    let beginning = text.get(..end.unwrap_or(0)).unwrap_or_default();
    beginning
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_words_decide() {
        for (text, kind) in [
            ("select 1", Statement::Select),
            ("  (SELECT 1) union (select 2)", Statement::Select),
            ("with a as (select 1) select * from a", Statement::Select),
            ("insert into t values (1)", Statement::Insert),
            ("COPY t (a, b) FROM STDIN", Statement::Copy),
            ("copy t to stdout", Statement::Unload),
            ("COPY (select a from t) TO STDOUT", Statement::Unload),
            ("create table t as\n select 1", Statement::CreateTableAs),
            ("create table t (a int)", Statement::Ddl),
            ("create view v as select 1", Statement::Ddl),
            ("create materialized view v as select 1", Statement::CreateTableAs),
            ("create or replace function f() returns int as 'select 1'", Statement::Ddl),
            ("VACUUM t", Statement::Maintenance),
            ("begin", Statement::Other),
            ("", Statement::Other),
        ] {
            assert_eq!(kind_of(text), kind, "{text}");
        }
    }

    #[test]
    fn a_long_statement_is_cut_between_characters() {
        assert_eq!(kind_of(&format!("select '{}'", "é".repeat(BYTES_MAX))), Statement::Select);
    }
}
