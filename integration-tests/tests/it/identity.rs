//! One broker and one archive are one pipeline: whatever else meets is refused, before anything is
//! written, and says what it met.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::collections::BTreeMap;
use std::process::Command;

use bus::{Bus, BusError, Topology, TopologyOverrides};
use domain::{Mismatch, Rules, Side, Stream, pipeline::PIPELINE_KEY};
use event_store::archive_side;
use integration_tests::executable::{Ended, finish, lakegauge};
use integration_tests::nats::NatsServer;
use integration_tests::pipeline::{Part, Pipeline, Traffic, to_f64};
use integration_tests::process::Process;
use integration_tests::raw_nats::RawNats;
use integration_tests::up::{FREE_PORTS, scratch};
use integration_tests::waiting::until;
use serde_json::json;

use crate::laws::{self, Broker};

/// Broker and archive don't belong together (`EX_CONFIG`).
const REFUSED: i32 = 78;
/// Over more than a second of the broker's time, so that samples are due.
const TRAFFIC: Traffic = Traffic { events: 400, rate: 200, format: "bincode" };

/// Every row, sample, window and checkpoint: what a refused archiver must not have touched.
const EVERYTHING: &str = "
    select 'row', count(*)::text from lakegauge.lake_access union all
    select 'query', count(*)::text from lakegauge.warehouse_query union all
    select 'ledger', count(*)::text from lakegauge.ledger union all
    select 'epoch', count(*)::text from lakegauge.epoch union all
    select 'loss', count(*)::text from lakegauge.declared_loss union all
    select 'letter', count(*)::text from lakegauge.dead_letter union all
    select 'pipeline', id::text from lakegauge.pipeline union all
    select 'checkpoint', md5(string_agg(c::text, '' order by stream)) from lakegauge.checkpoint as c";

/// A pipeline at rest with events of both sides.
async fn counted() -> Pipeline {
    let mut pipeline = Pipeline::start(&[]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    publish(&mut pipeline, "first").await;
    pipeline.rest().await.unwrap();
    pipeline
}

/// Events of both sides, to whatever broker the settings name.
async fn publish(pipeline: &mut Pipeline, run: &str) {
    let simulators = [Side::Lake, Side::Warehouse]
        .map(|side| pipeline.simulate_run(run, side, TRAFFIC).unwrap());
    for simulator in simulators {
        simulator.finish().await.unwrap();
    }
}

/// What a process said that ended because sides don't belong together.
async fn refused(mut process: Process) -> String {
    let status = process.ended().await.unwrap();
    let log = process.log();
    assert_eq!(status.code(), Some(REFUSED), "{log}");
    log
}

fn archiver(pipeline: &mut Pipeline) -> Process {
    let url = pipeline.database.archiver_url();
    pipeline.spawn_at(&["archive"], &url).unwrap()
}

fn aggregator(pipeline: &mut Pipeline) -> Process {
    let url = pipeline.database.reader_url();
    pipeline.spawn_at(&["aggregate"], &url).unwrap()
}

/// The name that a broker's streams give, with the streams of a prefix.
async fn name_in(bus: &Bus) -> String {
    bus.stream("LAKE_0").await.unwrap().metadata[PIPELINE_KEY].clone()
}

async fn stop(pipeline: &mut Pipeline) {
    for part in [Part::Aggregator, Part::Archiver] {
        pipeline.stop(part).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_broker_at_an_archive_is_refused_and_the_numbers_of_the_first_stay() {
    let mut pipeline = counted().await;
    let before = laws::hold(&pipeline).await;
    let kept = pipeline.database.sql(EVERYTHING).unwrap();
    let second = NatsServer::start().await.unwrap();
    pipeline.set("NATS_URL", &second.url());
    publish(&mut pipeline, "second").await;
    let bus = second.bus("test").await.unwrap();
    let names = [name_in(&pipeline.bus().await.unwrap()).await, name_in(&bus).await];
    assert_ne!(names[0], names[1]);

    // While the first one's archiver holds the locks, and when it does not.
    for first_runs in [true, false] {
        if !first_runs {
            stop(&mut pipeline).await;
        }
        for process in [archiver(&mut pipeline), aggregator(&mut pipeline)] {
            let said = refused(process).await;
            assert!(names.iter().all(|name| said.contains(name)), "{names:?}: {said}");
            assert!(said.contains("lakegauge adopt"), "{said}");
        }
        assert_eq!(pipeline.database.sql(EVERYTHING).unwrap(), kept);
        assert_eq!(bus.pipeline().await.unwrap().unwrap().archive, None);
        assert_eq!(bus.epochs().get("LAKE_0").await, Ok(None), "nothing raised in the second");
    }

    let url = pipeline.nats.url();
    pipeline.set("NATS_URL", &url);
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    pipeline.rest().await.unwrap();
    before.assert_equals(&laws::hold(&pipeline).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_lost_its_disk_is_refused() {
    let mut pipeline = counted().await;
    let kept = pipeline.database.sql(EVERYTHING).unwrap();
    stop(&mut pipeline).await;
    let kept_name = name_in(&pipeline.bus().await.unwrap()).await;
    lose_disk(&mut pipeline).await;
    for process in [archiver(&mut pipeline), aggregator(&mut pipeline)] {
        let said = refused(process).await;
        assert!(said.contains(&kept_name) && said.contains("lost its disk"), "{said}");
    }
    assert_eq!(pipeline.database.sql(EVERYTHING).unwrap(), kept);
}

async fn lose_disk(pipeline: &mut Pipeline) {
    pipeline.nats.stop().unwrap();
    pipeline.nats.put_store(&tempfile::tempdir().unwrap()).unwrap();
    pipeline.nats.restart().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_lost_the_entry_only_is_refused() {
    let mut pipeline = counted().await;
    let kept = pipeline.database.sql(EVERYTHING).unwrap();
    stop(&mut pipeline).await;
    let mut operator = RawNats::connect(pipeline.nats.port()).await.unwrap();
    let entry = json!({ "filter": "$KV.LAKEGAUGE.pipeline" });
    operator.demand("STREAM.PURGE.KV_LAKEGAUGE", &entry).await.unwrap();
    for whole_bucket in [false, true] {
        if whole_bucket {
            operator.demand("STREAM.DELETE.KV_LAKEGAUGE", &json!({})).await.unwrap();
        }
        for process in [archiver(&mut pipeline), aggregator(&mut pipeline)] {
            let said = refused(process).await;
            assert!(said.contains("its key `pipeline` is gone"), "{said}");
        }
    }
    assert_eq!(pipeline.database.sql(EVERYTHING).unwrap(), kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_was_swapped_for_an_empty_one_is_refused_and_stays_empty() {
    let mut pipeline = counted().await;
    stop(&mut pipeline).await;
    let empty = pipeline.postgres.database().await.unwrap();
    let mut names = Vec::new();
    for database in [&empty, &pipeline.database] {
        names.push(archive_side(&database.reader()).await.unwrap().id.to_string());
    }
    let process = pipeline.spawn_at(&["archive"], &empty.archiver_url()).unwrap();
    let said = refused(process).await;
    assert!(names.iter().all(|name| said.contains(name)), "{names:?}: {said}");
    let process = pipeline.spawn_at(&["aggregate"], &empty.reader_url()).unwrap();
    assert!(refused(process).await.contains("is empty"));
    assert_eq!(empty.number("select count(*) from lakegauge.pipeline").unwrap(), 0);
    assert_eq!(empty.number("select count(*) from lakegauge.checkpoint").unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_is_not_the_one_in_force_is_refused_by_name_with_both_values() {
    let mut pipeline = counted().await;
    stop(&mut pipeline).await;
    let kept = pipeline.database.sql(EVERYTHING).unwrap();
    for (rule, in_force, other) in [
        ("derived_ids_max", "250000", "300000"),
        ("derived_ids_max", "250000", "50"),
        ("runs_max", "256", "4"),
        ("holes_per_run_max", "4096", "10"),
        ("objects_max", "500000", "600000"),
        ("labels_max", "50", "51"),
        ("windows", "10s,60s,3600s", "10s,60s,300s,3600s"),
        ("windows", "10s,60s,3600s", "10s:1d,60s,3600s"),
        ("sample_interval_s", "1", "2"),
        ("future_skew_s", "300", "301"),
        ("retention_days", "0", "30"),
    ] {
        pipeline.set("NATS_STREAM_RULES", &format!("{rule}={other}"));
        for process in [archiver(&mut pipeline), aggregator(&mut pipeline)] {
            let said = refused(process).await;
            let named = format!("{rule} is {other}, the pipeline's is {in_force}");
            assert!(said.contains("NATS_STREAM_RULES") && said.contains(&named), "{said}");
        }
    }
    assert_eq!(pipeline.database.sql(EVERYTHING).unwrap(), kept);
    // What is not named stays as it is, and so does what is named as it is.
    pipeline.set("NATS_STREAM_RULES", "windows=10s, 60s, 3600s;labels_max=50");
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    pipeline.rest().await.unwrap();
    laws::hold(&pipeline).await;
}

fn topology(prefix: &str, rules: &Rules) -> Topology {
    Topology::embedded(prefix, &TopologyOverrides::default(), rules)
}

#[tokio::test]
async fn a_stream_made_again_gets_the_name_and_the_rules_that_the_entry_kept() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = server.bus("test").await.unwrap();
    let first = Rules { derived_ids_max: 77, ..Rules::default() };
    bus.apply_topology(&topology("", &first)).await.unwrap();
    let before = bus.stream("LAKE_0").await.unwrap().metadata;
    let mut operator = RawNats::connect(server.port()).await.unwrap();
    let others = Rules { derived_ids_max: 78, runs_max: 5, ..Rules::default() };
    for streams in [vec!["LAKE_0"], vec!["LAKE_0", "WAREHOUSE_0", "TELEMETRY"]] {
        for stream in streams {
            operator.demand(&format!("STREAM.DELETE.{stream}"), &json!({})).await.unwrap();
        }
        bus.apply_topology(&topology("", &others)).await.unwrap();
        for stream in ["LAKE_0", "WAREHOUSE_0"] {
            assert_eq!(bus.stream(stream).await.unwrap().metadata, before, "{stream}");
        }
    }
    assert_eq!(Rules::from_metadata(&before), Ok(first));

    // Rules that somebody names are refused before anything is made.
    operator.demand("STREAM.DELETE.LAKE_0", &json!({})).await.unwrap();
    let named = BTreeMap::from([("lakegauge.runs_max".to_owned(), "5".to_owned())]);
    let refused = bus.apply_topology(&topology("", &others).demanding(named)).await.unwrap_err();
    assert!(matches!(refused, BusError::Mismatch(Mismatch::Fixed { .. })), "{refused}");
    assert!(matches!(bus.stream("LAKE_0").await, Err(BusError::NoStream { .. })));
}

#[tokio::test]
async fn a_stream_that_is_made_by_hand_or_restored_from_elsewhere_is_refused() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = server.bus("test").await.unwrap();
    bus.apply_topology(&topology("", &Rules::default())).await.unwrap();
    let ours = bus.stream("LAKE_0").await.unwrap().metadata;
    let mut operator = RawNats::connect(server.port()).await.unwrap();
    let info = operator.demand("STREAM.INFO.LAKE_0", &json!({})).await.unwrap();
    let others = [
        (PIPELINE_KEY, "0123456789abcdef0123456789abcdef", "0123456789abcdef"),
        ("lakegauge.runs_max", "9", "runs_max is 9, the pipeline's is 256"),
    ];
    for (key, value, told) in others {
        let mut config = info["config"].clone();
        let mut metadata = ours.clone();
        metadata.insert(key.to_owned(), value.to_owned());
        config["metadata"] = json!(metadata);
        operator.demand("STREAM.UPDATE.LAKE_0", &config).await.unwrap();
        let starting = server.bus("another process").await.unwrap();
        let at_start = starting.apply_topology(&topology("", &Rules::default())).await;
        for said in [bus.broker_side("LAKE_0").await.unwrap_err(), at_start.unwrap_err()] {
            assert!(matches!(said, BusError::Mismatch(_)), "{said}");
            assert!(said.to_string().contains("LAKE_0"), "{said}");
            assert!(key == PIPELINE_KEY || said.to_string().contains(told), "{said}");
        }
    }
}

/// Whether two archivers that started at once are one that works and one that was refused.
async fn one_of(mut first: Process, mut second: Process) -> (Process, String) {
    let mut ended = [false, false];
    until("one of them to be refused", async || {
        ended = [!first.is_running()?, !second.is_running()?];
        Ok(ended[0] || ended[1])
    })
    .await
    .unwrap();
    let (stays, goes) = if ended[0] { (second, first) } else { (first, second) };
    (stays, refused(goes).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_brokers_that_meet_a_fresh_archive_at_once_one_is_taken() {
    for _ in 0..3 {
        let mut pipeline = Pipeline::start(&[]).await.unwrap();
        let second = NatsServer::start().await.unwrap();
        let first_process = archiver(&mut pipeline);
        pipeline.set("NATS_URL", &second.url());
        let second_process = archiver(&mut pipeline);
        let (mut stays, said) = one_of(first_process, second_process).await;
        let kept = archive_side(&pipeline.database.reader()).await.unwrap();
        let kept_name = kept.pipeline.unwrap().id;
        assert!(said.contains(&kept_name.to_string()), "{said}");
        for server in [&pipeline.nats, &second] {
            let side = server.bus("test").await.unwrap().pipeline().await.unwrap().unwrap();
            let named = (side.pipeline.id == kept_name).then_some(kept.id);
            until("the broker to name its archive", async || {
                let side = server.bus("test").await?.pipeline().await?;
                Ok(side.is_some_and(|side| side.archive == named))
            })
            .await
            .unwrap();
        }
        assert!(stays.is_running().unwrap(), "{}", stays.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_archives_that_meet_a_fresh_broker_at_once_one_is_taken() {
    for _ in 0..3 {
        let mut pipeline = Pipeline::start(&[]).await.unwrap();
        let second = pipeline.postgres.database().await.unwrap();
        let first_process = archiver(&mut pipeline);
        let second_process = pipeline.spawn_at(&["archive"], &second.archiver_url()).unwrap();
        let (mut stays, said) = one_of(first_process, second_process).await;
        let side = pipeline.bus().await.unwrap().pipeline().await.unwrap().unwrap();
        let named = side.archive.unwrap();
        assert!(said.contains(&named.to_string()), "{said}");
        let mut checkpoints = Vec::new();
        for database in [&pipeline.database, &second] {
            let id = archive_side(&database.reader()).await.unwrap().id;
            if id != named {
                let rows = database.number("select count(*) from lakegauge.checkpoint").unwrap();
                checkpoints.push(rows);
            }
        }
        assert_eq!(checkpoints, [0], "nothing is archived in the one that is not named");
        assert!(stays.is_running().unwrap(), "{}", stays.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_swapped_under_running_services_ends_them_and_is_not_touched() {
    let mut pipeline = counted().await;
    let kept = pipeline.database.sql(EVERYTHING).unwrap();
    // Another pipeline's broker, as it will stand at the same address.
    let mut second = NatsServer::start().await.unwrap();
    pipeline.set("NATS_URL", &second.url());
    publish(&mut pipeline, "second").await;
    let names = [
        name_in(&pipeline.bus().await.unwrap()).await,
        name_in(&second.bus("test").await.unwrap()).await,
    ];
    second.stop().unwrap();
    pipeline.nats.stop().unwrap();
    pipeline.nats.put_store(&second.copy_store().unwrap()).unwrap();
    pipeline.nats.restart().await.unwrap();
    for part in [Part::Archiver, Part::Aggregator] {
        let process = pipeline.take(part).unwrap();
        let said = refused(process).await;
        assert!(names.iter().all(|name| said.contains(name)), "{names:?}: {said}");
    }
    assert_eq!(pipeline.database.sql(EVERYTHING).unwrap(), kept);
    let bus = pipeline.bus().await.unwrap();
    for stream in ["LAKE_0", "WAREHOUSE_0", "TELEMETRY"] {
        assert_eq!(bus.epochs().get(stream).await, Ok(None), "no epoch is raised in {stream}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_subject_prefix_in_the_same_broker_is_another_pipeline() {
    let mut pipeline = counted().await;
    let before = laws::hold(&pipeline).await;
    pipeline.set("NATS_SUBJECT_PREFIX", "acme.eu");
    pipeline.set("NATS_EVENT_STREAM_MAX_BYTES", "10000000");
    publish(&mut pipeline, "second").await;
    for process in [archiver(&mut pipeline), aggregator(&mut pipeline)] {
        assert!(refused(process).await.contains("lakegauge adopt"));
    }
    let other = pipeline.postgres.database().await.unwrap();
    let process = pipeline.spawn_at(&["archive"], &other.archiver_url()).unwrap();
    until("its own archive to have the events", async || {
        let rows = other.number("select count(*) from lakegauge.warehouse_query")?;
        Ok(rows == i64::try_from(TRAFFIC.events)?)
    })
    .await
    .unwrap();
    // Who sent an event is what the subject says behind the prefix.
    let counts = pipeline.spawn_at(&["aggregate"], &other.archiver_url()).unwrap();
    let series = "lakegauge_aggregator_source_events_total\
                  {source=\"warehouse-simulator\",stream=\"WAREHOUSE_0\"}";
    until("the events of the source", async || {
        Ok(counts.metric(series) == Some(to_f64(TRAFFIC.events)))
    })
    .await
    .unwrap();
    drop((process, counts));
    pipeline.set("NATS_SUBJECT_PREFIX", "");
    before.assert_equals(&laws::hold(&pipeline).await);
}

fn adopt(pipeline: &Pipeline, more: &[&str]) -> Ended {
    let url = pipeline.database.archiver_url();
    pipeline.tool(["adopt"].into_iter().chain(more.iter().copied()), &url).unwrap()
}

fn rows(pipeline: &Pipeline) -> i64 {
    let rows = "select (select count(*) from lakegauge.lake_access)
        + (select count(*) from lakegauge.lake_inventory)
        + (select count(*) from lakegauge.warehouse_query)";
    pipeline.database.number(rows).unwrap()
}

/// The services run again, everything is counted, and archive, snapshots and metrics agree.
async fn is_well(pipeline: &mut Pipeline, epoch: u32, lost: i64) {
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    pipeline.rest().await.unwrap();
    let epochs = [("LAKE_0", epoch), ("WAREHOUSE_0", epoch)];
    laws::hold_after(pipeline, &Broker { epochs, lost }).await;
    for stream in [Stream::lake(0), Stream::warehouse(0)] {
        laws::snapshot_equals_the_fold(pipeline, stream).await;
    }
    let [_, accesses, _, _] = pipeline.shown().await.unwrap();
    let lake = pipeline.database.number("select count(*) from lakegauge.lake_access").unwrap();
    assert_eq!(accesses, integration_tests::pipeline::to_f64(u64::try_from(lake).unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_lost_its_disk_is_adopted_with_the_exact_number_of_events() {
    for streams_are_made in [true, false] {
        let mut pipeline = counted().await;
        let before = rows(&pipeline);
        stop(&mut pipeline).await;
        lose_disk(&mut pipeline).await;
        if streams_are_made {
            publish(&mut pipeline, "second").await;
        }
        let kept = pipeline.database.sql(EVERYTHING).unwrap();
        let told = adopt(&pipeline, &[]);
        assert_eq!(told.status, Some(0), "{told:?}");
        assert!(told.stderr.contains("--confirm joins them"), "{told:?}");
        assert_eq!(pipeline.database.sql(EVERYTHING).unwrap(), kept, "nothing changes before");
        if streams_are_made {
            assert!(refused(archiver(&mut pipeline)).await.contains("lakegauge adopt"));
        }
        let joined = adopt(&pipeline, &["--confirm"]);
        assert_eq!(joined.status, Some(0), "{joined:?}");
        if streams_are_made {
            let epochs = pipeline.bus().await.unwrap().epochs();
            assert_eq!(epochs.get("LAKE_0").await.unwrap(), Some(2), "before anybody archives");
        } else {
            publish(&mut pipeline, "second").await;
        }
        is_well(&mut pipeline, 2, 0).await;
        assert_eq!(rows(&pipeline), 2 * before, "as many again");
        let again = adopt(&pipeline, &["--confirm"]);
        assert_eq!(again.status, Some(0), "beside the services: {again:?}");
        assert!(again.stderr.contains("nothing to adopt"), "{again:?}");
        let other = NatsServer::start().await.unwrap();
        let strange = adopt(&pipeline, &["--confirm", "--nats-url", &other.url()]);
        assert_eq!(strange.status, Some(1), "an archiver holds the streams: {strange:?}");
        assert!(strange.stderr.contains("stop the archiver first"), "{strange:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_lost_its_entry_is_adopted_and_goes_on_in_its_epoch() {
    for whole_bucket in [false, true] {
        let mut pipeline = counted().await;
        let before = rows(&pipeline);
        stop(&mut pipeline).await;
        let mut operator = RawNats::connect(pipeline.nats.port()).await.unwrap();
        if whole_bucket {
            operator.demand("STREAM.DELETE.KV_LAKEGAUGE", &json!({})).await.unwrap();
        } else {
            let entry = json!({ "filter": "$KV.LAKEGAUGE.pipeline" });
            operator.demand("STREAM.PURGE.KV_LAKEGAUGE", &entry).await.unwrap();
        }
        let joined = adopt(&pipeline, &["--confirm"]);
        assert_eq!(joined.status, Some(0), "{joined:?}");
        publish(&mut pipeline, "second").await;
        is_well(&mut pipeline, 1, 0).await;
        assert_eq!(rows(&pipeline), 2 * before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_adoption_left_behind_is_refused_from_then_on() {
    let mut pipeline = counted().await;
    let before = rows(&pipeline);
    stop(&mut pipeline).await;
    let first = pipeline.nats.url();
    let second = NatsServer::start().await.unwrap();
    pipeline.set("NATS_URL", &second.url());
    publish(&mut pipeline, "second").await;
    let joined = adopt(&pipeline, &["--confirm"]);
    assert_eq!(joined.status, Some(0), "{joined:?}");
    // The broker that was left behind, at the archive.
    pipeline.set("NATS_URL", &first);
    assert!(refused(archiver(&mut pipeline)).await.contains("keeps the events of pipeline"));
    // Another archive, at the broker that was adopted.
    pipeline.set("NATS_URL", &second.url());
    let other = pipeline.postgres.database().await.unwrap();
    let process = pipeline.spawn_at(&["archive"], &other.archiver_url()).unwrap();
    assert!(refused(process).await.contains("is empty"));
    // And the two that were joined go on.
    let mut process = archiver(&mut pipeline);
    until("the second broker's events in the archive", async || Ok(rows(&pipeline) == 2 * before))
        .await
        .unwrap();
    assert!(process.is_running().unwrap(), "{}", process.log());
    assert_eq!(laws::windows_wrong(&pipeline.database), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_was_lost_is_replaced_and_gets_what_the_broker_still_has() {
    // Late events below the floor of a small set: there are verdicts in the broker.
    let small = "sample_interval_s=1;windows=10s,60s,3600s;derived_ids_max=50;runs_max=1";
    let mut pipeline =
        Pipeline::start(&[("NATS_STREAM_RULES", small), ("ARCHIVER_STREAM_KEEP_S", "86400")])
            .await
            .unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    publish(&mut pipeline, "first").await;
    publish(&mut pipeline, "second").await;
    pipeline.rest().await.unwrap();
    let before = rows(&pipeline);
    stop(&mut pipeline).await;
    let empty = pipeline.postgres.database().await.unwrap();
    pipeline.database = empty;
    assert!(refused(archiver(&mut pipeline)).await.contains("is empty"));
    let joined = adopt(&pipeline, &["--confirm"]);
    assert_eq!(joined.status, Some(0), "{joined:?}");
    pipeline.run(Part::Archiver).unwrap();
    until("every event again", async || Ok(rows(&pipeline) == before)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_other_rules_can_not_be_adopted() {
    let mut pipeline = counted().await;
    stop(&mut pipeline).await;
    lose_disk(&mut pipeline).await;
    pipeline.set("NATS_STREAM_RULES", "sample_interval_s=1;windows=10s,60s,3600s;runs_max=9");
    publish(&mut pipeline, "second").await;
    let kept = pipeline.database.sql(EVERYTHING).unwrap();
    for flags in [&[][..], &["--confirm"]] {
        let said = adopt(&pipeline, flags);
        assert_eq!(said.status, Some(REFUSED), "{said:?}");
        assert!(said.stderr.contains("runs_max is 9, the pipeline's is 256"), "{said:?}");
    }
    assert_eq!(pipeline.database.sql(EVERYTHING).unwrap(), kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_that_read_both_refuse_two_that_differ() {
    let mut pipeline = counted().await;
    let name = name_in(&pipeline.bus().await.unwrap()).await;
    let url = pipeline.database.archiver_url();
    let audit = pipeline.tool(["audit"], &url).unwrap();
    assert_eq!(audit.status, Some(0), "{audit:?}");
    assert!(audit.stdout.contains(&format!("pipeline {name}, archive ")), "{audit:?}");
    let doctor = pipeline.tool(["doctor"], &url).unwrap();
    assert!(doctor.stdout.contains(&format!("one: pipeline {name}")), "{doctor:?}");

    let second = NatsServer::start().await.unwrap();
    pipeline.set("NATS_URL", &second.url());
    publish(&mut pipeline, "second").await;
    let tools: [&[&str]; 3] =
        [&["audit"], &["replay", "--verify"], &["dead-letters", "retry", "--all"]];
    for tool in tools {
        let ended = pipeline.tool(tool.iter().copied(), &url).unwrap();
        assert_eq!(ended.status, Some(REFUSED), "{tool:?}: {ended:?}");
        assert!(ended.stderr.contains(&name), "{tool:?}: {ended:?}");
    }
    let doctor = pipeline.tool(["doctor"], &url).unwrap();
    assert_eq!(doctor.status, Some(1), "{doctor:?}");
    assert!(doctor.stdout.contains("WRONG broker and archive are not one"), "{doctor:?}");
    let alone = pipeline.tool(["audit", "--archive-only"], &url).unwrap();
    assert_eq!(alone.status, Some(0), "{alone:?}");
}

#[test]
fn up_with_a_lost_broker_ends_with_what_to_do_and_goes_on_with_adopt() {
    let scratch = scratch().unwrap();
    let data = scratch.path().join("data");
    let up = |more: &[&str]| {
        let mut command = Command::new(lakegauge().unwrap());
        command.arg("up").arg("--data-dir").arg(&data);
        command.args(["--for=2s", "--rate=200", "--no-prometheus", "--no-grafana"]);
        command.args(FREE_PORTS).args(more);
        finish(command, b"").unwrap()
    };
    let first = up(&[]);
    assert_eq!(first.status, Some(0), "{first:?}");
    std::fs::remove_dir_all(data.join("nats/jetstream")).unwrap();
    let refused = up(&[]);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert_eq!(refused.status, Some(1), "{said}");
    assert!(said.contains("status 78") && said.contains("lakegauge adopt"), "{said}");
    let adopted = up(&["--adopt"]);
    assert_eq!(adopted.status, Some(0), "{adopted:?}");
    assert!(adopted.stdout.contains("joined: pipeline"), "{adopted:?}");
    let again = up(&["--adopt"]);
    assert_eq!(again.status, Some(0), "{again:?}");
    assert!(again.stdout.contains("nothing to adopt"), "{again:?}");
}
