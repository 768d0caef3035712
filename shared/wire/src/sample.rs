//! Samples to JSON and back: what a stream's metrics were at a position.

use std::collections::BTreeMap;

use domain::{Reason, Refusal, Sample, SampleValues, Stream, accept::NAME_BYTES_MAX};
use serde::{Deserialize, Serialize};

use crate::{Format, Headers, Sealed};

/// Encodes and seals a sample for a subject. The same sample gives the same message, so that the
/// broker stores it once.
pub fn encode_sample(subject: String, sample: &Sample) -> Sealed {
    let payload = serde_json::to_vec(&SampleForm::from(sample)).expect("numbers and texts");
    Sealed::new(subject, Format::Json.content_type(), payload, 1)
}

/// Reads a message that should be a sample.
///
/// # Errors
///
/// The headers cannot be read, or the bytes are not a sample.
pub fn read_sample(headers: &Headers, payload: &[u8]) -> Result<Sample, Refusal> {
    headers.content_type()?;
    decode_sample(payload)
}

/// Reads a sample from its bytes.
///
/// # Errors
///
/// The bytes are not a sample.
pub fn decode_sample(payload: &[u8]) -> Result<Sample, Refusal> {
    let undecodable = |detail: String| Refusal::whole(Reason::Undecodable, detail);
    let form: SampleForm = serde_json::from_slice(crate::text::trimmed(payload))
        .map_err(|error| undecodable(error.to_string()))?;
    form.try_into()
}

const KIND: &str = "telemetry.sample";

#[derive(Debug, Serialize, Deserialize)]
struct SampleForm {
    #[serde(rename = "type")]
    kind: String,
    stream: String,
    epoch: u32,
    sequence: u64,
    broker_ns: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lake: Option<LakeForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warehouse: Option<WarehouseForm>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LakeForm {
    used_bytes: i128,
    accesses: u64,
    buckets: BTreeMap<String, i128>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WarehouseForm {
    queries_in_window: u64,
    response_us_in_window: u128,
    records: u128,
}

impl From<&Sample> for SampleForm {
    fn from(sample: &Sample) -> Self {
        let (lake, warehouse) = match sample.values.clone() {
            SampleValues::Lake { used_bytes, accesses, buckets } => {
                (Some(LakeForm { used_bytes, accesses, buckets }), None)
            }
            SampleValues::Warehouse { queries_in_window, response_us_in_window, records } => {
                (None, Some(WarehouseForm { queries_in_window, response_us_in_window, records }))
            }
        };
        Self {
            kind: KIND.to_owned(),
            stream: sample.stream.to_string(),
            epoch: sample.epoch,
            sequence: sample.sequence,
            broker_ns: sample.broker_ns,
            lake,
            warehouse,
        }
    }
}

impl TryFrom<SampleForm> for Sample {
    type Error = Refusal;

    fn try_from(form: SampleForm) -> Result<Self, Refusal> {
        if form.kind != KIND {
            let detail = format!("{:?} is not {KIND}", form.kind);
            return Err(Refusal::of_field(Reason::UnknownType, "type", detail));
        }
        let stream = Stream::from_name(&form.stream).ok_or_else(|| {
            let detail = format!("{:?} is not a stream of events", form.stream);
            Refusal::of_field(Reason::WrongField, "stream", detail)
        })?;
        let values = match (stream.side, form.lake, form.warehouse) {
            (domain::Side::Lake, Some(lake), None) => SampleValues::Lake {
                used_bytes: lake.used_bytes,
                accesses: lake.accesses,
                buckets: lake.buckets,
            },
            (domain::Side::Warehouse, None, Some(warehouse)) => SampleValues::Warehouse {
                queries_in_window: warehouse.queries_in_window,
                response_us_in_window: warehouse.response_us_in_window,
                records: warehouse.records,
            },
            (domain::Side::Lake | domain::Side::Warehouse, _, _) => {
                let detail = "the values are not those of the stream's side";
                return Err(Refusal::of_field(Reason::WrongField, "stream", detail));
            }
        };
        let sample = Self {
            stream,
            epoch: form.epoch,
            sequence: form.sequence,
            broker_ns: form.broker_ns,
            values,
        };
        check(&sample)?;
        Ok(sample)
    }
}

/// Refuses what no aggregator publishes and no archive can store: any program may publish on the
/// subject.
fn check(sample: &Sample) -> Result<(), Refusal> {
    if i32::try_from(sample.epoch).is_err() {
        let detail = format!("{} is above {}", sample.epoch, i32::MAX);
        return Err(Refusal::of_field(Reason::OutOfRange, "epoch", detail));
    }
    counter("sequence", sample.sequence)?;
    match &sample.values {
        SampleValues::Lake { accesses, buckets, .. } => {
            counter("accesses", *accesses)?;
            buckets.keys().try_for_each(|name| bucket(name))
        }
        SampleValues::Warehouse { queries_in_window, .. } => {
            counter("queries_in_window", *queries_in_window)
        }
    }
}

fn counter(field: &'static str, value: u64) -> Result<(), Refusal> {
    if i64::try_from(value).is_ok() {
        return Ok(());
    }
    Err(Refusal::of_field(Reason::OutOfRange, field, format!("{value} is above {}", i64::MAX)))
}

/// Checks that the name of a bucket is within the bounds for names in events.
fn bucket(name: &str) -> Result<(), Refusal> {
    if name.contains('\0') {
        return Err(Refusal::of_field(Reason::NulByte, "buckets", "a name holds a NUL"));
    }
    if name.len() > NAME_BYTES_MAX {
        let detail = format!("a name has {} bytes, {NAME_BYTES_MAX} are allowed", name.len());
        return Err(Refusal::of_field(Reason::TooLong, "buckets", detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_map, prelude::*};

    use super::*;
    use crate::Subjects;

    fn counters() -> std::ops::RangeInclusive<u64> {
        0..=i64::MAX.cast_unsigned()
    }

    fn any_values() -> impl Strategy<Value = SampleValues> {
        let name = "[^\0]{0,60}";
        let lake = (any::<i128>(), counters(), btree_map(name, any::<i128>(), 0..4));
        prop_oneof![
            lake.prop_map(|(used_bytes, accesses, buckets)| SampleValues::Lake {
                used_bytes,
                accesses,
                buckets
            }),
            (counters(), any::<u128>(), any::<u128>()).prop_map(
                |(queries_in_window, response_us_in_window, records)| SampleValues::Warehouse {
                    queries_in_window,
                    response_us_in_window,
                    records
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            values in any_values(),
            partition in any::<u16>(),
            epoch in 0..=i32::MAX.cast_unsigned(),
            sequence in counters(),
            broker_ns in any::<i64>(),
        ) {
            let stream = match values {
                SampleValues::Lake { .. } => Stream::lake(partition),
                SampleValues::Warehouse { .. } => Stream::warehouse(partition),
            };
            let sample = Sample { stream, epoch, sequence, broker_ns, values };
            let sealed = encode_sample(Subjects::new("p").sample(partition), &sample);
            prop_assert_eq!(&sealed.subject, &format!("p.telemetry.sample.{partition}"));
            prop_assert_eq!(decode_sample(&sealed.payload), Ok(sample.clone()));
            prop_assert_eq!(encode_sample(Subjects::new("p").sample(partition), &sample), sealed);
        }

        #[test]
        fn no_bytes_make_it_panic(payload in any::<Vec<u8>>()) {
            prop_assert!(decode_sample(&payload).is_err());
        }
    }

    #[test]
    fn a_sample_is_readable_and_values_of_the_other_side_are_refused() {
        let values = SampleValues::Lake {
            used_bytes: -1,
            accesses: 2,
            buckets: [("raw".to_owned(), 3)].into_iter().collect(),
        };
        let stream = Stream::lake(0);
        let sample = Sample { stream, epoch: 1, sequence: 7, broker_ns: 9, values };
        let text = String::from_utf8(
            encode_sample(Subjects::default().sample(0), &sample).payload.to_vec(),
        );
        let text = text.unwrap();
        assert_eq!(
            text,
            r#"{"type":"telemetry.sample","stream":"LAKE_0","epoch":1,"sequence":7,"broker_ns":9,"lake":{"used_bytes":-1,"accesses":2,"buckets":{"raw":3}}}"#
        );
        for wrong in [("LAKE_0", "WAREHOUSE_0"), ("LAKE_0", "LAKE"), ("telemetry.sample", "other")]
        {
            assert!(decode_sample(text.replace(wrong.0, wrong.1).as_bytes()).is_err(), "{wrong:?}");
        }
    }
    #[test]
    fn a_sample_that_no_archive_can_hold_is_refused() {
        let form = |epoch: u64, sequence: u64, accesses: u64, bucket: &str| {
            let lake = serde_json::json!({
                "used_bytes": 1, "accesses": accesses, "buckets": { bucket: 1 }
            });
            let sample = serde_json::json!({
                "type": "telemetry.sample", "stream": "LAKE_0", "epoch": epoch,
                "sequence": sequence, "broker_ns": 1, "lake": lake
            });
            decode_sample(&serde_json::to_vec(&sample).unwrap())
                .map_err(|refusal| (refusal.reason, refusal.field))
        };
        let most = i64::MAX.cast_unsigned();
        assert!(form(u64::from(i32::MAX.cast_unsigned()), most, most, "raw").is_ok());
        let name = "b".repeat(NAME_BYTES_MAX);
        assert!(form(1, 1, 1, &name).is_ok());
        for (refused, reason, field) in [
            (form(1 << 31, 1, 1, "raw"), Reason::OutOfRange, "epoch"),
            (form(1, most + 1, 1, "raw"), Reason::OutOfRange, "sequence"),
            (form(1, 1, most + 1, "raw"), Reason::OutOfRange, "accesses"),
            (form(1, 1, 1, "a\0b"), Reason::NulByte, "buckets"),
            (form(1, 1, 1, &(name + "b")), Reason::TooLong, "buckets"),
        ] {
            assert_eq!(refused, Err((reason, Some(field))));
        }
    }
}
