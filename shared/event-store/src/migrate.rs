//! The shape of the database: migrations, applied by `migrate` alone; services only look.

use sqlx::{
    Connection, PgConnection, SqlStr,
    migrate::{Migrate, MigrateError, Migration, MigrationType},
};

use crate::{
    error::{Doing, MIGRATING, StoreError},
    settings::StoreSettings,
};

const SCHEMA: &str = "lakegauge";
const TABLE: &str = "lakegauge._sqlx_migrations";

/// Every migration, oldest first: version, name, SQL. Only ever added to.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (
        20_261_123_090_000,
        "roles_and_schemas",
        include_str!("../../../migrations/20261123090000_roles_and_schemas.sql"),
    ),
    (20_261_123_090_100, "archive", include_str!("../../../migrations/20261123090100_archive.sql")),
    (20_261_123_090_200, "windows", include_str!("../../../migrations/20261123090200_windows.sql")),
    (20_261_123_090_300, "views", include_str!("../../../migrations/20261123090300_views.sql")),
    (
        20_261_124_160_000,
        "letters_and_bases",
        include_str!("../../../migrations/20261124160000_letters_and_bases.sql"),
    ),
    (
        20_261_124_170_000,
        "epoch_begins",
        include_str!("../../../migrations/20261124170000_epoch_begins.sql"),
    ),
    (
        20_261_124_180_000,
        "verdicts",
        include_str!("../../../migrations/20261124180000_verdicts.sql"),
    ),
    (20_261_124_190_000, "sources", include_str!("../../../migrations/20261124190000_sources.sql")),
    (
        20_261_124_200_000,
        "service_role",
        include_str!("../../../migrations/20261124200000_service_role.sql"),
    ),
];

/// A migration that was applied just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its version: the time it was written, as digits.
    pub version: i64,
    /// Its name.
    pub name: &'static str,
    /// How many come after it.
    pub left: usize,
}

/// Brings the database to the shape that this program needs, as its owner.
///
/// On a connection of its own that is closed whatever happens: a lock that a failed migration left
/// behind would stop everybody else. `progress` hears of each migration after it was committed.
/// Safe to repeat and to run twice at the same time.
///
/// # Errors
///
/// The database cannot be reached; an applied migration differs from ours or is unknown to us; a
/// migration failed, in which case nothing of it is left.
pub async fn migrate(
    settings: &StoreSettings,
    mut progress: impl FnMut(Applied),
) -> Result<usize, StoreError> {
    settings.refuse_transaction_pooling().await?;
    let mut connection = settings.connect().await?;
    let applied = apply(&mut connection, &mut progress).await;
    let closed = connection.close().await;
    let applied = applied?;
    closed.doing("closing the connection")?;
    Ok(applied)
}

async fn apply(
    connection: &mut PgConnection,
    progress: &mut impl FnMut(Applied),
) -> Result<usize, StoreError> {
    // What a migration names is found in the built-in schema or named with its own.
    connection.lock().await.map_err(of_migration)?;
    connection.create_schema_if_not_exists(SCHEMA).await.map_err(of_migration)?;
    connection.ensure_migrations_table(TABLE).await.map_err(of_migration)?;
    let known = connection.list_applied_migrations(TABLE).await.map_err(of_migration)?;
    let known: Vec<(i64, Vec<u8>)> =
        known.into_iter().map(|known| (known.version, known.checksum.into_owned())).collect();
    compare(&known)?;
    let missing = MIGRATIONS.get(known.len()..).unwrap_or_default();
    for (place, one) in missing.iter().enumerate() {
        connection.apply(TABLE, &migration(one)).await.map_err(of_migration)?;
        progress(Applied { version: one.0, name: one.1, left: missing.len() - place - 1 });
    }
    Ok(missing.len())
}

/// What was applied must be the beginning of what we know, byte for byte.
fn compare(applied: &[(i64, Vec<u8>)]) -> Result<(), StoreError> {
    for (place, (version, checksum)) in applied.iter().enumerate() {
        let Some(ours) = MIGRATIONS.get(place) else {
            return Err(StoreError::Version(format!(
                "the database was migrated by a newer release (version {version}): run that one"
            )));
        };
        if ours.0 != *version {
            return Err(StoreError::Version(format!(
                "the database has migration {version} where this release has {}: another program's \
                 migrations, or files added out of order",
                ours.0
            )));
        }
        if migration(ours).checksum != checksum.as_slice() {
            return Err(StoreError::Version(format!(
                "migration {version} was changed after it was applied"
            )));
        }
    }
    Ok(())
}

fn migration(one: &(i64, &'static str, &'static str)) -> Migration {
    let (version, name, sql) = *one;
    Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
}

fn of_migration(error: MigrateError) -> StoreError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the driver's enum is non-exhaustive")]
    match error {
        MigrateError::Execute(driver) | MigrateError::ExecuteMigration(driver, _) => {
            StoreError::Database { doing: MIGRATING, driver }
        }
        other => StoreError::Version(other.to_string()),
    }
}

/// Checks that answers through this address are ours, and that the database has the shape that this
/// program was built for.
///
/// # Errors
///
/// As [`StoreSettings::refuse_transaction_pooling`] and [`check_version`].
pub async fn check_fit(settings: &StoreSettings) -> Result<(), StoreError> {
    settings.refuse_transaction_pooling().await?;
    check_version(settings).await
}

/// Checks that the database has exactly the shape that this program was built for, changing
/// nothing.
///
/// # Errors
///
/// It has another, and what to do about it; or it cannot be reached.
pub async fn check_version(settings: &StoreSettings) -> Result<(), StoreError> {
    let mut connection = settings.connect().await?;
    let doing = "reading the version of the database";
    let migrated: bool = sqlx::query_scalar("select to_regclass($1) is not null")
        .bind(TABLE)
        .fetch_one(&mut connection)
        .await
        .doing(doing)?;
    let mut applied: Vec<(i64, Vec<u8>)> = Vec::new();
    if migrated {
        applied = sqlx::query_as(
            "select version, checksum from lakegauge._sqlx_migrations order by version",
        )
        .fetch_all(&mut connection)
        .await
        .doing(doing)?;
    }
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
    fn another_history_is_refused() {
        let ours: Vec<(i64, Vec<u8>)> =
            MIGRATIONS.iter().map(|one| (one.0, migration(one).checksum.into_owned())).collect();
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
