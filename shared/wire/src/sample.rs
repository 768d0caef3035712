//! Samples to JSON and back: what a stream's metrics were at a position.

use std::collections::BTreeMap;

use domain::{Reason, Refusal, Sample, SampleValues, Stream};
use serde::{Deserialize, Serialize};

use crate::{Format, Sealed, Subjects};

/// Writes and seals a sample. The same sample gives the same message, so that the broker takes it
/// once.
pub fn encode_sample(subjects: &Subjects, sample: &Sample) -> Sealed {
    encode_sample_for(subjects.sample(sample.stream.partition), sample)
}

/// [`encode_sample`] for another subject.
pub fn encode_sample_for(subject: String, sample: &Sample) -> Sealed {
    let payload = serde_json::to_vec(&SampleForm::from(sample)).expect("numbers and texts");
    Sealed::new(subject, Format::Json.content_type(), payload, 1)
}

/// Reads a sample.
///
/// # Errors
///
/// The bytes are no sample.
pub fn decode_sample(payload: &[u8]) -> Result<Sample, Refusal> {
    let undecodable = |detail: String| Refusal::whole(Reason::Undecodable, detail);
    let form: SampleForm =
        serde_json::from_slice(payload).map_err(|error| undecodable(error.to_string()))?;
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
    used_bytes: i64,
    accesses: u64,
    buckets: BTreeMap<String, i64>,
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
            let detail = format!("{:?} is no stream of events", form.stream);
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
        Ok(Self {
            stream,
            epoch: form.epoch,
            sequence: form.sequence,
            broker_ns: form.broker_ns,
            values,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_map, prelude::*};

    use super::*;

    fn any_values() -> impl Strategy<Value = SampleValues> {
        let lake = (any::<i64>(), any::<u64>(), btree_map(any::<String>(), any::<i64>(), 0..4));
        prop_oneof![
            lake.prop_map(|(used_bytes, accesses, buckets)| SampleValues::Lake {
                used_bytes,
                accesses,
                buckets
            }),
            (any::<u64>(), any::<u128>(), any::<u128>()).prop_map(
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
            (partition, epoch) in any::<(u16, u32)>(),
            (sequence, broker_ns) in any::<(u64, i64)>(),
        ) {
            let stream = match values {
                SampleValues::Lake { .. } => Stream::lake(partition),
                SampleValues::Warehouse { .. } => Stream::warehouse(partition),
            };
            let sample = Sample { stream, epoch, sequence, broker_ns, values };
            let sealed = encode_sample(&Subjects::new("p"), &sample);
            prop_assert_eq!(&sealed.subject, &format!("p.telemetry.sample.{partition}"));
            prop_assert_eq!(decode_sample(&sealed.payload), Ok(sample.clone()));
            prop_assert_eq!(encode_sample(&Subjects::new("p"), &sample), sealed);
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
        let text = String::from_utf8(encode_sample(&Subjects::default(), &sample).payload.to_vec());
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
}
