//! The schema of the database: only `migrate` applies migrations; services only check.

use sqlx::{
    AssertSqlSafe, Connection, PgConnection, SqlStr,
    migrate::{Migration, MigrationType},
};

use crate::{
    error::{MIGRATING, StoreError},
    schema::ownership::{self, Schema},
    settings::connection::StoreSettings,
    statement::{Doing, run},
};

/// The table of applied migrations.
const TABLE: &str = "lakegauge.migration";
/// Only one session migrates a database at a time; others wait, and then find it done.
const LOCK: i64 = 0x6c61_6b65_6d69_6772;

/// Every migration, oldest first: version, name, SQL. Entries are only added.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (20_261_123_090_000, "roles", include_str!("../../../../migrations/20261123090000_roles.sql")),
    (
        20_261_123_090_100,
        "archive",
        include_str!("../../../../migrations/20261123090100_archive.sql"),
    ),
    (
        20_261_123_090_200,
        "windows",
        include_str!("../../../../migrations/20261123090200_windows.sql"),
    ),
    (20_261_123_090_300, "views", include_str!("../../../../migrations/20261123090300_views.sql")),
    (
        20_261_123_090_400,
        "rollups",
        include_str!("../../../../migrations/20261123090400_rollups.sql"),
    ),
    (
        20_261_123_090_500,
        "questions",
        include_str!("../../../../migrations/20261123090500_questions.sql"),
    ),
    (
        20_261_123_090_600,
        "columns",
        include_str!("../../../../migrations/20261123090600_columns.sql"),
    ),
    (
        20_261_123_090_700,
        "tenants",
        include_str!("../../../../migrations/20261123090700_tenants.sql"),
    ),
];

/// A migration that was just applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedMigration {
    /// Its version: the time at which it was written, as digits.
    pub version: i64,
    /// Its name.
    pub name: &'static str,
    /// How many follow it.
    pub left: usize,
}

/// Changes the database to the schema that this program needs. Must run as the database's owner.
///
/// Everything is one transaction: a crash leaves either the old schema or the new one. `progress`
/// is called for each migration afterwards. The call can be repeated, also by two processes at the
/// same time: the second one waits.
///
/// # Errors
///
/// The database cannot be reached; other objects use names that we need; an applied migration
/// differs from ours or is unknown to us; or a migration failed. Nothing was changed then.
pub async fn migrate(
    settings: &StoreSettings,
    mut progress: impl FnMut(AppliedMigration),
) -> Result<usize, StoreError> {
    settings.refuse_transaction_pooling().await?;
    let mut connection = settings.connect().await?;
    let applied = apply(&mut connection, settings.lock_timeout_ms).await;
    // Closing the connection ends a failed transaction.
    let closed = connection.close().await;
    let applied = applied?;
    closed.doing("closing the connection")?;
    for (place, one) in applied.iter().enumerate() {
        progress(AppliedMigration { version: one.0, name: one.1, left: applied.len() - place - 1 });
    }
    Ok(applied.len())
}

async fn apply(
    connection: &mut PgConnection,
    lock_timeout_ms: u64,
) -> Result<&'static [(i64, &'static str, &'static str)], StoreError> {
    // Each statement sees what other sessions have committed before it.
    run(connection, "begin isolation level read committed", MIGRATING).await?;
    await_others(connection, lock_timeout_ms).await?;
    ownership::refuse_taken_names(connection).await?;
    let known = applied(connection, MIGRATING).await?;
    compare(&known)?;
    let missing = MIGRATIONS.get(known.len()..).unwrap_or_default();
    ownership::refuse_taken_objects(connection, missing.iter().map(|one| one.2)).await?;
    for one in missing {
        run(connection, one.2, MIGRATING).await?;
        sqlx::query(
            "insert into lakegauge.migration (version, name, checksum) values ($1, $2, $3)",
        )
        .bind(one.0)
        .bind(one.1)
        .bind(checksum(one))
        .execute(&mut *connection)
        .await
        .doing(MIGRATING)?;
    }
    run(connection, "commit", MIGRATING).await?;
    Ok(missing)
}

/// Takes the lock for migrations until the end of the transaction.
async fn await_others(
    connection: &mut PgConnection,
    lock_timeout_ms: u64,
) -> Result<(), StoreError> {
    let alone: bool = sqlx::query_scalar("select pg_try_advisory_xact_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut *connection)
        .await
        .doing(MIGRATING)?;
    if alone {
        return Ok(());
    }
    tracing::info!("another process migrates this database; waiting for its end");
    // There is no limit for this wait; the limit for the statement still applies.
    run(connection, "set local lock_timeout = 0", MIGRATING).await?;
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *connection)
        .await
        .doing(MIGRATING)?;
    let limit = format!("set local lock_timeout = {}", lock_timeout_ms);
    run(connection, AssertSqlSafe(limit), MIGRATING).await
}

/// Versions and checksums of the applied migrations, oldest first; empty if the table does not
/// exist.
async fn applied(
    connection: &mut PgConnection,
    doing: &'static str,
) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    match ownership::schema(connection, doing).await? {
        Schema::Absent => return Ok(Vec::new()),
        Schema::Foreign => return Err(ownership::foreign_schema()),
        Schema::Ours => {}
    }
    let listed: bool = sqlx::query_scalar(
        "select coalesce(starts_with(obj_description(to_regclass($1), 'pg_class'), $2), false)",
    )
    .bind(TABLE)
    .bind(ownership::MARK)
    .fetch_one(&mut *connection)
    .await
    .doing(doing)?;
    if !listed {
        return Ok(Vec::new());
    }
    sqlx::query_as("select version, checksum from lakegauge.migration order by version")
        .fetch_all(connection)
        .await
        .doing(doing)
}

/// The applied migrations must be the first ones of our list, byte for byte.
fn compare(applied: &[(i64, Vec<u8>)]) -> Result<(), StoreError> {
    for (place, (version, checksum)) in applied.iter().enumerate() {
        let Some(ours) = MIGRATIONS.get(place) else {
            return Err(StoreError::Version(format!(
                "the database was migrated by a newer release (version {version}): run that release"
            )));
        };
        if ours.0 != *version {
            return Err(StoreError::Version(format!(
                "the database has migration {version} where this release has {}: another program's \
                 migrations, or files added out of order",
                ours.0
            )));
        }
        if self::checksum(ours) != checksum.as_slice() {
            return Err(StoreError::Version(format!(
                "migration {version} was changed after it was applied: the database was made by \
                 another build. Run that build, or name another database"
            )));
        }
    }
    Ok(())
}

/// SHA-384 of the SQL.
fn checksum(one: &(i64, &'static str, &'static str)) -> Vec<u8> {
    let sql = SqlStr::from_static(one.2);
    Migration::new(one.0, one.1.into(), MigrationType::Simple, sql, false).checksum.into_owned()
}

/// Checks that this address gives correct answers, and that the database has the schema that this
/// program needs.
///
/// # Errors
///
/// The errors of [`StoreSettings::refuse_transaction_pooling`] and [`check_version`].
pub async fn check_fit(settings: &StoreSettings) -> Result<(), StoreError> {
    settings.refuse_transaction_pooling().await?;
    check_version(settings).await
}

/// Checks that the database has exactly the schema that this program needs. Changes nothing.
///
/// # Errors
///
/// The schema is another one (the error contains what to do); or the database cannot be reached.
pub async fn check_version(settings: &StoreSettings) -> Result<(), StoreError> {
    let mut connection = settings.connect().await?;
    let doing = "reading the version of the database";
    let applied = applied(&mut connection, doing).await?;
    connection.close().await.doing(doing)?;
    compare(&applied)?;
    if applied.len() < MIGRATIONS.len() {
        return Err(StoreError::Version(format!(
            "the database has {} of {} migrations: run `lakegauge migrate` as its owner",
            applied.len(),
            MIGRATIONS.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;

    #[test]
    fn every_file_is_embedded_and_versions_ascend() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".sql"))
            .collect();
        let embedded: Vec<String> =
            MIGRATIONS.iter().map(|(version, name, _)| format!("{version}_{name}.sql")).collect();
        assert_eq!(embedded, files.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_released_file_is_never_edited() {
        let list = include_str!("../../../../migrations/released.sha384");
        let now: String = MIGRATIONS
            .iter()
            .map(|one| {
                let digest: String =
                    checksum(one).iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{digest}  {}_{}.sql\n", one.0, one.1)
            })
            .collect();
        assert_eq!(
            now, list,
            "a migration that was released stays as it is: write a new one. The line of a new one, \
             or of one that no release has: cd migrations && sha384sum *.sql > released.sha384"
        );
    }

    #[test]
    fn every_statement_says_what_it_changes_by_name() {
        for (_, name, sql) in MIGRATIONS {
            let sql = sql.to_lowercase();
            for sweeping in
                [" on all ", "default privileges", "reassign owned", "drop owned", "cascade"]
            {
                assert!(!sql.contains(sweeping), "{name}: {sweeping}");
            }
            for line in sql.lines() {
                let Some(made) = line.trim_start().strip_prefix("create ") else { continue };
                let word = made.split(' ').next().unwrap();
                // What `ownership` looks for before the first change.
                let known = ["table", "index", "view", "type", "function", "aggregate", "schema"];
                assert!(!line.starts_with(' ') && known.contains(&word), "{name}: {line}");
                assert!(!made.contains("if not exists") && !made.contains("or replace"), "{line}");
            }
        }
    }

    #[test]
    fn another_history_is_refused() {
        let ours: Vec<(i64, Vec<u8>)> =
            MIGRATIONS.iter().map(|one| (one.0, checksum(one))).collect();
        assert!(compare(&ours).is_ok());
        assert!(compare(&ours[..1]).is_ok());
        let mut newer = ours.clone();
        newer.push((99_999_999_999_999, Vec::new()));
        assert!(compare(&newer).unwrap_err().to_string().contains("newer"));
        let mut changed = ours.clone();
        changed[0].1[0] ^= 1;
        assert!(compare(&changed).unwrap_err().to_string().contains("changed"));
        assert!(compare(&ours[1..]).unwrap_err().to_string().contains("out of order"));
    }
}
