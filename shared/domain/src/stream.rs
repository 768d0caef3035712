//! Streams and positions in them.

use std::fmt;

use crate::{event::Side, time::Timestamp};

/// Name of the stream that carries the samples of every aggregator.
pub const SAMPLES: &str = "TELEMETRY";

/// One partition of one side. Each stream is folded, checkpointed and snapshotted alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream {
    /// Lake or warehouse.
    pub side: Side,
    /// Number of the partition, from 0.
    pub partition: u16,
}

impl Stream {
    /// The lake's stream of a partition.
    pub const fn lake(partition: u16) -> Self {
        Self { side: Side::Lake, partition }
    }

    /// The warehouse's stream of a partition.
    pub const fn warehouse(partition: u16) -> Self {
        Self { side: Side::Warehouse, partition }
    }

    /// Every stream of a partition.
    pub const fn of_partition(partition: u16) -> [Self; 2] {
        [Self::lake(partition), Self::warehouse(partition)]
    }

    /// The stream with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let (side, partition) = name.split_once('_')?;
        let side = match side {
            "LAKE" => Side::Lake,
            "WAREHOUSE" => Side::Warehouse,
            _ => return None,
        };
        let stream = Self { side, partition: partition.parse().ok()? };
        (stream.to_string() == name).then_some(stream)
    }
}

/// Formats the name of the stream in JetStream, in the archive and in labels: `LAKE_0`.
impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Lake => "LAKE",
            Side::Warehouse => "WAREHOUSE",
        };
        write!(f, "{side}_{}", self.partition)
    }
}

/// A stream that the archive keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ArchivedStream {
    /// The events of one partition of one side.
    Events(Stream),
    /// The samples of all partitions.
    Samples,
}

impl ArchivedStream {
    /// The streams that the archiver of these partitions writes. The archiver of partition 0 also
    /// writes the samples.
    pub fn of_partitions(partitions: &[u16]) -> Vec<Self> {
        let events = partitions.iter().flat_map(|partition| Stream::of_partition(*partition));
        let samples = partitions.contains(&0).then_some(Self::Samples);
        events.map(Self::Events).chain(samples).collect()
    }
}

/// Formats the name of the stream in JetStream, in the archive and in labels.
impl fmt::Display for ArchivedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events(stream) => stream.fmt(f),
            Self::Samples => f.write_str(SAMPLES),
        }
    }
}

/// The position of an event in its stream. Events are counted in the order of their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The epoch: raised when the stream was created again or lost its tail.
    pub epoch: u32,
    /// The broker's sequence of the message.
    pub sequence: u64,
    /// The index of the event in the message, from 0.
    pub index: u32,
}

/// The last message of a stream that was handled to its end, with the times that distinguish it
/// from another message of the same sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The epoch in which the message was read.
    pub epoch: u32,
    /// The broker's sequence. Before the first message of an epoch: the sequence that precedes it.
    pub sequence: u64,
    /// The broker's timestamp of the message, in nanoseconds since 1970; 0 before the first
    /// message.
    pub broker_ns: i64,
    /// When the stream was created, in nanoseconds since 1970.
    pub created_ns: i64,
}

impl Mark {
    /// The broker's timestamp as event time.
    pub const fn broker_time(&self) -> Timestamp {
        Timestamp::from_nanos(self.broker_ns)
    }

    /// Whether no message of the epoch was handled yet, so that there is no message to compare.
    ///
    /// The sequence need not be 0: a purged stream continues to count from its last sequence.
    pub const fn is_before_first(&self) -> bool {
        self.broker_ns == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_without_a_brokers_time_is_before_the_first_message() {
        let before = Mark { epoch: 2, sequence: 70, broker_ns: 0, created_ns: 5 };
        assert!(before.is_before_first());
        assert!(!Mark { broker_ns: 1, ..before }.is_before_first());
        assert_eq!(Mark { broker_ns: 7_999, ..before }.broker_time(), Timestamp(7));
    }

    #[test]
    fn the_samples_are_written_by_the_archiver_of_partition_0() {
        let names = |partitions: &[u16]| {
            let streams = ArchivedStream::of_partitions(partitions).into_iter();
            streams.map(|stream| stream.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&[0]), ["LAKE_0", "WAREHOUSE_0", "TELEMETRY"]);
        assert_eq!(names(&[1, 2]), ["LAKE_1", "WAREHOUSE_1", "LAKE_2", "WAREHOUSE_2"]);
    }

    #[test]
    fn a_name_gives_back_its_stream_and_only_canonical_names_do() {
        for stream in [Stream::lake(0), Stream::warehouse(17)] {
            assert_eq!(Stream::from_name(&stream.to_string()), Some(stream));
        }
        for name in ["LAKE", "LAKE_", "LAKE_00", "LAKE_-1", "lake_0", "TELEMETRY", "LAKE_70000"] {
            assert_eq!(Stream::from_name(name), None, "{name}");
        }
    }
}
