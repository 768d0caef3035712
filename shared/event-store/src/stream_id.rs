//! Streams by the short numbers that rows store.

use domain::{Side, Stream};
use sqlx::{Connection, PgConnection};

use crate::{error::StoreError, rows::kind::EventTable, statement::Doing};

/// A stream in the archive, with its short number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamId {
    pub(crate) id: i16,
    /// The side whose events it carries; `None` for the stream of samples.
    pub(crate) side: Option<Side>,
}

impl StreamId {
    /// The stream with this number and name.
    pub fn new(id: i16, name: &str) -> Self {
        Self { id, side: Stream::from_name(name).map(|stream| stream.side) }
    }

    /// All streams with their names, in the order of these.
    pub(crate) async fn all(
        connection: &mut PgConnection,
        doing: &'static str,
    ) -> Result<Vec<(Self, String)>, StoreError> {
        let streams: Vec<(i16, String)> =
            sqlx::query_as("select id, name from lakegauge.stream order by name")
                .fetch_all(connection)
                .await
                .doing(doing)?;
        Ok(streams.into_iter().map(|(id, name)| (Self::new(id, &name), name)).collect())
    }

    /// The stream of this name; `None` if nothing of it was ever archived.
    pub(crate) async fn find(
        connection: &mut PgConnection,
        name: &str,
    ) -> Result<Option<Self>, StoreError> {
        let id: Option<i16> = sqlx::query_scalar("select id from lakegauge.stream where name = $1")
            .bind(name)
            .fetch_optional(connection)
            .await
            .doing("looking for the stream")?;
        Ok(id.map(|id| Self::new(id, name)))
    }

    /// The stream of this name. Its number is assigned at the first use.
    pub(crate) async fn find_or_insert(
        connection: &mut PgConnection,
        name: &str,
    ) -> Result<Self, StoreError> {
        let doing = "naming the stream";
        let mut transaction = connection.begin().await.doing(doing)?;
        sqlx::query("insert into lakegauge.stream (name) values ($1) on conflict do nothing")
            .bind(name)
            .execute(&mut *transaction)
            .await
            .doing(doing)?;
        let found = Self::find(&mut transaction, name).await?;
        transaction.commit().await.doing(doing)?;
        found.ok_or_else(|| StoreError::Inconsistent(format!("stream {name} was not stored")))
    }

    /// The kinds of events that the stream carries.
    pub(crate) const fn kinds(self) -> &'static [EventTable] {
        EventTable::of_side(self.side)
    }
}
