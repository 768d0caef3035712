//! How much waits is asked of the stream, and a reader that gets nothing does not look healthy.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bus::backlog::{Backlog, BacklogLimits, BacklogWatch, SharedPosition};
use bus::{Bus, Topology, TopologyOverrides};
use domain::Rules;
use integration_tests::nats::NatsServer;
use integration_tests::raw_nats::RawNats;
use integration_tests::waiting::until;
use serde_json::json;
use service_kit::{Clock, Readiness};

/// Short, so that a standstill is noticed within the test.
const LIMITS: BacklogLimits =
    BacklogLimits { check: Duration::from_millis(5), stalled_after: Duration::from_millis(50) };

async fn with_messages(count: u64) -> (NatsServer, Bus, RawNats) {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = server.bus("test").await.unwrap();
    let topology = Topology::embedded("", &TopologyOverrides::default(), &Rules::default());
    bus.apply_topology(&topology).await.unwrap();
    let mut raw = RawNats::connect(server.port()).await.unwrap();
    for _ in 0..count {
        raw.publish("lake.access.0.x", "{}").await.unwrap();
    }
    (server, bus, raw)
}

#[tokio::test]
async fn what_waits_is_what_is_stored_after_the_position() {
    let (_server, bus, mut raw) = with_messages(10).await;
    let waits = async |after| bus.stored_after("LAKE_0", after).await.unwrap();
    assert_eq!((waits(0).await, waits(4).await, waits(10).await, waits(99).await), (10, 6, 0, 0));
    for sequence in [2, 6, 10] {
        raw.demand("STREAM.MSG.DELETE.LAKE_0", &json!({ "seq": sequence })).await.unwrap();
    }
    assert_eq!((waits(0).await, waits(4).await), (7, 4));
    // The last message was deleted: nothing waits, and nothing will ever come of it.
    assert_eq!(waits(9).await, 0);
    bus.trim("LAKE_0", 8).await.unwrap();
    assert_eq!((waits(0).await, waits(7).await, waits(8).await), (2, 2, 1));
    raw.demand("STREAM.PURGE.LAKE_0", &json!({})).await.unwrap();
    assert_eq!(waits(3).await, 0);
}

fn watch(
    bus: &Bus,
    stream: &str,
    position: &Arc<SharedPosition>,
    limits: BacklogLimits,
    readiness: &Readiness,
) -> BacklogWatch {
    BacklogWatch {
        bus: bus.clone(),
        stream: stream.to_owned(),
        position: Arc::clone(position),
        limits,
        condition: readiness.condition("backlog"),
        done: "counted",
        clock: Clock::system(),
    }
}

#[tokio::test]
async fn a_position_that_stands_still_while_messages_wait_is_not_ready_and_says_why() {
    let (_server, bus, mut raw) = with_messages(3).await;
    let readiness = Readiness::default();
    let (position, last) = (Arc::<SharedPosition>::default(), Mutex::new(None));
    let told = |backlog: &Backlog| *last.lock().unwrap() = Some(*backlog);
    let watch = watch(&bus, "LAKE_0", &position, LIMITS, &readiness);
    let course = async {
        until("a position that nobody knows", async || Ok(!readiness.is_ready())).await.unwrap();
        position.moved(0);
        until("a reader that gets nothing", async || {
            Ok(readiness
                .describe()
                .contains("3 messages wait behind message 0, and none was counted"))
        })
        .await
        .unwrap();
        assert!(!readiness.is_ready());
        position.moved(3);
        until("nothing waits", async || Ok(readiness.is_ready())).await.unwrap();
        until("lag 0", async || Ok(last.lock().unwrap().and_then(|it| it.messages) == Some(0)))
            .await
            .unwrap();
        raw.publish("lake.access.0.x", "{}").await.unwrap();
        until("it waits", async || Ok(!readiness.is_ready())).await.unwrap();
        position.stands_by();
        until("it is another's", async || Ok(readiness.is_ready())).await.unwrap();
    };
    tokio::select! {
        never = watch.run(told) => match never {},
        () = course => {}
    }
}

#[tokio::test]
async fn who_has_not_heard_yet_how_much_waits_is_not_ready() {
    let (_server, bus, _raw) = with_messages(1).await;
    let readiness = Readiness::default();
    let (position, looks) = (Arc::<SharedPosition>::default(), AtomicU64::new(0));
    position.moved(0);
    let told = |_: &Backlog| {
        looks.fetch_add(1, Ordering::Relaxed);
    };
    let patient = BacklogLimits { stalled_after: Duration::from_secs(3_600), ..LIMITS };
    let watch = watch(&bus, "NONE", &position, patient, &readiness);
    let mut watch = std::pin::pin!(watch.run(told));
    // Polled once: the first question is on its way.
    let begun = std::future::poll_fn(|context| Poll::Ready(watch.as_mut().poll(context)));
    assert!(begun.await.is_pending() && looks.load(Ordering::Relaxed) == 0);
    let looked = until("some looks", async || {
        assert!(!readiness.is_ready(), "after {looks:?} answers");
        Ok(looks.load(Ordering::Relaxed) > 2)
    });
    tokio::select! {
        never = &mut watch => match never {},
        looked = looked => looked.unwrap(),
    }
    let said = readiness.describe();
    assert!(said.contains("whether messages wait"), "{said}");
}
