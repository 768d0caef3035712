//! How much room each stream gets, and what fits into an account. Pure.
//!
//! Everything follows from the size of an event stream, so that one setting makes the pipeline fit.

const MIB: u64 = 1 << 20;

/// Size of an event stream, unless another size is set or follows from the account: enough for what
/// arrives while a service is down.
const EVENTS_BYTES: u64 = 4 << 30;
/// The smallest event stream that is created unasked: half of what one publisher may have
/// unconfirmed.
const EVENTS_BYTES_MIN: u64 = 16 * MIB;
/// Number of declared event streams.
const EVENT_STREAMS: u64 = 2;
/// Pointers, lease owners and epochs: small values, of which one version each is kept.
const POINTERS_BYTES: u64 = 16 * MIB;
/// The snapshots get this share of an event stream's size. There must be room for two snapshots of
/// each stream; the state of a million objects takes about 40 MiB.
const SNAPSHOTS_SHARE: u64 = 4;
const SNAPSHOTS_BYTES: std::ops::RangeInclusive<u64> = 32 * MIB..=1 << 30;
/// The samples get this share: a few hundred bytes are stored every 10 s.
const SAMPLES_SHARE: u64 = 16;
const SAMPLES_BYTES: std::ops::RangeInclusive<u64> = 16 * MIB..=256 * MIB;

service_kit::settings! {
    /// What may differ from the declarations. What is not set leaves existing streams unchanged.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct TopologyOverrides {
        /// Bytes that each event stream may hold before producers have to wait. If it is not set,
        /// new streams get 4 GiB, or what fits into the account, and existing ones keep their size.
        #[setting(NATS_EVENT_STREAM_MAX_BYTES, "nats-event-stream-max-bytes")]
        pub event_stream_max_bytes: Option<u64> = optional,
        /// Bytes that the bucket of snapshots may hold, two of each stream. If it is not set, the
        /// bucket gets a quarter of an event stream, from 32 MiB to 1 GiB.
        #[setting(NATS_SNAPSHOT_BUCKET_MAX_BYTES, "nats-snapshot-bucket-max-bytes")]
        pub snapshot_bucket_max_bytes: Option<u64> = optional,
        /// Bytes that the stream of samples may hold. If it is not set, the stream gets a sixteenth
        /// of an event stream, from 16 MiB to 256 MiB.
        #[setting(NATS_SAMPLES_MAX_BYTES, "nats-samples-max-bytes")]
        pub samples_max_bytes: Option<u64> = optional,
        /// Copies of each stream in a cluster, 1 to 5. If it is not set, existing streams keep
        /// theirs.
        #[setting(NATS_REPLICAS, "nats-replicas")]
        pub replicas: Option<u8> = optional,
    }
}

/// What a declared stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Pointers, lease owners, epochs.
    Pointers,
    /// Snapshots of the aggregators' state.
    Snapshots,
    /// Events of one side and partition.
    Events,
    /// Samples of the metrics.
    Samples,
    /// A replay run.
    Replay,
}

impl Purpose {
    /// The purpose by the name without a prefix: as declared in `nats/streams.json`, or of a replay
    /// run.
    pub(crate) fn of(name: &str) -> Self {
        if name.starts_with("KV_") {
            Self::Pointers
        } else if name.starts_with("OBJ_") {
            Self::Snapshots
        } else if name.starts_with("REPLAY_") {
            Self::Replay
        } else if name == domain::SAMPLES {
            Self::Samples
        } else {
            Self::Events
        }
    }

    /// What to do if the server reports that it has no room for the stream.
    pub(crate) const fn todo(self) -> &'static str {
        match self {
            Self::Pointers => {
                "raise max_file_store in nats-server.conf, or the account's limit: this bucket is as \
                 small as it can be"
            }
            Self::Snapshots => {
                "raise max_file_store in nats-server.conf or the account's limit, or lower \
                 NATS_SNAPSHOT_BUCKET_MAX_BYTES, which is a quarter of NATS_EVENT_STREAM_MAX_BYTES \
                 unless set"
            }
            Self::Events => {
                "raise max_file_store in nats-server.conf or the account's limit, or lower \
                 NATS_EVENT_STREAM_MAX_BYTES"
            }
            Self::Samples => {
                "raise max_file_store in nats-server.conf or the account's limit, or lower \
                 NATS_SAMPLES_MAX_BYTES, which is a sixteenth of NATS_EVENT_STREAM_MAX_BYTES unless \
                 set"
            }
            Self::Replay => {
                "lower REPLAY_STREAM_MAX_BYTES, remove old runs with `lakegauge replay --remove \
                 RUN`, or raise max_file_store in nats-server.conf or the account's limit"
            }
        }
    }
}

/// The room of every declared stream, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    events: u64,
    snapshots: u64,
    samples: u64,
}

impl Room {
    /// The sizes as they are set, or as they follow from what is set.
    pub(crate) fn new(overrides: &TopologyOverrides) -> Self {
        let events = overrides.event_stream_max_bytes.unwrap_or(EVENTS_BYTES);
        let share = |part: u64, bounds: std::ops::RangeInclusive<u64>| {
            (events / part).clamp(*bounds.start(), *bounds.end())
        };
        Self {
            events,
            snapshots: overrides
                .snapshot_bucket_max_bytes
                .unwrap_or_else(|| share(SNAPSHOTS_SHARE, SNAPSHOTS_BYTES)),
            samples: overrides
                .samples_max_bytes
                .unwrap_or_else(|| share(SAMPLES_SHARE, SAMPLES_BYTES)),
        }
    }

    /// The size of one stream; `None` if it is given otherwise.
    pub(crate) const fn of(&self, purpose: Purpose) -> Option<u64> {
        match purpose {
            Purpose::Pointers => Some(POINTERS_BYTES),
            Purpose::Snapshots => Some(self.snapshots),
            Purpose::Events => Some(self.events),
            Purpose::Samples => Some(self.samples),
            Purpose::Replay => None,
        }
    }

    /// The size of all streams together.
    pub(crate) const fn total(&self) -> u64 {
        POINTERS_BYTES
            .saturating_add(self.snapshots)
            .saturating_add(self.events.saturating_mul(EVENT_STREAMS))
            .saturating_add(self.samples)
    }

    /// The largest event stream, in whole MiB, with which all streams fit into an account; `None`
    /// if not even the smallest one does.
    pub(crate) fn events_that_fit(offer: u64, overrides: &TopologyOverrides) -> Option<u64> {
        let fits = |mebibytes: u64| {
            let event_stream_max_bytes = Some(mebibytes * MIB);
            let with = TopologyOverrides { event_stream_max_bytes, ..overrides.clone() };
            Self::new(&with).total() <= offer
        };
        let (mut fitting, mut too_large) = (EVENTS_BYTES_MIN / MIB, offer / MIB + 1);
        if !fits(fitting) {
            return None;
        }
        while too_large - fitting > 1 {
            let middle = fitting + (too_large - fitting) / 2;
            if fits(middle) {
                fitting = middle;
            } else {
                too_large = middle;
            }
        }
        Some(fitting * MIB)
    }

    /// The least room that an account needs, with the other sizes as they are set.
    pub(crate) fn least(overrides: &TopologyOverrides) -> u64 {
        let event_stream_max_bytes = Some(EVENTS_BYTES_MIN);
        Self::new(&TopologyOverrides { event_stream_max_bytes, ..overrides.clone() }).total()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(bytes: u64) -> TopologyOverrides {
        TopologyOverrides { event_stream_max_bytes: Some(bytes), ..TopologyOverrides::default() }
    }

    #[test]
    fn unless_set_everything_is_as_declared() {
        let room = Room::new(&TopologyOverrides::default());
        assert_eq!(room, Room { events: 4 << 30, snapshots: 1 << 30, samples: 256 << 20 });
        assert_eq!(room.total(), (9 << 30) + (272 << 20));
    }

    #[test]
    fn buckets_and_samples_follow_the_event_streams_within_bounds() {
        assert_eq!(Room::new(&events(1 << 30)).snapshots, 256 << 20);
        assert_eq!(Room::new(&events(1)).snapshots, 32 << 20);
        assert_eq!(Room::new(&events(100 << 30)).snapshots, 1 << 30);
        let set = TopologyOverrides {
            snapshot_bucket_max_bytes: Some(5),
            samples_max_bytes: Some(7),
            ..events(1 << 30)
        };
        assert_eq!(Room::new(&set), Room { events: 1 << 30, snapshots: 5, samples: 7 });
    }

    proptest! {
        #[test]
        fn what_is_said_to_fit_fits_and_a_mebibyte_more_does_not(offer in 0_u64..=64 << 30) {
            let none = TopologyOverrides::default();
            match Room::events_that_fit(offer, &none) {
                Some(bytes) => {
                    prop_assert!(Room::new(&events(bytes)).total() <= offer);
                    prop_assert!(Room::new(&events(bytes + MIB)).total() > offer);
                }
                None => prop_assert!(Room::least(&none) > offer),
            }
        }
    }
}
