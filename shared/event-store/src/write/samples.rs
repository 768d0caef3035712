//! Samples: the history of the metrics, and the standing proof that they can be computed again.

use domain::{Sample, SampleValues};
use serde_json::Value;
use sqlx::{PgConnection, Row};

use crate::{
    error::StoreError,
    numbers::{count, integer, signed},
    statement::Doing,
    write::appended::Appended,
};

#[derive(Default)]
struct Columns {
    names: Vec<String>,
    epochs: Vec<i32>,
    sequences: Vec<i64>,
    broker_ns: Vec<i64>,
    /// Sums have up to 128 bits; they travel as text.
    used_bytes: Vec<Option<String>>,
    accesses: Vec<Option<i64>>,
    buckets: Vec<Option<String>>,
    queries: Vec<Option<i64>>,
    response_us: Vec<Option<String>>,
    records: Vec<Option<String>>,
}

impl Columns {
    fn push(&mut self, sample: &Sample) -> Result<(), StoreError> {
        self.names.push(sample.stream.to_string());
        self.epochs.push(integer(sample.epoch));
        self.sequences.push(signed(sample.sequence)?);
        self.broker_ns.push(sample.broker_ns);
        match &sample.values {
            SampleValues::Lake { used_bytes, accesses, buckets } => {
                // A JSON value holds 64 bits, its text as many as there are.
                let buckets = serde_json::to_string(buckets).expect("texts and integers");
                self.used_bytes.push(Some(used_bytes.to_string()));
                self.accesses.push(Some(signed(*accesses)?));
                self.buckets.push(Some(buckets));
                self.queries.push(None);
                self.response_us.push(None);
                self.records.push(None);
            }
            SampleValues::Warehouse { queries_in_window, response_us_in_window, records } => {
                self.used_bytes.push(None);
                self.accesses.push(None);
                self.buckets.push(None);
                self.queries.push(Some(signed(*queries_in_window)?));
                self.response_us.push(Some(response_us_in_window.to_string()));
                self.records.push(Some(records.to_string()));
            }
        }
        Ok(())
    }
}

/// Keeps samples. The first at a position stays; another with the same values is a duplicate, one
/// with others an alarm.
pub(crate) async fn append(
    connection: &mut PgConnection,
    samples: &[Sample],
    appended: &mut Appended,
) -> Result<(), StoreError> {
    if samples.is_empty() {
        return Ok(());
    }
    let doing = "keeping samples";
    let mut columns = Columns::default();
    for sample in samples {
        columns.push(sample)?;
    }
    sqlx::query(
        "insert into lakegauge.stream (name) select distinct name from unnest($1::text[]) as part (name) \
         where not exists (select from lakegauge.stream where stream.name = part.name) \
         on conflict do nothing",
    )
    .bind(&columns.names)
    .execute(&mut *connection)
    .await
    .doing(doing)?;
    let row = sqlx::query(KEEP)
        .bind(columns.names)
        .bind(columns.epochs)
        .bind(columns.sequences)
        .bind(columns.broker_ns)
        .bind(columns.used_bytes)
        .bind(columns.accesses)
        .bind(columns.buckets)
        .bind(columns.queries)
        .bind(columns.response_us)
        .bind(columns.records)
        .fetch_one(connection)
        .await
        .doing(doing)?;
    let inserted: i64 = row.try_get("inserted").doing(doing)?;
    let differing: Value = row.try_get("differing").doing(doing)?;
    let differing = differing.as_array().map_or(&[][..], Vec::as_slice);
    for pair in differing {
        tracing::error!(%pair, "two samples of one position differ");
    }
    let inserted = u64::try_from(inserted).unwrap_or(0);
    appended.inserted += inserted;
    appended.duplicates += count(samples.len()) - inserted;
    appended.samples_differing += count(differing.len());
    Ok(())
}

/// The rows that are compared are those from before this statement, and those given twice in it.
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
