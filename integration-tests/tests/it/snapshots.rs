//! Snapshots that can't be gone on from: refused, said, counted, and the state comes from the archive.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use bus::{Bus, FoundSnapshot, PublisherLimits};
use bytes::Bytes;
use domain::{Event, Mark};
use integration_tests::pipeline::{Part, Pipeline, STREAMS};
use integration_tests::raw_nats::RawNats;
use integration_tests::waiting::until;
use serde_json::json;
use wire::{Format, Subjects, seal, snapshot::SNAPSHOT_VERSION};

use crate::laws;
use crate::store_events::{access, query};

const LAKE: &str = "LAKE_0";

/// What is wrong with the snapshot of the lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// Another release wrote it.
    Version,
    /// One bit of it is another, and the pointer agrees.
    Bit,
    /// It ends in the middle, and the pointer agrees.
    Cut,
    /// The pointer names an object whose last piece never came.
    HalfWritten,
    /// The pointer names nothing.
    Gone,
    /// The pointer is no pointer.
    Pointer,
    /// It is of an epoch that nobody knows of.
    Epoch,
    /// The stream no longer has what comes after it.
    Older,
}

impl Wrong {
    const ALL: [Self; 8] = [
        Self::Version,
        Self::Bit,
        Self::Cut,
        Self::HalfWritten,
        Self::Gone,
        Self::Pointer,
        Self::Older,
        Self::Epoch,
    ];

    const fn reason(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Bit | Self::Cut | Self::HalfWritten | Self::Gone | Self::Pointer => "damaged",
            Self::Epoch => "epoch",
            Self::Older => "out_of_reach",
        }
    }

    /// Makes the stored snapshot wrong.
    async fn make(self, bus: &Bus, operator: &mut RawNats, old: &(Mark, Bytes)) {
        let loaded = bus.snapshots().load(LAKE).await.unwrap();
        let FoundSnapshot::Whole(pointer, bytes) = loaded.found else {
            panic!("{:?}", loaded.found)
        };
        let store = async |bytes: &[u8], mark: &Mark| {
            bus.snapshots().store(LAKE, bytes, mark, loaded.revision).await.unwrap();
        };
        let mut changed = bytes.to_vec();
        match self {
            Self::Version => {
                changed[0] = SNAPSHOT_VERSION + 1;
                store(&changed, &pointer.mark).await;
            }
            Self::Bit => {
                let middle = changed.len() / 2;
                changed[middle] ^= 4;
                store(&changed, &pointer.mark).await;
            }
            Self::Cut => store(&bytes[..bytes.len() / 2], &pointer.mark).await,
            Self::HalfWritten => {
                // Several pieces, as a large state has them.
                store(&bytes.repeat((2 << 20) / bytes.len() + 1), &pointer.mark).await;
                let listed = json!({ "subjects_filter": "$O.LAKEGAUGE_SNAPSHOTS.C.>" });
                let stream = "STREAM.INFO.OBJ_LAKEGAUGE_SNAPSHOTS";
                let info = operator.demand(stream, &listed).await.unwrap();
                let (sequence, stream) = (&info["state"]["last_seq"], "OBJ_LAKEGAUGE_SNAPSHOTS");
                // The name of the object is the last message, its last piece the one before it.
                let piece = json!({ "seq": sequence.as_u64().unwrap() - 1 });
                operator.demand(&format!("STREAM.MSG.DELETE.{stream}"), &piece).await.unwrap();
            }
            Self::Gone => {
                let all = json!({});
                operator.demand("STREAM.PURGE.OBJ_LAKEGAUGE_SNAPSHOTS", &all).await.unwrap();
            }
            Self::Pointer => {
                let subject = "$KV.LAKEGAUGE.snapshot.LAKE_0";
                operator.publish(subject, "no pointer at all").await.unwrap();
            }
            Self::Epoch => {
                let mark = Mark { epoch: pointer.mark.epoch + 5, ..pointer.mark };
                let (state, _) = wire::snapshot::decode_state(&bytes).unwrap();
                store(&wire::snapshot::encode_state(&state, &mark), &mark).await;
            }
            Self::Older => store(&old.1, &old.0).await,
        }
    }
}

async fn publish(pipeline: &Pipeline, numbers: std::ops::Range<u64>) {
    let bus = pipeline.bus().await.unwrap();
    let publisher = bus.publisher(PublisherLimits::default(), |_| {});
    for number in numbers {
        for event in [access(2 * number, 1), query(2 * number + 1, 1)] {
            let subject = Subjects::new("").of(&event.fact, 0, "test");
            let events: [Event; 1] = [event];
            publisher.publish(seal(&subject, Format::Json, &events)).await.unwrap();
        }
    }
    publisher.flush().await.unwrap();
}

/// Waits until the stream begins at its end: everything before it is trimmed.
async fn trimmed(pipeline: &Pipeline, bus: &Bus) {
    let trimmed = until("trimmed streams", async || {
        let mut all = true;
        for name in STREAMS {
            let status = bus.stream(name).await?;
            all &= status.first_sequence == status.last_sequence;
        }
        Ok(all)
    });
    let log = || pipeline.part(Part::Archiver).unwrap().log();
    trimmed.await.unwrap_or_else(|error| panic!("{error}\n{}", log()));
}

async fn whole(bus: &Bus) -> (Mark, Bytes) {
    match bus.snapshots().load(LAKE).await.unwrap().found {
        FoundSnapshot::Whole(pointer, bytes) => (pointer.mark, bytes),
        found @ (FoundSnapshot::Nothing | FoundSnapshot::Damaged(_)) => panic!("{found:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_cannot_be_gone_on_from_is_refused_said_counted_and_rebuilt() {
    // Nothing stays in the streams that both services have passed: without the snapshot only the
    // archive knows what was.
    let mut pipeline = Pipeline::start(&[("ARCHIVER_STREAM_KEEP_S", "0")]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let bus = pipeline.bus().await.unwrap();
    let mut operator = RawNats::connect(pipeline.nats.port()).await.unwrap();
    publish(&pipeline, 0..20).await;
    trimmed(&pipeline, &bus).await;
    let old = whole(&bus).await;
    publish(&pipeline, 20..40).await;
    let mut next = 40;
    for wrong in Wrong::ALL {
        pipeline.rest().await.unwrap();
        trimmed(&pipeline, &bus).await;
        let before = pipeline.shown().await.unwrap();
        pipeline.stop(Part::Aggregator).await.unwrap();
        wrong.make(&bus, &mut operator, &old).await;
        pipeline.run(Part::Aggregator).unwrap();
        let shown = until("the metrics", async || Ok(pipeline.four()?.is_some())).await;
        let aggregator = pipeline.part(Part::Aggregator).unwrap();
        shown.unwrap_or_else(|error| panic!("{wrong:?}: {error}\n{}", aggregator.log()));
        assert_eq!(pipeline.shown().await.unwrap(), before, "{wrong:?}");
        let log = aggregator.log();
        assert!(log.contains("refused"), "{wrong:?}: {log}");
        let refused = format!(
            "lakegauge_aggregator_snapshots_refused_total{{reason=\"{}\",stream=\"{LAKE}\"}}",
            wrong.reason()
        );
        assert_eq!(aggregator.metric(&refused), Some(1.0), "{wrong:?}: {log}");
        let rebuilds = format!("lakegauge_aggregator_rebuilds_total{{stream=\"{LAKE}\"}}");
        assert_eq!(aggregator.metric(&rebuilds), Some(1.0), "{wrong:?}: {log}");
        publish(&pipeline, next..next + 5).await;
        next += 5;
    }
    pipeline.rest().await.unwrap();
    laws::snapshot_equals_the_fold(&pipeline, domain::Stream::lake(0)).await;
    laws::snapshot_equals_the_fold(&pipeline, domain::Stream::warehouse(0)).await;
}
