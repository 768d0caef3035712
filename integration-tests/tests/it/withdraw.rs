//! `lakegauge withdraw`: what a source reported wrongly counts no longer, and nothing is deleted.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use bus::PublisherLimits;
use domain::{Event, EventId, Fact, LakeAccess, Operation, Outcome, Timestamp};
use integration_tests::executable::{self, Ended};
use integration_tests::pipeline::{Part, Pipeline, four};
use integration_tests::waiting::until;
use serde_json::{Value, json};
use test_support::withdrawn;
use wire::{Sealed, json::encode_line};

use crate::audit::is_well;
use crate::rollups::roll_up_by_name;
use crate::store_events::{access, query};

/// A pipeline that runs, and what publishes to it.
struct Published {
    pipeline: Pipeline,
}

impl Published {
    async fn start() -> Self {
        let mut pipeline = Pipeline::start(&[]).await.unwrap();
        pipeline.run(Part::Archiver).unwrap();
        pipeline.run(Part::Aggregator).unwrap();
        until("first scrape", async || Ok(pipeline.four()?.is_some())).await.unwrap();
        Self { pipeline }
    }

    /// Publishes lines as one message of a source, and waits until they are counted.
    async fn publish(&self, subject: &str, lines: &[String]) {
        let bus = self.pipeline.bus().await.unwrap();
        let publisher = bus.publisher(PublisherLimits::default(), |_| {});
        let payload = lines.join("\n");
        let sealed = Sealed::new(subject.to_owned(), "application/json", payload, lines.len());
        publisher.publish(sealed).await.unwrap();
        publisher.flush().await.unwrap();
        self.pipeline.rest().await.unwrap();
    }

    async fn report(&self, source: &str, events: &[Event]) {
        let subject = wire::Subjects::default().of(&events[0].fact, 0, source);
        let lines: Vec<String> = events.iter().map(encode_line).collect();
        self.publish(&subject, &lines).await;
    }

    fn withdraw(&self, words: &[&str]) -> Ended {
        let mut arguments = vec!["withdraw".to_owned()];
        arguments.extend(words.iter().map(|word| (*word).to_owned()));
        arguments.extend(["--database-url".to_owned(), self.pipeline.database.archiver_url()]);
        arguments.extend(["--nats-url".to_owned(), self.pipeline.nats.url()]);
        executable::run(arguments, b"").unwrap()
    }

    /// Runs it and demands its exit status; gives what it said.
    fn ends(&self, status: i32, words: &[&str]) -> String {
        let ended = self.withdraw(words);
        assert_eq!(ended.status, Some(status), "{words:?}: {ended:?}");
        ended.stderr
    }

    fn metric(&self, series: &str) -> Option<f64> {
        integration_tests::http::metric(self.pipeline.metrics_port(), series)
    }

    /// What windows and days add up to, by each length and table: events, bytes and rows.
    async fn sums(&self) -> BTreeMap<String, String> {
        let database = &self.pipeline.database;
        roll_up_by_name(database, "LAKE_0").await;
        roll_up_by_name(database, "WAREHOUSE_0").await;
        [
            "select 'lake ' || length_s, sum(events), sum(bytes), sum(duration_us) \
             from lakegauge.lake_window group by 1",
            "select 'warehouse ' || length_s, sum(events), sum(rows_processed), sum(response_us) \
             from lakegauge.warehouse_window group by 1",
            "select 'lake day', sum(events), sum(bytes), sum(duration_us) from lakegauge.lake_day",
            "select 'warehouse day', sum(events), sum(rows_processed), sum(queued_us + executed_us) \
             from lakegauge.warehouse_day",
            "select 'patterns', sum(events), sum(bytes_scanned), count(*) \
             from lakegauge.pattern_day",
            "select 'stored', string_agg(key || ' ' || bytes, ', ' order by key) \
             from lakegauge_api.stored_object",
            "select 'growth', sum(bytes), sum(objects) from lakegauge_api.lake_growth",
        ]
        .iter()
        .flat_map(|sql| database.sql(sql).unwrap())
        .map(|row| {
            let (name, sums) = row.split_once('|').unwrap();
            (name.to_owned(), sums.to_owned())
        })
        .collect()
    }

    /// Verify and audit find nothing, and the aggregator says the same after it was made anew from
    /// the archive.
    async fn holds(&mut self) {
        let words = ["replay", "--verify", "--json"];
        let ended = self.pipeline.tool(words, &self.pipeline.database.reader_url()).unwrap();
        assert_eq!(ended.status, Some(0), "{}{}", ended.stdout, ended.stderr);
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(report["identical"], json!(true), "{report:#}");
        is_well(&self.pipeline);
        let before = self.pipeline.shown().await.unwrap();
        self.pipeline.kill(Part::Aggregator).unwrap();
        self.pipeline.run(Part::Aggregator).unwrap();
        self.pipeline.rest().await.unwrap();
        assert_eq!(four(self.pipeline.metrics_port()).unwrap().unwrap(), before);
    }
}

fn change(number: u64, second: i64, operation: Operation, key: &str, bytes: u64) -> Event {
    let event = access(number, second);
    let Fact::LakeAccess(fact) = event.fact else { unreachable!("a request") };
    let fact = LakeAccess {
        bucket: "raw".to_owned(),
        key: key.to_owned(),
        operation,
        bytes,
        object_bytes: (operation != Operation::Delete).then_some(bytes),
        sequencer: None,
        outcome: Outcome::Ok,
        ..fact
    };
    Event { fact: Fact::LakeAccess(fact), ..event }
}

fn right() -> Vec<Event> {
    vec![
        change(1, 10, Operation::Write, "overwritten", 1_000),
        change(2, 11, Operation::Write, "deleted", 200),
        change(3, 12, Operation::Write, "own", 30),
        change(4, 13, Operation::Read, "own", 30),
    ]
}

fn wrong() -> Vec<Event> {
    vec![
        change(101, 20, Operation::Write, "overwritten", 7),
        change(102, 21, Operation::Write, "overwritten", 8),
        change(103, 22, Operation::Delete, "deleted", 0),
        change(104, 23, Operation::Write, "only wrong", 5_000),
        change(105, 24, Operation::Read, "own", 30),
        change(106, 25, Operation::Write, "written later", 9),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawn_source_leaves_what_was_there_without_it_and_no_row_is_deleted() {
    let mut published = Published::start().await;
    published.report("right", &right()).await;
    published.report("right", &[query(11, 10), query(12, 11)]).await;
    let later = change(5, 40, Operation::Write, "written later", 400_000);
    published.report("right", std::slice::from_ref(&later)).await;
    let without = published.sums().await;
    let before = published.pipeline.shown().await.unwrap();

    published.report("wrong", &wrong()).await;
    published.report("wrong", &[query(111, 12), query(112, 13), query(113, 70)]).await;
    assert_ne!(published.sums().await, without);
    let rows = "select count(*) from lakegauge_api.lake_access";
    assert_eq!(published.pipeline.database.number(rows).unwrap(), 11);

    let said = published.ends(0, &["wrong"]);
    assert!(said.contains("LAKE_0: 6 requests, from ") && said.contains("3 queries"), "{said}");
    assert!(said.contains("nothing was changed"), "{said}");
    assert_ne!(published.sums().await, without, "it was only asked");
    published.ends(64, &["wrong", "--confirm"]);

    let words = ["wrong", "--confirm", "--reason", "the wrong bucket"];
    let said = published.ends(0, &words);
    assert!(said.contains("withdrawn: 9 events of source wrong"), "{said}");
    published.pipeline.rest().await.unwrap();
    assert_eq!(published.sums().await, without);
    let [used_gb, accesses, response_ms, records] = published.pipeline.shown().await.unwrap();
    assert_eq!(used_gb, before[0]);
    assert_eq!(accesses, before[1] + 6.0, "a counter never goes back");
    assert!(records > before[3], "a counter never goes back");
    // Of the minute that ends with the newest query, a wrong one: only the second right one is left.
    assert_eq!(response_ms, 51.224);
    for (series, value) in [
        ("data_lake_accesses_withdrawn_total{bucket=\"raw\"}", 6.0),
        ("data_warehouse_queries_withdrawn_total{warehouse=\"etl\"}", 3.0),
        ("data_warehouse_records_withdrawn_total{warehouse=\"etl\"}", records - before[3]),
    ] {
        assert_eq!(published.metric(series), Some(value), "{series}");
    }

    let database = &published.pipeline.database;
    assert_eq!(database.number(rows).unwrap(), 11, "nothing is deleted");
    let withdrawn = "select count(*) from lakegauge_api.lake_access where withdrawn \
        and source = 'wrong'";
    assert_eq!(database.number(withdrawn).unwrap(), 6);
    let corrections = "select correction || ' ' || count(*) from lakegauge_api.correction \
        where counted group by correction order by 1";
    assert_eq!(database.sql(corrections).unwrap(), ["restored 2", "withdrawn 9"]);
    let noted = "select source || ', ' || reason || ', ' || events \
        from lakegauge_api.withdrawal where finished_at is not null";
    assert_eq!(database.sql(noted).unwrap(), ["wrong, the wrong bucket, 9"]);
    published.holds().await;

    let said = published.ends(1, &words);
    assert!(said.contains("nothing of source wrong counts"), "{said}");
    assert!(said.contains("the archive knows right, withdraw, wrong"), "{said}");
}

const AGAIN: [&str; 4] = ["wrong", "--confirm", "--reason", "again"];

/// What is left by a `withdraw` that was killed before it restored the change that decides now.
async fn cut_off() -> Published {
    let published = Published::start().await;
    let late = change(1, 10, Operation::Write, "a", 1_000);
    let wrong = change(101, 20, Operation::Write, "a", 7);
    published.report("wrong", std::slice::from_ref(&wrong)).await;
    // An older change of another source: it loses against the wrong one.
    published.report("right", std::slice::from_ref(&late)).await;
    let fact = withdrawn(&wrong);
    let id = wire::derived::of_correction(wrong.occurred_at, &fact).unwrap();
    let withdrawal = encode_line(&Event { id, occurred_at: wrong.occurred_at, fact });
    for _ in 0..2 {
        // The second time as another message, without its id: what is said again counts once.
        let mut line: Value = serde_json::from_str(&withdrawal).unwrap();
        published.publish("lake.access.0.withdraw", &[line.to_string()]).await;
        line.as_object_mut().unwrap().remove("id");
        published.publish("lake.access.0.withdraw", &[line.to_string()]).await;
    }
    until("the verdict", async || {
        Ok(published.metric("data_lake_accesses_withdrawn_total{bucket=\"raw\"}") == Some(1.0))
    })
    .await
    .unwrap();
    assert_eq!(published.pipeline.shown().await.unwrap()[0], 0.0, "nothing is known of it");
    published
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_withdrawal_that_was_cut_off_did_not_restore_is_restored_by_the_same_command() {
    let mut published = cut_off().await;
    let said = published.ends(0, &AGAIN);
    assert!(said.contains("objects of a withdrawal that was cut off"), "{said}");
    published.pipeline.rest().await.unwrap();
    assert_eq!(published.pipeline.shown().await.unwrap()[0], 1e-6);
    published.holds().await;
    published.ends(1, &AGAIN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_archive_does_not_let_be_restored_ends_the_command_and_is_retried() {
    let mut published = cut_off().await;
    let database = &published.pipeline.database;
    let poison = "alter table lakegauge.lake_access add constraint poison \
        check (correction is distinct from 1)";
    database.sql(poison).unwrap();
    let said = published.ends(1, &AGAIN);
    assert!(said.contains("LAKE_0: 1 objects could not be restored"), "{said}");
    database.sql("alter table lakegauge.lake_access drop constraint poison").unwrap();
    let mut retry = vec!["dead-letters", "retry", "--all", "--reason", "refused_by_database"];
    let (url, nats) = (database.archiver_url(), published.pipeline.nats.url());
    retry.extend(["--database-url", &url, "--nats-url", &nats]);
    let retried = executable::run(retry, b"").unwrap();
    assert_eq!(retried.status, Some(0), "{retried:?}");
    published.pipeline.rest().await.unwrap();
    assert_eq!(published.pipeline.shown().await.unwrap()[0], 1e-6);
    published.holds().await;
    published.ends(1, &AGAIN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_correction_of_what_is_not_there_as_it_says_is_a_dead_letter() {
    let mut published = Published::start().await;
    let write = change(1, 10, Operation::Write, "a", 1_000);
    published.report("right", std::slice::from_ref(&write)).await;
    let Fact::LakeAccess(access) = write.fact.clone() else { unreachable!("a request") };
    let line = |of: EventId, at: Timestamp, bytes: u64| {
        let access = LakeAccess { bytes, ..access.clone() };
        let fact = Fact::LakeAccessWithdrawn(domain::LakeAccessWithdrawn { of, access });
        let id = wire::derived::of_correction(at, &fact).unwrap();
        encode_line(&Event { id, occurred_at: at, fact })
    };
    let (id, at) = (write.id, write.occurred_at);
    let mut own_id: Value = serde_json::from_str(&line(id, at, 1_000)).unwrap();
    own_id["id"] = json!("11111111-1111-5111-8111-111111111111");
    published
        .publish(
            "lake.access.0.by-hand",
            &[
                line(access_id(2), at, 1_000),
                line(id, at.plus_seconds(1), 1_000),
                line(id, at, 999),
                own_id.to_string(),
            ],
        )
        .await;
    let reasons = "select reason || ' ' || count(*) from lakegauge_api.dead_letter \
        group by reason order by 1";
    let database = &published.pipeline.database;
    assert_eq!(database.sql(reasons).unwrap(), ["nothing_to_correct 3", "wrong_field 1"]);
    assert_eq!(published.metric("data_lake_accesses_withdrawn_total{bucket=\"raw\"}"), Some(0.0));
    assert_eq!(published.pipeline.shown().await.unwrap()[0], 1e-6);
    published.holds().await;
}

fn access_id(number: u64) -> EventId {
    access(number, 0).id
}
