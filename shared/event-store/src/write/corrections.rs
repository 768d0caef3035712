//! Whether a correction has what it corrects: the one rule that only the archive can apply.

use std::collections::BTreeSet;

use domain::Position;
use sqlx::PgConnection;

use crate::{
    error::StoreError,
    rows::{
        event::{self, position, statements},
        kind::{EventTable, Placed},
    },
    statement::Doing,
};

const DOING: &str = "looking for what is corrected";

/// Of these rows, the positions of the corrections whose event the archive does not have in this
/// stream just as they give it. Metrics and windows take back what a correction says, so it must be
/// what was added.
pub(crate) async fn unfounded(
    connection: &mut PgConnection,
    stream: i16,
    rows: &[&Placed],
) -> Result<BTreeSet<Position>, StoreError> {
    let mut unfounded = BTreeSet::new();
    for kind in EventTable::ALL {
        let corrections: Vec<&Placed> = rows
            .iter()
            .copied()
            .filter(|row| {
                let fact = &row.event.fact;
                fact.is_correction() && EventTable::of(fact) == kind
            })
            .collect();
        if corrections.is_empty() {
            continue;
        }
        let sql = statements(kind).without_original.as_str();
        let query = event::bind(sqlx::query(sql), kind, stream, &corrections);
        let found = query.fetch_all(&mut *connection).await.doing(DOING)?;
        for row in &found {
            unfounded.insert(position(row).doing(DOING)?);
        }
    }
    Ok(unfounded)
}
