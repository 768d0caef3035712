//! Reads samples, closed epochs and declared losses from a view of the archive.

use domain::{Mark, Sample, SampleValues, Side, Stream};
use sqlx::{PgConnection, postgres::PgRow};

use crate::{
    checkpoint::mark,
    error::StoreError,
    message_range::MessageRange,
    numbers::{bigint, integer, unsigned},
    read::view::ArchiveView,
    rows::{columns::read, event::DOING},
    statement::Doing,
    stream_id::StreamId,
};

/// The most samples on one page: about two megabytes in memory, with fifty buckets each.
const PAGE_SAMPLES: i64 = 1_000;

impl ArchiveView {
    /// Every stream of events that was ever archived.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn streams(&mut self) -> Result<Vec<Stream>, StoreError> {
        let names: Vec<String> = sqlx::query_scalar(
            "select stream.name from lakegauge.stream \
             join lakegauge.checkpoint on checkpoint.stream = stream.id order by stream.name",
        )
        .fetch_all(&mut self.connection)
        .await
        .doing(DOING)?;
        Ok(names.iter().filter_map(|name| Stream::from_name(name)).collect())
    }

    /// How many events of the stream were archived after an epoch and sequence, by its ledger. The
    /// number is approximate: a page may begin within a transaction, and verdicts may not be read
    /// back yet.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn archived_events(&mut self, after: (u32, u64)) -> Result<u64, StoreError> {
        let events: i64 = sqlx::query_scalar(
            "select coalesce(sum(inserted), 0)::bigint from lakegauge.ledger \
             where stream = $1 and (epoch, last) > ($2, $3)",
        )
        .bind(self.stream.id)
        .bind(integer(after.0))
        .bind(bigint(after.1))
        .fetch_one(&mut self.connection)
        .await
        .doing(DOING)?;
        unsigned(events)
    }

    /// The next samples of the stream after an epoch and sequence, in the order of their positions:
    /// about a thousand. An empty result means that there are no more.
    ///
    /// # Errors
    ///
    /// The database failed, or contains a sample that this program cannot read.
    pub async fn samples_after(
        &mut self,
        (epoch, sequence): (u32, u64),
    ) -> Result<Vec<Sample>, StoreError> {
        let rows = sqlx::query(
            "select epoch, sequence, broker_ns, used_bytes::text as used_bytes, accesses, \
             buckets::text as buckets, queries_in_window, \
             response_us_in_window::text as response_us, records::text as records \
             from lakegauge.sample where stream = $1 and (epoch, sequence) > ($2, $3) \
             order by epoch, sequence limit $4",
        )
        .bind(self.stream.id)
        .bind(integer(epoch))
        .bind(bigint(sequence))
        .bind(PAGE_SAMPLES)
        .fetch_all(&mut self.connection)
        .await
        .doing(DOING)?;
        let stream = self.stream();
        rows.iter().map(|row| sample(stream, row)).collect()
    }

    /// The closed epochs of the stream, each with the mark up to which it was archived.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn closed_epochs(&mut self) -> Result<Vec<Mark>, StoreError> {
        let rows = sqlx::query(
            "select epoch, sequence, broker_ns, created_ns from lakegauge.epoch \
             where stream = $1 order by epoch",
        )
        .bind(self.stream.id)
        .fetch_all(&mut self.connection)
        .await
        .doing(DOING)?;
        rows.iter().map(mark).collect::<Result<_, _>>().doing(DOING)
    }

    /// The position of the base from which the stream is folded, if retention dropped old days.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn base(&mut self) -> Result<Option<(u32, u64)>, StoreError> {
        let row = sqlx::query("select epoch, sequence from lakegauge.base where stream = $1")
            .bind(self.stream.id)
            .fetch_optional(&mut self.connection)
            .await
            .doing(DOING)?;
        let place = |row: &PgRow| Ok((read(row, "epoch")?, read(row, "sequence")?));
        row.as_ref().map(place).transpose().doing(DOING)
    }

    /// The declared losses of the stream: messages that were deleted in the broker before they
    /// could be archived, except by trimming.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn losses(&mut self) -> Result<Vec<MessageRange>, StoreError> {
        declared_losses(&mut self.connection, self.stream).await
    }
}

/// The declared losses of a stream, in order.
pub(crate) async fn declared_losses(
    connection: &mut PgConnection,
    stream: StreamId,
) -> Result<Vec<MessageRange>, StoreError> {
    sqlx::query_as(
        "select epoch, first, last from lakegauge.declared_loss \
         where stream = $1 order by epoch, first",
    )
    .bind(stream.id)
    .fetch_all(connection)
    .await
    .doing(DOING)
}

fn sample(stream: Stream, row: &PgRow) -> Result<Sample, StoreError> {
    let epoch = read(row, "epoch").doing(DOING)?;
    let sequence = read(row, "sequence").doing(DOING)?;
    let broker_ns = read(row, "broker_ns").doing(DOING)?;
    let values = values(stream.side, row).map_err(|error| {
        StoreError::Inconsistent(format!(
            "the sample of {stream} at epoch {epoch}, sequence {sequence}: {error}"
        ))
    })?;
    Ok(Sample { stream, epoch, sequence, broker_ns, values })
}

fn values(side: Side, row: &PgRow) -> Result<SampleValues, sqlx::Error> {
    Ok(match side {
        Side::Lake => SampleValues::Lake {
            used_bytes: read(row, "used_bytes")?,
            accesses: read(row, "accesses")?,
            buckets: read(row, "buckets")?,
        },
        Side::Warehouse => SampleValues::Warehouse {
            queries_in_window: read(row, "queries_in_window")?,
            response_us_in_window: read(row, "response_us")?,
            records: read(row, "records")?,
        },
    })
}
