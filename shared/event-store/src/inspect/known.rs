//! Which events the archive contains already, for those who publish.

use domain::{Event, EventId, Timestamp};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::{
    error::StoreError,
    numbers::unsigned,
    rows::{
        columns::{Columns, columns},
        kind::EventTable,
    },
    schema::migrate,
    settings::connection::StoreSettings,
    statement::Doing,
    timestamptz::Timestamptz,
};

/// Searches the archive for identities.
#[derive(Debug)]
pub struct ArchivedIdentities {
    connection: PgConnection,
}

/// An identity that is searched for.
#[derive(Clone, Copy, Debug)]
struct AskedIdentity {
    at: Timestamp,
    id: EventId,
}
columns!(AskedIdentity { at, id });

impl ArchivedIdentities {
    /// Opens a connection with a login that may read.
    ///
    /// # Errors
    ///
    /// The database cannot be reached, or is not of the version that this program needs.
    pub async fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        migrate::check_fit(settings).await?;
        Ok(Self { connection: settings.connect().await? })
    }

    /// How many of these events have a row. The keys are searched for one by one.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn count<'a>(
        &mut self,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Result<u64, StoreError> {
        const DOING: &str = "asking for identities";
        let mut asked: [Vec<AskedIdentity>; 3] = Default::default();
        for event in events {
            let asked = &mut asked[EventTable::of(&event.fact).place()];
            asked.push(AskedIdentity { at: event.occurred_at, id: event.id });
        }
        let mut known = 0_u64;
        for (kind, asked) in EventTable::ALL.into_iter().zip(asked) {
            let times = asked.iter().map(|asked| asked.at.0);
            let Some((first, last)) = times.clone().min().zip(times.max()) else { continue };
            // The name is one of our own tables. The range excludes the other partitions.
            let sql = format!(
                "select count(*) from unnest($1::timestamptz[], $2::uuid[]) as part (at, id) \
                 where exists (select from lakegauge.{} as event \
                     where event.occurred_at = part.at and event.id = part.id \
                         and event.occurred_at between $3 and $4)",
                kind.table()
            );
            let row = AskedIdentity::bind(asked.iter(), sqlx::query(AssertSqlSafe(sql)))
                .bind(Timestamptz(first))
                .bind(Timestamptz(last))
                .fetch_one(&mut self.connection)
                .await
                .doing(DOING)?;
            let rows: i64 = row.try_get(0).doing(DOING)?;
            known = known.saturating_add(unsigned(rows)?);
        }
        Ok(known)
    }
}
