//! `lakegauge dead-letters`: what could not be archived is put where it belongs, once.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::process::{Command, Stdio};

use bus::{Bus, PublisherLimits};
use domain::{Event, EventId, Fact, Operation, Timestamp};
use integration_tests::executable::{self, Ended};
use integration_tests::pipeline::{Part, Pipeline};
use integration_tests::raw_nats::RawNats;
use integration_tests::waiting::until;
use serde_json::{Value, json};
use service_kit::Clock;
use wire::{Sealed, json::encode_line};

use crate::audit::is_well;
use crate::store_events::access;

/// How far ahead an event may be dated here.
const SKEW_S: i64 = 3;
const RULES: (&str, &str) =
    ("NATS_STREAM_RULES", "sample_interval_s=1;future_skew_s=3;retention_days=1");

struct Lettered {
    pipeline: Pipeline,
    bus: Bus,
    clock: Clock,
}

impl Lettered {
    async fn start() -> Self {
        let mut pipeline = Pipeline::start(&[RULES]).await.unwrap();
        pipeline.run(Part::Archiver).unwrap();
        pipeline.run(Part::Aggregator).unwrap();
        until("first scrape", async || Ok(pipeline.four()?.is_some())).await.unwrap();
        let bus = pipeline.bus().await.unwrap();
        Self { pipeline, bus, clock: Clock::system() }
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_us())
    }

    /// A write of 1,000 bytes, dated so many seconds from now.
    fn write(&self, number: u64, seconds: i64) -> Event {
        let mut event = access(number, 0);
        event.occurred_at = self.now().plus_seconds(seconds);
        if let Fact::LakeAccess(access) = &mut event.fact {
            access.operation = Operation::Write;
            access.outcome = domain::Outcome::Ok;
            access.key = format!("key-{number}");
            access.bytes = 1_000;
            access.object_bytes = Some(1_000);
        }
        event
    }

    async fn publish(&self, payloads: &[String]) {
        let publisher = self.bus.publisher(PublisherLimits::default(), |_| {});
        for payload in payloads {
            let subject = "lake.access.0.test".to_owned();
            let sealed = Sealed::new(subject, "application/json", payload.clone(), 1);
            publisher.publish(sealed).await.unwrap();
        }
        publisher.flush().await.unwrap();
        self.pipeline.rest().await.unwrap();
    }

    fn arguments(&self, words: &[&str]) -> Vec<String> {
        let mut arguments = vec!["dead-letters".to_owned()];
        arguments.extend(words.iter().map(|word| (*word).to_owned()));
        arguments.extend(["--database-url".to_owned(), self.pipeline.database.archiver_url()]);
        if words[0] == "retry" {
            arguments.extend(["--nats-url".to_owned(), self.pipeline.nats.url()]);
        }
        arguments
    }

    fn run(&self, words: &[&str], input: &str) -> Ended {
        executable::run(self.arguments(words), input.as_bytes()).unwrap()
    }

    /// Runs it and demands its exit status; gives both outputs.
    fn ends(&self, status: i32, words: &[&str], input: &str) -> String {
        let ended = self.run(words, input);
        assert_eq!(ended.status, Some(status), "{words:?}: {ended:?}");
        ended.stdout + &ended.stderr
    }

    fn list(&self, more: &[&str]) -> Vec<Value> {
        let words: Vec<&str> = ["list", "--json"].iter().chain(more).copied().collect();
        let lines = self.ends(0, &words, "");
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The number of the one open letter of a reason.
    fn open(&self, reason: &str) -> String {
        let letters = self.list(&["--reason", reason]);
        assert_eq!(letters.len(), 1, "{letters:?}");
        letters[0]["number"].to_string()
    }

    fn rows(&self) -> i64 {
        self.pipeline.database.number("select count(*) from lakegauge.lake_access").unwrap()
    }

    /// Rows, windows, the metrics and the audit say that so many writes happened.
    async fn counts(&self, writes: u32) {
        self.pipeline.rest().await.unwrap();
        assert_eq!(self.rows(), i64::from(writes));
        let windows = "select string_agg(distinct events::text, ' ') from (select length_s, \
            sum(events) as events from lakegauge.lake_window group by 1) as w";
        assert_eq!(self.pipeline.database.value(windows).unwrap(), writes.to_string());
        let [used_gb, accesses, ..] = self.pipeline.shown().await.unwrap();
        assert_eq!(accesses, f64::from(writes));
        assert!((used_gb * 1e6 - f64::from(writes)).abs() < 1e-6, "{used_gb} GB of {writes} kB");
        is_well(&self.pipeline);
    }

    /// The state is folded from the archive again.
    async fn rebuild(&mut self) {
        self.pipeline.stop(Part::Aggregator).await.unwrap();
        let mut operator = RawNats::connect(self.pipeline.nats.port()).await.unwrap();
        let purge = json!({ "filter": "$KV.LAKEGAUGE.snapshot.LAKE_0" });
        operator.demand("STREAM.PURGE.KV_LAKEGAUGE", &purge).await.unwrap();
        operator.demand("STREAM.PURGE.LAKE_0", &json!({ "keep": 1 })).await.unwrap();
        self.pipeline.run(Part::Aggregator).unwrap();
        self.pipeline.rest().await.unwrap();
        let rebuilds = "lakegauge_aggregator_rebuilds_total{stream=\"LAKE_0\"}";
        let rebuilds = self.pipeline.part(Part::Aggregator).unwrap().metric(rebuilds);
        assert_eq!(rebuilds, Some(1.0));
    }
}

fn too_large(event: &Event) -> String {
    encode_line(event).replace("\"bytes\":1000,", "\"bytes\":9007199254740992,")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_letter_is_put_where_it_belongs_once_and_the_metrics_agree() {
    let mut here = Lettered::start().await;
    let (ranged, late) = (here.write(2, 0), here.write(4, -2 * 86_400));
    here.publish(&[encode_line(&here.write(1, 0)), "garbage".to_owned()]).await;
    // Dated last, so that its time has not come when it is read.
    let ahead = here.write(3, 20);
    here.publish(&[too_large(&ranged), encode_line(&late), encode_line(&ahead)]).await;
    let letters = here.list(&["--stream", "LAKE_0", "--since", "1h"]);
    let reasons: Vec<&str> =
        letters.iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["undecodable", "out_of_range", "older_than_retention", "future_dated"]);
    assert_eq!(here.list(&["--closed"]), Vec::<Value>::new());
    here.counts(1).await;

    // Bytes that are no event: shown, and replaced.
    let garbage = here.open("undecodable");
    let shown = here.ends(0, &["show", &garbage], "");
    assert!(shown.contains("\n  garbage\n") && shown.contains("message 2 item 0"), "{shown}");
    let said = here.ends(1, &["retry", &garbage], "");
    assert!(said.contains("--replace"), "{said}");
    let line = encode_line(&here.write(5, 0));
    let start = line.find("\"id\"").unwrap();
    let without_id = line[..start].to_owned() + line[start..].split_once(',').unwrap().1;
    here.ends(0, &["retry", &garbage, "--replace", "-"], &without_id);
    here.counts(2).await;
    let first = "select broker_ns from lakegauge.dead_letter where sequence = 2";
    let broker_ns = here.pipeline.database.number(first).unwrap();
    let id = wire::derived::of_place(domain::Stream::lake(0), 2, 0, broker_ns);
    let its = format!("select count(*) from lakegauge.lake_access where id = '{id}'");
    assert_eq!(here.pipeline.database.number(&its).unwrap(), 1, "the id of its first position");

    // A field out of its range: as it is it would be refused again, corrected it keeps its id.
    let large = here.open("out_of_range");
    let said = here.ends(1, &["retry", &large], "");
    assert!(said.contains("would be refused again"), "{said}");
    let other = Event { id: EventId::from_bytes([0x55; 16]), ..ranged.clone() };
    let said = here.ends(1, &["retry", &large, "--replace", "-"], &encode_line(&other));
    assert!(said.contains("another event"), "{said}");
    here.ends(0, &["retry", &large, "--replace", "-"], &encode_line(&ranged));
    here.counts(3).await;

    // Older than retention: published all the same it is another dead letter, and dropped.
    let old = here.open("older_than_retention");
    here.ends(0, &["retry", &old, "--anyway"], "");
    here.counts(3).await;
    let again = here.open("older_than_retention");
    assert_ne!(again, old, "a letter that is refused again is another letter");
    here.ends(0, &["drop", &again, "--note", "from a test"], "");
    here.ends(1, &["drop", &again, "--note", "twice"], "");

    // Dated ahead: once its time has come.
    let future = here.open("future_dated");
    until("its time", async || Ok(ahead.occurred_at < here.now().plus_seconds(SKEW_S)))
        .await
        .unwrap();
    let said = here.ends(0, &["retry", "--all", "--reason", "future_dated"], "");
    assert!(said.contains(&format!("letter {future}: published again")), "{said}");
    here.counts(4).await;
    // Closed: nothing happens when it is retried once more.
    here.ends(0, &["retry", &future, &garbage, &large, &old], "");
    here.counts(4).await;
    assert_eq!(here.list(&[]), Vec::<Value>::new(), "no letter is open");
    let closed: Vec<Value> =
        here.list(&["--closed"]).into_iter().map(|letter| letter["closed_as"].clone()).collect();
    assert_eq!(closed, ["published", "published", "published", "published", "dropped"]);
    here.rebuild().await;
    here.counts(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_of_one_reason_are_dropped_together_and_the_others_stay_open() {
    let here = Lettered::start().await;
    let ahead = here.write(2, 600);
    let mut payloads: Vec<String> = (0..5).map(|number| format!("garbage {number}")).collect();
    payloads.extend([encode_line(&here.write(1, 0)), encode_line(&ahead)]);
    here.publish(&payloads).await;
    let open = here.ends(0, &["list"], "");
    assert!(open.lines().all(|line| line.contains(" item 0  test  ")), "with its source: {open}");
    let drop = ["drop", "--all", "--reason", "undecodable", "--note", "from a test"];
    assert_eq!(here.ends(0, &drop, ""), "dropped 5 dead letters\n");
    assert_eq!(here.ends(0, &drop, ""), "dropped 0 dead letters\n");
    let reasons: Vec<Value> = here.list(&[]).iter().map(|it| it["reason"].clone()).collect();
    assert_eq!(reasons, ["future_dated"]);
    let closed = here.list(&["--closed"]);
    assert_eq!(closed.len(), 5);
    for letter in closed {
        assert_eq!(json!([letter["closed_as"], letter["note"]]), json!(["dropped", "from a test"]));
    }
    here.counts(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_the_database_refused_comes_in_with_its_windows_and_is_counted_once() {
    let mut here = Lettered::start().await;
    let sql = |here: &Lettered, sql: &str| here.pipeline.database.sql(sql).unwrap();
    sql(&here, "alter table lakegauge.lake_access add constraint poison check (key <> 'key-2')");
    let lines: Vec<String> = [1, 2, 3].map(|number| encode_line(&here.write(number, 0))).into();
    here.publish(&lines).await;
    assert_eq!(here.rows(), 2);
    // The sets took it for new: it was counted.
    assert_eq!(here.pipeline.shown().await.unwrap()[1], 3.0);
    is_well(&here.pipeline);
    let letter = &here.list(&[])[0];
    let expected = json!(["refused_by_database", true, "23514"]);
    assert_eq!(json!([letter["reason"], letter["counted"], letter["sqlstate"]]), expected);
    let number = letter["number"].to_string();

    let said = here.ends(1, &["retry", &number], "");
    assert!(said.contains("still refuses it (23514)"), "{said}");
    // Folded from the archive, its letter stands for it.
    here.rebuild().await;
    assert_eq!(here.pipeline.shown().await.unwrap()[1], 3.0);

    sql(&here, "alter table lakegauge.lake_access drop constraint poison");
    // The rollups have passed its place when its row comes in.
    let roll_up = "set role lakegauge_archiver; select lakegauge.roll_up(id, part, 1000) \
        from lakegauge.stream, unnest(array['days', 'keys']) as part where name = 'LAKE_0'";
    let rolled_up = "select (select sum(events) from lakegauge.lake_day), \
        (select count(*) from lakegauge.lake_object)";
    sql(&here, roll_up);
    assert_eq!(sql(&here, rolled_up), ["2|2"]);
    let said = here.ends(0, &["retry", "--all", "--reason", "refused_by_database"], "");
    assert!(said.contains("its row was inserted"), "{said}");
    here.counts(3).await;
    sql(&here, roll_up);
    assert_eq!(sql(&here, rolled_up), ["3|3"]);
    let said = here.ends(0, &["retry", &number], "");
    assert!(said.contains("closed already (row)"), "{said}");
    // All three once more, in a message that the broker does not know.
    here.publish(&[lines.join("\n")]).await;
    here.counts(3).await;
    assert_eq!(here.bus.stream("LAKE_0").await.unwrap().last_sequence, 4, "nothing was published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_publishing_and_closing_a_retry_counts_once() {
    let here = Lettered::start().await;
    let event = here.write(1, 0);
    here.publish(&[too_large(&event)]).await;
    let number = here.open("out_of_range");
    let sql = |sql: &str| here.pipeline.database.sql(sql).unwrap();
    // Closing takes longer than the one who retries lives.
    sql("create function slow() returns trigger language plpgsql as
            $$ begin perform pg_sleep(600); return new; end $$;
        create trigger slow before update of closed_at on lakegauge.dead_letter
            for each row execute function slow()");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), encode_line(&event)).unwrap();
    let replacement = file.path().to_str().unwrap();
    let words = ["retry", &number, "--replace", replacement];
    let mut child = Command::new(executable::lakegauge().unwrap())
        .args(here.arguments(&words))
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the close", async || {
        let sleeping = "select count(*) from pg_stat_activity \
         where wait_event = 'PgSleep' and datname = current_database()";
        Ok(here.pipeline.database.number(sleeping)? == 1)
    })
    .await
    .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    sql("select pg_terminate_backend(pid) from pg_stat_activity \
         where wait_event = 'PgSleep' and datname = current_database()");
    sql("drop trigger slow on lakegauge.dead_letter");
    here.counts(1).await;
    assert_eq!(here.open("out_of_range"), number, "it is open still");

    here.ends(0, &words, "");
    here.counts(1).await;
    let letter = &here.list(&["--all"])[0];
    assert_eq!(json!([letter["attempts"], letter["closed_as"]]), json!([2, "published"]));
    assert_eq!(here.bus.stream("LAKE_0").await.unwrap().last_sequence, 3, "two messages of it");
}
