//! Stores samples: the history of the metrics, and the proof that the metrics can be computed
//! again.

use std::collections::BTreeMap;

use domain::{Sample, SampleValues};
use serde_json::Value;
use sqlx::{PgConnection, Row};

use crate::{
    error::StoreError,
    numbers::{count, signed},
    rows::columns::{Columns, columns, read},
    statement::Doing,
    write::appended::Appended,
};

/// The stored columns of a sample; the values of the other side are `None`.
#[derive(Default)]
struct SampleRow {
    name: String,
    epoch: u32,
    sequence: i64,
    broker_ns: i64,
    used_bytes: Option<i128>,
    accesses: Option<i64>,
    buckets: Option<BTreeMap<String, i128>>,
    queries_in_window: Option<i64>,
    response_us_in_window: Option<u128>,
    records: Option<u128>,
}
columns!(SampleRow {
    name,
    epoch,
    sequence,
    broker_ns,
    used_bytes,
    accesses,
    buckets,
    queries_in_window,
    response_us_in_window,
    records,
});

impl SampleRow {
    fn of(sample: &Sample) -> Result<Self, StoreError> {
        let row = Self {
            name: sample.stream.to_string(),
            epoch: sample.epoch,
            sequence: signed(sample.sequence)?,
            broker_ns: sample.broker_ns,
            ..Self::default()
        };
        Ok(match &sample.values {
            SampleValues::Lake { used_bytes, accesses, buckets } => Self {
                used_bytes: Some(*used_bytes),
                accesses: Some(signed(*accesses)?),
                buckets: Some(buckets.clone()),
                ..row
            },
            SampleValues::Warehouse { queries_in_window, response_us_in_window, records } => Self {
                queries_in_window: Some(signed(*queries_in_window)?),
                response_us_in_window: Some(*response_us_in_window),
                records: Some(*records),
                ..row
            },
        })
    }
}

/// Stores samples. The first at a position stays. Another sample with the same values is a
/// duplicate; one with other values raises an alarm.
pub(crate) async fn append(
    connection: &mut PgConnection,
    samples: &[Sample],
    appended: &mut Appended,
) -> Result<(), StoreError> {
    if samples.is_empty() {
        return Ok(());
    }
    let doing = "keeping samples";
    let rows = samples.iter().map(SampleRow::of).collect::<Result<Vec<_>, _>>()?;
    sqlx::query(
        "insert into lakegauge.stream (name) select distinct name from unnest($1::text[]) as part (name) \
         where not exists (select from lakegauge.stream where stream.name = part.name) \
         on conflict do nothing",
    )
    .bind(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await
    .doing(doing)?;
    let row =
        SampleRow::bind(rows.iter(), sqlx::query(KEEP)).fetch_one(connection).await.doing(doing)?;
    let inserted: u64 = read(&row, "inserted").doing(doing)?;
    let differing: Value = row.try_get("differing").doing(doing)?;
    let differing = differing.as_array().map_or(&[][..], Vec::as_slice);
    for pair in differing {
        tracing::error!(%pair, "two samples of one position differ");
    }
    appended.inserted += inserted;
    appended.duplicates += count(samples.len()) - inserted;
    appended.samples_differing += count(differing.len());
    Ok(())
}

/// Takes the arrays of [`SampleRow`]. Samples are compared with the rows from before this
/// statement, and with others in the same statement.
const KEEP: &str = "
with given as (
    select stream.id as stream, part.epoch, part.sequence, part.broker_ns,
        part.used_bytes::numeric as used_bytes, part.accesses, part.buckets::jsonb as buckets,
        part.queries_in_window,
        part.response_us_in_window::numeric as response_us_in_window,
        part.records::numeric as records, part.place
    from unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[],
        $7::text[], $8::bigint[], $9::text[], $10::text[]) with ordinality
        as part (name, epoch, sequence, broker_ns, used_bytes, accesses, buckets,
            queries_in_window, response_us_in_window, records, place)
    join lakegauge.stream on stream.name = part.name
),
inserted as (
    insert into lakegauge.sample (stream, epoch, sequence, broker_ns, used_bytes, accesses, buckets,
        queries_in_window, response_us_in_window, records)
    select stream, epoch, sequence, broker_ns, used_bytes, accesses, buckets, queries_in_window,
        response_us_in_window, records
    from given
    order by place
    on conflict do nothing
    returning *
),
known as (
    select * from lakegauge.sample
    union all
    select * from inserted
)
select (select count(*) from inserted) as inserted,
    (select coalesce(jsonb_agg(jsonb_build_object('given', given, 'known', known)), '[]')
     from given
     join known using (stream, epoch, sequence)
     where (given.broker_ns, given.used_bytes, given.accesses, given.buckets,
            given.queries_in_window, given.response_us_in_window, given.records)
        is distinct from
        (known.broker_ns, known.used_bytes, known.accesses, known.buckets,
            known.queries_in_window, known.response_us_in_window, known.records)) as differing";
