//! Messages that no client can read, on every stream: both services go on, and the bytes are kept.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use domain::{Event, EventId, Fact, Operation, Outcome, Timestamp};
use integration_tests::executable::{self, Ended};
use integration_tests::pipeline::{Part, Pipeline};
use integration_tests::raw_nats::RawNats;
use integration_tests::unreadable::{self, Form, SUBJECTS, forms, statuses};
use integration_tests::waiting::until;
use service_kit::Clock;
use wire::json::encode_line;

use crate::audit::is_well;
use crate::store_events::access;

/// Subjects of late events, which nothing may follow.
const LATE: [&[u8]; 2] = [b"lake.late.0", b"warehouse.late.0"];

struct Poisoned {
    pipeline: Pipeline,
    raw: RawNats,
    written: u64,
}

impl Poisoned {
    async fn start() -> Self {
        let mut pipeline = Pipeline::start(&[("ARCHIVER_STREAM_KEEP_S", "0")]).await.unwrap();
        pipeline.run(Part::Archiver).unwrap();
        pipeline.run(Part::Aggregator).unwrap();
        until("first scrape", async || Ok(pipeline.four()?.is_some())).await.unwrap();
        let raw = RawNats::connect(pipeline.nats.port()).await.unwrap();
        Self { pipeline, raw, written: 0 }
    }

    /// A write of its own object, as JSON.
    fn write(&mut self) -> String {
        self.written += 1;
        let mut event: Event = access(self.written, 0);
        event.id = EventId::from_bytes(u128::from(self.written).to_be_bytes());
        event.occurred_at = Timestamp(Clock::system().now_us());
        if let Fact::LakeAccess(access) = &mut event.fact {
            (access.operation, access.outcome) = (Operation::Write, Outcome::Ok);
            (access.bytes, access.object_bytes) = (1_000, Some(1_000));
            access.key = format!("key-{}", self.written);
        }
        encode_line(&event)
    }

    async fn good(&mut self) {
        let line = self.write();
        self.raw.publish("lake.access.0.good", &line).await.unwrap();
    }

    async fn bad(&mut self, beginning: &str, form: &Form) {
        let line = self.write();
        unreadable::publish(&mut self.raw, beginning, form, line.as_bytes()).await.unwrap();
    }

    fn letters(&self) -> i64 {
        let letters = "select count(*) from lakegauge.dead_letter where reason = 12";
        self.pipeline.database.number(letters).unwrap()
    }

    /// Both services have read everything, and say that so many accesses were counted.
    async fn counts(&self, accesses: i32) {
        self.pipeline.rest().await.unwrap();
        let rows = self.pipeline.database.number("select count(*) from lakegauge.lake_access");
        assert_eq!(rows.unwrap(), i64::from(accesses));
        assert_eq!(self.pipeline.shown().await.unwrap()[1], f64::from(accesses));
        is_well(&self.pipeline);
    }

    fn tool(&self, words: &[&str]) -> Ended {
        let mut arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        arguments.extend(["--database-url".to_owned(), self.pipeline.database.archiver_url()]);
        if words.contains(&"retry") {
            arguments.extend(["--nats-url".to_owned(), self.pipeline.nats.url()]);
        }
        executable::run(arguments, b"").unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_no_client_can_read_is_a_letter_and_stops_nothing_on_any_stream() {
    let mut here = Poisoned::start().await;
    let (mut good, mut bad) = (0, 0);
    for form in forms() {
        for beginning in SUBJECTS {
            here.bad(beginning, &form).await;
            bad += 1;
        }
        for subject in LATE.iter().filter(|_| form.token == b"raw") {
            here.raw.publish_bytes(subject, &form.block, b"late").await.unwrap();
            bad += 1;
        }
        here.good().await;
        good += 1;
    }
    here.counts(good).await;
    assert_eq!(here.letters(), bad);
    for part in [Part::Archiver, Part::Aggregator] {
        here.pipeline.part(part).unwrap().ready().await.unwrap();
    }
    let verified = here.pipeline.tool(["replay", "--verify"], &here.pipeline.database.reader_url());
    let verified = verified.unwrap();
    assert_eq!(verified.status, Some(0), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_services_start_again_at_a_message_that_no_client_can_read_and_trim_to_it() {
    let mut here = Poisoned::start().await;
    here.good().await;
    let form = forms().swap_remove(0);
    for beginning in ["lake.access.0.", "warehouse.query.0.", "telemetry.sample."] {
        here.bad(beginning, &form).await;
    }
    here.counts(1).await;
    // The checkpoint's own message, and the snapshot's own.
    for part in [Part::Archiver, Part::Aggregator] {
        here.pipeline.stop(part).await.unwrap();
        here.pipeline.run(part).unwrap();
    }
    here.pipeline.rest().await.unwrap();
    let bus = here.pipeline.bus().await.unwrap();
    until("trimmed to it", async || {
        let status = bus.stream("LAKE_0").await?;
        Ok(status.first_sequence == 2 && status.last_sequence == 2)
    })
    .await
    .unwrap();
    here.good().await;
    here.counts(2).await;
    assert_eq!(bus.epochs().get("LAKE_0").await, Ok(Some(1)), "the stream is the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_with_a_status_in_its_headers_is_no_end_of_the_stream() {
    let mut here = Poisoned::start().await;
    let mut accesses = 0;
    for form in statuses() {
        here.bad("lake.access.0.", &form).await;
        here.good().await;
        accesses += 1;
    }
    here.pipeline.rest().await.unwrap();
    let rows = here.pipeline.database.number("select count(*) from lakegauge.lake_access").unwrap();
    // What the server took the status from is an event like any other.
    assert_eq!(rows + here.letters(), 2 * accesses);
    is_well(&here.pipeline);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_letter_shows_headers_and_body_and_its_body_can_be_retried() {
    let mut here = Poisoned::start().await;
    let form = forms().swap_remove(0);
    here.bad("lake.access.0.", &form).await;
    here.counts(0).await;
    let shown = here.tool(&["dead-letters", "show", "1"]).stdout;
    for part in ["unreadable_headers", "of the bytes, which can't be read", "key-1"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let retried = here.tool(&["dead-letters", "retry", "1"]);
    assert_eq!(retried.status, Some(0), "{retried:?}");
    here.counts(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_who_look_on_see_the_message_and_what_follows() {
    let mut here = Poisoned::start().await;
    let tail = here.pipeline.spawn_tool(&["tail", "lake.access.>"]).unwrap();
    let begun = until("a line", async || {
        here.good().await;
        Ok(tail.log().contains("key-"))
    });
    begun.await.unwrap();
    for form in forms() {
        here.bad("lake.access.0.", &form).await;
    }
    here.good().await;
    let last = format!("key-{}", here.written);
    until("the event behind them", async || Ok(tail.log().contains(&last))).await.unwrap();
    let log = tail.log();
    let told = log.lines().filter(|line| line.starts_with("! lake.access.0.")).count();
    assert_eq!(told, forms().len(), "{log}");
}
