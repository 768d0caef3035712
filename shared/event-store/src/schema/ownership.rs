//! Which objects are ours in a database that others use too.
//!
//! All our objects have a comment that begins with a mark: the roles, which belong to the whole
//! server, the two schemas, and in them tables, partitions, views, types and functions. Indexes and
//! sequences belong to their table. An object with one of our names but without the mark belongs to
//! somebody else, and is not changed.

use sqlx::PgConnection;

use crate::{
    error::{MIGRATING, StoreError},
    statement::Doing,
};

/// The beginning of the comment on our objects.
pub(crate) const MARK: &str = "Lakegauge: ";

/// Groups that a migration creates, unless another Lakegauge database on the same server did.
const ROLES: [&str; 2] = ["lakegauge_archiver", "lakegauge_reader"];
const SCHEMAS: [&str; 2] = [HIDDEN, "lakegauge_api"];
/// The schema of the tables, and of every index.
const HIDDEN: &str = "lakegauge";

/// The state of the tables' schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schema {
    /// It does not exist.
    Absent,
    /// It exists and has our mark.
    Ours,
    /// It exists and belongs to somebody else.
    Foreign,
}

/// Checks whose schema it is. Needs no privilege on it.
pub(crate) async fn schema(
    connection: &mut PgConnection,
    doing: &'static str,
) -> Result<Schema, StoreError> {
    let is_ours: Option<bool> = sqlx::query_scalar(
        "select coalesce(starts_with(obj_description(oid, 'pg_namespace'), $2), false) \
         from pg_namespace where nspname = $1",
    )
    .bind(HIDDEN)
    .bind(MARK)
    .fetch_optional(connection)
    .await
    .doing(doing)?;
    Ok(match is_ours {
        None => Schema::Absent,
        Some(true) => Schema::Ours,
        Some(false) => Schema::Foreign,
    })
}

/// The error about a schema that belongs to somebody else.
pub(crate) fn foreign_schema() -> StoreError {
    refusal(&[format!("schema {HIDDEN}")])
}

/// The error about an object that has the name of a partition and is not ours.
pub(crate) fn foreign_partition(name: &str) -> StoreError {
    StoreError::NotOurs(format!(
        "{HIDDEN}.{name} is needed for a partition, but exists already and is not ours: \
         rename it, or move it to another schema"
    ))
}

fn is_ours(comment: Option<&str>) -> bool {
    comment.is_some_and(|comment| comment.starts_with(MARK))
}

/// Fails if a role or a schema of somebody else has a name that we need. Changes nothing.
pub(crate) async fn refuse_taken_names(connection: &mut PgConnection) -> Result<(), StoreError> {
    let found: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "select 'schema', nspname::text, obj_description(oid, 'pg_namespace')
         from pg_namespace where nspname = any($1)
         union all
         select 'role', rolname::text, shobj_description(oid, 'pg_authid')
         from pg_roles where rolname = any($2)
         order by 1 desc, 2",
    )
    .bind(SCHEMAS.map(str::to_owned).to_vec())
    .bind(ROLES.map(str::to_owned).to_vec())
    .fetch_all(connection)
    .await
    .doing(MIGRATING)?;
    let foreign: Vec<String> = found
        .into_iter()
        .filter(|(_, _, comment)| !is_ours(comment.as_deref()))
        .map(|(kind, name, _)| format!("{kind} {name}"))
        .collect();
    if foreign.is_empty() { Ok(()) } else { Err(refusal(&foreign)) }
}

/// Fails if an object exists already that one of these migrations would create. Changes nothing.
pub(crate) async fn refuse_taken_objects(
    connection: &mut PgConnection,
    migrations: impl Iterator<Item = &'static str>,
) -> Result<(), StoreError> {
    let (mut kinds, mut schemas, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for made in migrations.flat_map(made_by) {
        kinds.push(made.kind.as_str());
        schemas.push(made.schema);
        names.push(made.name);
    }
    // Tables, views, indexes, sequences and types share one namespace. A function of the same name
    // may be ours with other arguments.
    let taken: Vec<(String, String)> = sqlx::query_as(
        "with present as (
            select 'relation' as kind, case relkind when 'v' then 'view' when 'm' then
                    'materialized view' when 'S' then 'sequence' when 'c' then 'type' when 'i' then
                    'index' when 'I' then 'index' else 'table' end as word,
                relnamespace as namespace, relname::text as name
            from pg_class
            union all
            select 'relation', 'type', typnamespace, typname::text from pg_type where typrelid = 0
            union all
            select 'function', 'function', pronamespace, proname::text from pg_proc
         ), wanted as (
            select distinct kind, schema, name
            from unnest($1::text[], $2::text[], $3::text[]) as part (kind, schema, name)
         )
         select distinct present.word, wanted.schema || '.' || present.name
         from wanted
         join pg_namespace as namespace on namespace.nspname = wanted.schema
         join present on present.namespace = namespace.oid and present.kind = wanted.kind
             and present.name = wanted.name
         order by 2",
    )
    .bind(kinds)
    .bind(schemas)
    .bind(names)
    .fetch_all(connection)
    .await
    .doing(MIGRATING)?;
    let taken: Vec<String> =
        taken.into_iter().map(|(word, name)| format!("{word} {name}")).collect();
    if taken.is_empty() { Ok(()) } else { Err(refusal(&taken)) }
}

fn refusal(taken: &[String]) -> StoreError {
    StoreError::NotOurs(format!(
        "nothing was changed, because names that Lakegauge needs are used by other objects: \
         {}. Give Lakegauge a database of its own, or rename these objects (roles belong to all \
         databases of the server). Lakegauge recognises its own objects by comments that begin \
         with \"{MARK}\"; if one was lost, as on a restored role, set it again: comment on role \
         lakegauge_reader is '{MARK}restored'",
        taken.join(", ")
    ))
}

/// The namespace of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SharedName {
    Relation,
    Function,
}

impl SharedName {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Relation => "relation",
            Self::Function => "function",
        }
    }
}

/// An object that a migration creates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Made {
    kind: SharedName,
    schema: &'static str,
    name: &'static str,
}

/// The objects that a migration creates in the schemas, read from its text: each statement begins
/// on a line of its own.
fn made_by(sql: &'static str) -> impl Iterator<Item = Made> {
    sql.lines().filter_map(|line| made(line.strip_prefix("create ")?))
}

/// Reads what follows `create` at the beginning of a line. Schemas and roles are checked by their
/// names; a policy belongs to its table.
fn made(statement: &'static str) -> Option<Made> {
    let (word, rest) = statement.split_once(' ')?;
    let name = rest.split(['(', ' ']).next()?;
    let (kind, schema, name) = match word {
        // An index belongs to the schema of its table, and is created without a schema.
        "index" => (SharedName::Relation, HIDDEN, name),
        "table" | "view" | "type" => {
            let (schema, name) = name.split_once('.')?;
            (SharedName::Relation, schema, name)
        }
        "function" | "aggregate" => {
            let (schema, name) = name.split_once('.')?;
            (SharedName::Function, schema, name)
        }
        _ => return None,
    };
    Some(Made { kind, schema, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_migration_makes_is_known_by_its_text() {
        let sql = "create table lakegauge.a (\n    b text\n);\n\
                   create index a_b on lakegauge.a (b);\n\
                   create function lakegauge_api.c(code smallint) returns text\n\
                   create aggregate lakegauge_api.d(a integer[]) (\n\
                   create view lakegauge_api.e with (security_invoker = true) as\n\
                   create type lakegauge.f as (g text);\n\
                   create schema lakegauge;\n";
        let made: Vec<String> = made_by(sql)
            .map(|made| format!("{} {}.{}", made.kind.as_str(), made.schema, made.name))
            .collect();
        assert_eq!(
            made,
            [
                "relation lakegauge.a",
                "relation lakegauge.a_b",
                "function lakegauge_api.c",
                "function lakegauge_api.d",
                "relation lakegauge_api.e",
                "relation lakegauge.f",
            ]
        );
    }

    #[test]
    fn only_a_comment_with_the_mark_makes_something_ours() {
        assert!(is_ours(Some("Lakegauge: tables of the archive.")));
        assert!(!is_ours(Some("Tables of Lakegauge: theirs")));
        assert!(!is_ours(None));
    }
}
