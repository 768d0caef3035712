//! Gives an archive another broker, because a person asks for it.

use std::collections::BTreeMap;

use domain::{ArchiveSide, Pipeline};
use sqlx::{Connection as _, PgConnection, types::Json};
use uuid::Uuid;

use crate::{
    error::StoreError,
    identity::pipeline,
    numbers::{unsigned, unsigned_32},
    schema::migrate,
    settings::connection::StoreSettings,
    statement::Doing,
    stream_id::StreamId,
    write::stream_lock,
};

const DOING: &str = "giving the archive another broker";

/// An archive that nobody else can write as long as this exists.
#[derive(Debug)]
pub struct Adopting {
    connection: PgConnection,
    side: ArchiveSide,
}

/// What an archive contains, for the person who decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Events by the ledger, including rows that retention dropped.
    pub events: u64,
    /// The last epoch of each stream.
    pub epochs: BTreeMap<String, u32>,
}

impl Adopting {
    /// Takes every stream's lock, so that no archiver writes meanwhile.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] while an archiver holds one; the database cannot be reached or written.
    pub async fn begin(settings: &StoreSettings) -> Result<Self, StoreError> {
        migrate::check_fit(settings).await?;
        let mut connection = settings.connect_as_archiver().await?;
        for (StreamId { id, .. }, name) in StreamId::all(&mut connection, DOING).await? {
            if !stream_lock::try_take(&mut connection, id).await? {
                let holder = stream_lock::holder(&mut connection, id).await?;
                return Err(StoreError::Busy { stream: name, holder });
            }
        }
        let side = pipeline::read(&mut connection).await?;
        Ok(Self { connection, side })
    }

    /// What the archive says about itself.
    pub const fn side(&self) -> &ArchiveSide {
        &self.side
    }

    /// What the archive contains.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn holdings(&mut self) -> Result<Holdings, StoreError> {
        let events: i64 = sqlx::query_scalar(
            "select coalesce(sum(ledger.inserted), 0)::bigint from lakegauge.ledger \
             join lakegauge.stream on stream.id = ledger.stream where stream.name <> 'TELEMETRY'",
        )
        .fetch_one(&mut self.connection)
        .await
        .doing(DOING)?;
        let epochs: Vec<(String, i32)> = sqlx::query_as(
            "select stream.name, checkpoint.epoch from lakegauge.checkpoint \
             join lakegauge.stream on stream.id = checkpoint.stream",
        )
        .fetch_all(&mut self.connection)
        .await
        .doing(DOING)?;
        let epochs: Result<BTreeMap<String, u32>, StoreError> =
            epochs.into_iter().map(|(name, epoch)| Ok((name, unsigned_32(epoch)?))).collect();
        Ok(Holdings { events: unsigned(events)?, epochs: epochs? })
    }

    /// Names the pipeline whose events the archive keeps from now on, and records this. Naming the
    /// current pipeline again changes nothing.
    ///
    /// # Errors
    ///
    /// The database failed, or somebody else named another pipeline meanwhile. Nothing is changed
    /// then.
    pub async fn adopt(&mut self, pipeline: &Pipeline) -> Result<(), StoreError> {
        let before = self.side.pipeline.as_ref().map(|before| Uuid::from_bytes(before.id.0));
        let id = Uuid::from_bytes(pipeline.id.0);
        if before == Some(id) {
            return Ok(());
        }
        let mut transaction = self.connection.begin().await.doing(DOING)?;
        let named = sqlx::query(
            "insert into lakegauge.pipeline as named (id, partitions, rules) values ($1, $2, $3) \
             on conflict (only_row) do update set id = excluded.id, \
             partitions = excluded.partitions, rules = excluded.rules, named_at = now() \
             where named.id = $4",
        )
        .bind(id)
        .bind(i32::from(pipeline.partitions))
        .bind(Json(pipeline.rules.to_metadata()))
        .bind(before)
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        if named.rows_affected() != 1 {
            return Err(StoreError::Inconsistent(
                "the archive got another pipeline meanwhile: start again".to_owned(),
            ));
        }
        sqlx::query("insert into lakegauge.adoption (pipeline, before) values ($1, $2)")
            .bind(id)
            .bind(before)
            .execute(&mut *transaction)
            .await
            .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        self.side.pipeline = Some(pipeline.clone());
        Ok(())
    }
}
