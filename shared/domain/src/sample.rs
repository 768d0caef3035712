//! Samples: what a stream's metrics were at a position. The same position gives the same values.

use std::collections::BTreeMap;

use crate::stream::Stream;

/// What the metrics of one stream were after the message at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The stream.
    pub stream: Stream,
    /// The epoch of the message.
    pub epoch: u32,
    /// The broker's sequence of the last message that is included.
    pub sequence: u64,
    /// The broker's timestamp of that message, in nanoseconds since 1970.
    pub broker_ns: i64,
    /// The values.
    pub values: SampleValues,
}

/// The metrics of one side, as integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SampleValues {
    /// Of the lake.
    Lake {
        /// Bytes stored, over all buckets.
        used_bytes: i128,
        /// Requests since the first event.
        accesses: u64,
        /// Bytes stored per bucket; buckets without a label of their own are summed up as `other`.
        buckets: BTreeMap<String, i128>,
    },
    /// Of the warehouse.
    Warehouse {
        /// Queries that finished in the 60 seconds that end with the newest query's second.
        queries_in_window: u64,
        /// Sum of the response times of these queries, in microseconds.
        response_us_in_window: u128,
        /// Rows processed since the first event.
        records: u128,
    },
}
