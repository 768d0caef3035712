//! Snapshots and epochs change hands by compare-and-set, and a full pipeline does not stop them.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bus::{Bus, BusError, FoundSnapshot, PublisherLimits, Snapshots, Topology, TopologyOverrides};
use domain::{Mark, Rules};
use integration_tests::nats::NatsServer;
use integration_tests::raw_nats::RawNats;
use serde_json::{Value, json};
use wire::Sealed;

/// Far above what any condition here takes, and below what a person waits for.
const DEADLINE: Duration = Duration::from_secs(60);

async fn bus_with_streams(server: &NatsServer) -> Bus {
    let bus = server.bus("test").await.expect("a connection");
    let small =
        TopologyOverrides { event_stream_max_bytes: Some(1 << 20), ..TopologyOverrides::default() };
    let topology = Topology::embedded("", &small, &Rules::default());
    bus.apply_topology(&topology).await.expect("the streams");
    bus
}

fn mark(sequence: u64) -> Mark {
    Mark { epoch: 3, sequence, broker_ns: 1_763_880_180_123_456_789, created_ns: 17 }
}

/// Bytes that no compression or repetition makes small.
fn state(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

async fn found(snapshots: &Snapshots, stream: &str) -> (u64, FoundSnapshot) {
    let loaded = snapshots.load(stream).await.expect("an answer");
    (loaded.revision, loaded.found)
}

/// Messages in the object store, of one kind: `C` for pieces, `M` for names.
async fn objects(raw: &mut RawNats, kind: &str) -> usize {
    let filter = format!("$O.LAKEGAUGE_SNAPSHOTS.{kind}.>");
    let info = raw
        .demand("STREAM.INFO.OBJ_LAKEGAUGE_SNAPSHOTS", &json!({ "subjects_filter": filter }))
        .await
        .expect("the bucket");
    info["state"]["subjects"].as_object().map_or(0, serde_json::Map::len)
}

#[tokio::test]
async fn a_snapshot_comes_back_bit_for_bit_with_its_mark() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    let snapshots = bus.snapshots();
    assert_eq!(found(&snapshots, "LAKE_0").await, (0, FoundSnapshot::Nothing));
    let mut revision = 0;
    for (sequence, length) in [(1, 0), (2, 1), (3, 512 * 1_024), (4, 5_000_001)] {
        let bytes = state(sequence, length);
        revision = snapshots.store("LAKE_0", &bytes, &mark(sequence), revision).await.unwrap();
        let (now, FoundSnapshot::Whole(pointer, loaded)) = found(&snapshots, "LAKE_0").await else {
            panic!("no snapshot")
        };
        assert_eq!((now, pointer.mark), (revision, mark(sequence)));
        assert_eq!(pointer.bytes, u64::try_from(length).unwrap());
        assert!(loaded == bytes, "other bytes of length {}", loaded.len());
        let (named, named_revision) = snapshots.pointer("LAKE_0").await.unwrap().unwrap();
        assert_eq!((named, named_revision), (pointer, revision));
    }
    assert_eq!(found(&snapshots, "WAREHOUSE_0").await, (0, FoundSnapshot::Nothing));
}

#[tokio::test]
async fn old_snapshots_leave_no_bytes_and_no_tombstones_behind() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    let snapshots = bus.snapshots();
    let mut raw = RawNats::connect(server.port()).await.unwrap();
    let other = state(0, 100_000);
    snapshots.store("WAREHOUSE_0", &other, &mark(1), 0).await.unwrap();
    let mut revision = 0;
    for sequence in 1..=20 {
        let bytes = state(sequence, 1_000_000);
        revision = snapshots.store("LAKE_0", &bytes, &mark(sequence), revision).await.unwrap();
    }
    assert_eq!((objects(&mut raw, "M").await, objects(&mut raw, "C").await), (2, 2));
    let (_, FoundSnapshot::Whole(_, loaded)) = found(&snapshots, "WAREHOUSE_0").await else {
        panic!("the other stream's snapshot is gone")
    };
    assert!(loaded == other);
}

#[tokio::test]
async fn what_is_no_object_of_ours_is_left_and_old_snapshots_go_all_the_same() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    let snapshots = bus.snapshots();
    let mut raw = RawNats::connect(server.port()).await.unwrap();
    // Subjects are swept in their order: before ours and behind it.
    for name in ["!", "~"] {
        raw.publish(&format!("$O.LAKEGAUGE_SNAPSHOTS.M.{name}"), "no object").await.unwrap();
    }
    let mut revision = 0;
    for sequence in 1..=5 {
        let bytes = state(sequence, 1_000);
        revision = snapshots.store("LAKE_0", &bytes, &mark(sequence), revision).await.unwrap();
    }
    assert_eq!((objects(&mut raw, "M").await, objects(&mut raw, "C").await), (3, 1));
    assert!(matches!(found(&snapshots, "LAKE_0").await.1, FoundSnapshot::Whole(..)));
}

#[tokio::test]
async fn of_two_owners_only_one_can_store() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    let snapshots = bus.snapshots();
    let first = snapshots.store("LAKE_0", &state(1, 1_000), &mark(1), 0).await.unwrap();
    for stale in [0, first - 1, first + 1] {
        let error = snapshots.store("LAKE_0", &state(2, 1_000), &mark(2), stale).await.unwrap_err();
        assert!(matches!(error, BusError::Superseded { .. }), "{error}");
    }
    let (revision, FoundSnapshot::Whole(pointer, _)) = found(&snapshots, "LAKE_0").await else {
        panic!("no snapshot")
    };
    assert_eq!((revision, pointer.mark.sequence), (first, 1));
    // What the losers uploaded goes with the winner's next snapshot.
    snapshots.store("LAKE_0", &state(3, 1_000), &mark(3), first).await.unwrap();
    let mut raw = RawNats::connect(server.port()).await.unwrap();
    assert_eq!((objects(&mut raw, "M").await, objects(&mut raw, "C").await), (1, 1));
}

#[tokio::test]
async fn what_a_crash_left_behind_is_deleted_once_it_is_old_and_nothing_else_is() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    let mut raw = RawNats::connect(server.port()).await.unwrap();
    bus.snapshots().store("WAREHOUSE_0", &state(0, 1_000), &mark(1), 0).await.unwrap();
    // Pieces whose name was never written.
    raw.publish("$O.LAKEGAUGE_SNAPSHOTS.C.half", "half of a snapshot").await.unwrap();
    let young = bus.snapshots();
    let revision = young.store("LAKE_0", &state(1, 1_000), &mark(1), 0).await.unwrap();
    assert_eq!((objects(&mut raw, "M").await, objects(&mut raw, "C").await), (2, 3));
    let old = bus.snapshots().with_left_behind_age(Duration::ZERO);
    old.store("LAKE_0", &state(2, 1_000), &mark(2), revision).await.unwrap();
    assert_eq!((objects(&mut raw, "M").await, objects(&mut raw, "C").await), (2, 2));
    for stream in ["LAKE_0", "WAREHOUSE_0"] {
        assert!(matches!(found(&old, stream).await.1, FoundSnapshot::Whole(..)));
    }
}

#[tokio::test]
async fn damage_is_found_and_another_snapshot_heals_it() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    let snapshots = bus.snapshots();
    let mut raw = RawNats::connect(server.port()).await.unwrap();
    let mut revision = snapshots.store("LAKE_0", &state(1, 2_000_000), &mark(1), 0).await.unwrap();
    // One piece of the object is gone.
    let piece = json!({ "seq": 1, "next_by_subj": "$O.LAKEGAUGE_SNAPSHOTS.C.>" });
    let get = "STREAM.MSG.GET.OBJ_LAKEGAUGE_SNAPSHOTS";
    let sequence = raw.demand(get, &piece).await.unwrap()["message"]["seq"].clone();
    raw.demand("STREAM.MSG.DELETE.OBJ_LAKEGAUGE_SNAPSHOTS", &json!({ "seq": sequence }))
        .await
        .unwrap();
    assert!(
        matches!(found(&snapshots, "LAKE_0").await, (r, FoundSnapshot::Damaged(_)) if r == revision)
    );
    revision = snapshots.store("LAKE_0", &state(2, 10), &mark(2), revision).await.unwrap();
    // The whole object is gone.
    let everything = json!({ "filter": "$O.LAKEGAUGE_SNAPSHOTS.>" });
    raw.demand("STREAM.PURGE.OBJ_LAKEGAUGE_SNAPSHOTS", &everything).await.unwrap();
    assert!(
        matches!(found(&snapshots, "LAKE_0").await, (r, FoundSnapshot::Damaged(_)) if r == revision)
    );
    revision = snapshots.store("LAKE_0", &state(3, 10), &mark(3), revision).await.unwrap();
    assert!(
        matches!(found(&snapshots, "LAKE_0").await, (r, FoundSnapshot::Whole(..)) if r == revision)
    );
    // The pointer names another digest than the bytes have.
    let entry = pointer_json(&mut raw).await;
    let mut forged = entry.clone();
    forged["digest"] = json!("00");
    raw.publish("$KV.LAKEGAUGE.snapshot.LAKE_0", &forged.to_string()).await.unwrap();
    let (revision, damaged) = found(&snapshots, "LAKE_0").await;
    assert!(
        matches!(damaged, FoundSnapshot::Damaged(why) if why.contains("does not have the bytes"))
    );
    // The pointer is no pointer, or another stream's.
    let mut others = entry;
    others["stream"] = json!("LAKE_1");
    for text in ["hello".to_owned(), others.to_string()] {
        raw.publish("$KV.LAKEGAUGE.snapshot.LAKE_0", &text).await.unwrap();
        assert!(matches!(found(&snapshots, "LAKE_0").await.1, FoundSnapshot::Damaged(_)));
    }
    snapshots.store("LAKE_0", &state(4, 10), &mark(4), revision + 2).await.unwrap();
    assert!(matches!(found(&snapshots, "LAKE_0").await.1, FoundSnapshot::Whole(..)));
}

async fn pointer_json(raw: &mut RawNats) -> Value {
    let last = json!({ "last_by_subj": "$KV.LAKEGAUGE.snapshot.LAKE_0" });
    let answer = raw.demand("STREAM.MSG.GET.KV_LAKEGAUGE", &last).await.expect("the pointer");
    let data = answer["message"]["data"].as_str().expect("its bytes").to_owned();
    serde_json::from_slice(&STANDARD.decode(data).expect("base64")).expect("JSON")
}

#[tokio::test]
async fn a_full_event_stream_does_not_stop_snapshots_and_epochs() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    let publisher = bus.publisher(PublisherLimits::default(), |_| {});
    let progress = publisher.progress();
    for number in 0..12 {
        let payload = state(number, 100_000);
        let sealed = Sealed::new("lake.access.0.test".to_owned(), "application/json", payload, 1);
        publisher.publish(sealed).await.unwrap();
    }
    tokio::time::timeout(DEADLINE, async {
        while !progress.is_full() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    let revision =
        bus.snapshots().store("LAKE_0", &state(1, 3_000_000), &mark(1), 0).await.unwrap();
    assert!(
        matches!(found(&bus.snapshots(), "LAKE_0").await, (r, FoundSnapshot::Whole(..)) if r == revision)
    );
    assert_eq!(bus.epochs().raise("LAKE_0", 0).await, Ok(1));
    assert!(progress.is_full());
}

#[tokio::test]
async fn two_that_find_the_same_trouble_agree_on_one_epoch() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    let epochs = bus.epochs();
    assert_eq!(epochs.get("LAKE_0").await, Ok(None));
    let mut finders = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let epochs = epochs.clone();
        finders.spawn(async move { epochs.raise("LAKE_0", 4).await });
    }
    for agreed in finders.join_all().await {
        assert_eq!(agreed, Ok(5));
    }
    assert_eq!(epochs.get("LAKE_0").await, Ok(Some(5)));
    assert_eq!(epochs.raise("LAKE_0", 5).await, Ok(6));
    assert_eq!(epochs.raise("LAKE_0", 2).await, Ok(6), "raised above it already");
    assert_eq!(epochs.get("WAREHOUSE_0").await, Ok(None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_sees_every_raise_also_across_a_killed_server() {
    let mut server = NatsServer::start().await.unwrap();
    let bus = bus_with_streams(&server).await;
    let other = server.bus("other").await.unwrap();
    let watch = |epoch| bus.epochs().watch("LAKE_0", epoch, Duration::from_millis(20));
    let (mut before_1, mut before_2) = (watch(0), watch(1));
    assert_eq!(bus.epochs().get("LAKE_0").await, Ok(None));
    other.epochs().raise("LAKE_0", 0).await.unwrap();
    let superseded = tokio::time::timeout(DEADLINE, before_1.superseded()).await.unwrap();
    assert_eq!(superseded, Ok(1));
    server.kill();
    server.restart().await.unwrap();
    let raised = async {
        loop {
            match other.epochs().raise("LAKE_0", 1).await {
                Ok(epoch) => return epoch,
                Err(error) => assert_eq!(error.recovery(), bus::Recovery::Retry, "{error}"),
            }
        }
    };
    assert_eq!(tokio::time::timeout(DEADLINE, raised).await.unwrap(), 2);
    let superseded = tokio::time::timeout(DEADLINE, before_2.superseded()).await.unwrap();
    assert_eq!(superseded, Ok(2));
}

#[tokio::test]
async fn who_claims_the_snapshots_keeps_every_owner_before_from_storing_one() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = bus_with_streams(&server).await;
    let snapshots = bus.snapshots();
    let store = |seed, revision| {
        let snapshots = snapshots.clone();
        async move { snapshots.store("LAKE_0", &state(seed, 1_000), &mark(seed), revision).await }
    };
    // Nothing was stored yet, and the first owner falls asleep.
    let first = snapshots.claim("LAKE_0", 0).await.unwrap();
    assert_eq!(found(&snapshots, "LAKE_0").await, (first, FoundSnapshot::Nothing));
    let second = snapshots.claim("LAKE_0", first).await.unwrap();
    assert!(matches!(store(1, first).await, Err(BusError::Superseded { .. })));
    let stored = store(2, second).await.unwrap();
    // One that claims what it has not seen is told to look again.
    assert!(matches!(snapshots.claim("LAKE_0", second).await, Err(BusError::Superseded { .. })));
    let third = snapshots.claim("LAKE_0", stored).await.unwrap();
    assert!(matches!(store(3, stored).await, Err(BusError::Superseded { .. })));
    // What is in force stays so.
    let (now, FoundSnapshot::Whole(pointer, bytes)) = found(&snapshots, "LAKE_0").await else {
        panic!("no snapshot")
    };
    assert_eq!((now, pointer.mark), (third, mark(2)));
    assert!(bytes == state(2, 1_000));
    assert_eq!(snapshots.pointer("LAKE_0").await.unwrap(), Some((pointer, third)));
    store(4, third).await.unwrap();
}
