//! Which archive this is, and the pipeline whose events it keeps.

use std::collections::BTreeMap;

use domain::{ArchiveId, ArchiveSide, Pipeline, PipelineId, Rules};
use service_kit::FailPoint;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::{
    error::StoreError, schema::migrate, settings::connection::StoreSettings, statement::Doing,
};

const DOING: &str = "reading the name of the archive's pipeline";
const NAMING: &str = "storing the name of the archive's pipeline";

static PIPELINE_NAMED: FailPoint = FailPoint::new("store.pipeline_named");

/// What an archive says about itself.
///
/// # Errors
///
/// The database cannot be reached or read, or is not of the version that this program needs.
pub async fn archive_side(settings: &StoreSettings) -> Result<ArchiveSide, StoreError> {
    migrate::check_fit(settings).await?;
    read(&mut settings.connect().await?).await
}

/// Names the pipeline whose events the archive keeps, unless it names one already. The caller must
/// read the name afterwards to find out which.
///
/// # Errors
///
/// The errors of [`archive_side`]; or the login may not write.
pub async fn name_pipeline(
    settings: &StoreSettings,
    pipeline: &Pipeline,
) -> Result<(), StoreError> {
    let mut connection = settings.connect_as_archiver().await?;
    let named = sqlx::query(
        "insert into lakegauge.pipeline (id, partitions, rules) values ($1, $2, $3) \
         on conflict do nothing",
    )
    .bind(Uuid::from_bytes(pipeline.id.0))
    .bind(i32::from(pipeline.partitions))
    .bind(Json(pipeline.rules.to_metadata()))
    .execute(&mut connection)
    .await
    .doing(NAMING)?;
    if named.rows_affected() == 1 {
        PIPELINE_NAMED.pass();
        tracing::info!(pipeline = %pipeline.id, "the archive names its pipeline");
    }
    Ok(())
}

/// A row of `pipeline`.
type Named = (Uuid, i32, Json<BTreeMap<String, String>>);

pub(crate) async fn read(connection: &mut PgConnection) -> Result<ArchiveSide, StoreError> {
    let id: Uuid = sqlx::query_scalar("select archive from lakegauge.installation")
        .fetch_one(&mut *connection)
        .await
        .doing(DOING)?;
    let named: Option<Named> =
        sqlx::query_as("select id, partitions, rules from lakegauge.pipeline")
            .fetch_optional(connection)
            .await
            .doing(DOING)?;
    let pipeline = named.map(pipeline).transpose()?;
    Ok(ArchiveSide { id: ArchiveId(id.into_bytes()), pipeline })
}

fn pipeline((id, partitions, rules): Named) -> Result<Pipeline, StoreError> {
    let partitions = u16::try_from(partitions).map_err(|_| {
        StoreError::Inconsistent(format!("the archive has {partitions} partitions"))
    })?;
    let rules = Rules::from_metadata(&rules.0)
        .map_err(|error| StoreError::Version(format!("the rules of the archive: {error}")))?;
    Ok(Pipeline { id: PipelineId(id.into_bytes()), partitions, rules })
}
