//! The fast way into the archive: rows that can't conflict, by COPY.

use sqlx::PgConnection;

use crate::{
    error::StoreError,
    rows::{copy_buffer::CopyBuffer, event::statements, kind::EventTable},
    statement::Doing,
    write::batch::Batch,
};

/// Data of a COPY is sent in pieces of this size, so that the driver's buffer stays small.
const COPY_PIECE_BYTES: usize = 128 * 1_024;

/// Copies all rows of a batch that are new by the sets. Returns the number of rows.
pub(crate) async fn copy_all(
    connection: &mut PgConnection,
    batch: &Batch,
) -> Result<u64, StoreError> {
    let mut rows = 0;
    for kind in EventTable::ALL {
        let buffer = &batch.copies[kind.place()];
        if buffer.rows() > 0 {
            rows += copy(connection, kind, buffer).await?;
        }
    }
    Ok(rows)
}

async fn copy(
    connection: &mut PgConnection,
    kind: EventTable,
    buffer: &CopyBuffer,
) -> Result<u64, StoreError> {
    let doing = "copying rows";
    let mut copy = connection.copy_in_raw(&statements(kind).copy).await.doing(doing)?;
    for piece in buffer.bytes().chunks(COPY_PIECE_BYTES) {
        copy.send(piece).await.doing(doing)?;
    }
    copy.send(CopyBuffer::TRAILER.as_slice()).await.doing(doing)?;
    let rows = copy.finish().await.doing(doing)?;
    if rows != buffer.rows() {
        return Err(StoreError::Inconsistent(format!(
            "copied {rows} rows into {} instead of {}",
            kind.table(),
            buffer.rows()
        )));
    }
    Ok(rows)
}
