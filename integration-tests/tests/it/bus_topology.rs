//! Streams are made as declared, and what the server has is compared with what was asked.

use bus::{BusError, Topology, TopologyOverrides};
use domain::Rules;
use integration_tests::nats::{NatsServer, Profile};
use integration_tests::raw_nats::RawNats;
use serde_json::{Value, json};

fn topology() -> Topology {
    Topology::embedded("", &TopologyOverrides::default(), &Rules::default())
}

async fn config(raw: &mut RawNats, stream: &str) -> Value {
    let info = raw.demand(&format!("STREAM.INFO.{stream}"), &json!({})).await;
    info.expect("the stream is there")["config"].clone()
}

#[tokio::test]
async fn applying_the_topology_twice_makes_it_once_and_changes_nothing() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = server.bus("test").await.unwrap();
    let first = bus.apply_topology(&topology()).await.unwrap();
    assert!(first.iter().all(|stream| stream.made && stream.changed.is_empty()), "{first:?}");
    let second = bus.apply_topology(&topology()).await.unwrap();
    assert_eq!(second.len(), 5);
    assert!(second.iter().all(|stream| !stream.made && stream.changed.is_empty()), "{second:?}");
    let lake = bus.stream("LAKE_0").await.unwrap();
    assert_eq!(Rules::from_metadata(&lake.metadata), Ok(Rules::default()));
    assert_eq!((lake.first_sequence, lake.last_sequence), (0, 0));
}

#[tokio::test]
async fn services_that_start_at_once_agree_on_the_streams() {
    let server = NatsServer::start_or_given().await.unwrap();
    let mut services = tokio::task::JoinSet::new();
    for number in 0..8 {
        let bus = server.bus(&format!("service {number}")).await.unwrap();
        services.spawn(async move { bus.apply_topology(&topology()).await.map(|_| ()) });
    }
    for outcome in services.join_all().await {
        assert_eq!(outcome, Ok(()));
    }
}

#[tokio::test]
async fn the_no_loss_profile_serves_the_same_streams() {
    let server = NatsServer::start_with(Profile::NoLoss, |config| config).await.unwrap();
    let bus = server.bus("test").await.unwrap();
    assert_eq!(bus.apply_topology(&topology()).await.unwrap().len(), 5);
}

#[tokio::test]
async fn rules_of_an_existing_stream_are_left_alone() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = server.bus("test").await.unwrap();
    let old = Rules { derived_ids_max: 77, ..Rules::default() };
    let first = Topology::embedded("", &TopologyOverrides::default(), &old);
    bus.apply_topology(&first).await.unwrap();
    let larger =
        TopologyOverrides { event_stream_max_bytes: Some(1 << 20), ..TopologyOverrides::default() };
    let applied =
        bus.apply_topology(&Topology::embedded("", &larger, &Rules::default())).await.unwrap();
    let changed: Vec<_> = applied.iter().map(|stream| stream.changed.clone()).collect();
    let size = vec!["max_bytes".to_owned()];
    // The bucket of snapshots and the samples follow as long as nothing is in them.
    assert_eq!(changed, [vec![], size.clone(), size.clone(), size.clone(), size]);
    let lake = bus.stream("LAKE_0").await.unwrap();
    assert_eq!(lake.max_bytes, 1 << 20);
    assert_eq!(Rules::from_metadata(&lake.metadata), Ok(old));
}

#[tokio::test]
async fn what_an_operator_changed_is_changed_back_unless_it_is_size_or_copies() {
    let server = NatsServer::start_or_given().await.unwrap();
    let bus = server.bus("test").await.unwrap();
    bus.apply_topology(&topology()).await.unwrap();
    let mut raw = RawNats::connect(server.port()).await.unwrap();
    let mut edited = config(&mut raw, "LAKE_0").await;
    edited["max_bytes"] = json!(5 << 20);
    edited["discard"] = json!("old");
    raw.demand("STREAM.UPDATE.LAKE_0", &edited).await.unwrap();
    let applied = bus.apply_topology(&topology()).await.unwrap();
    assert_eq!(applied[2].changed, ["discard"]);
    let now = config(&mut raw, "LAKE_0").await;
    assert_eq!((&now["discard"], &now["max_bytes"]), (&json!("new"), &json!(5 << 20)));
}

#[tokio::test]
async fn a_stream_with_an_age_limit_or_without_purge_is_refused_by_name() {
    for (option, value, word) in
        [("max_age", json!(3_600_000_000_000_u64), "age"), ("deny_purge", json!(true), "purg")]
    {
        let server = NatsServer::start_or_given().await.unwrap();
        let bus = server.bus("test").await.unwrap();
        bus.apply_topology(&topology()).await.unwrap();
        let mut raw = RawNats::connect(server.port()).await.unwrap();
        let mut edited = config(&mut raw, "WAREHOUSE_0").await;
        edited[option] = value;
        raw.demand("STREAM.UPDATE.WAREHOUSE_0", &edited).await.unwrap();
        let error = bus.apply_topology(&topology()).await.unwrap_err();
        assert!(matches!(error, BusError::UnfitStream { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("WAREHOUSE_0") && text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn buckets_get_their_room_before_event_streams_and_the_lack_of_it_is_named() {
    let small = |config: String| config.replace("max_file_store: 16GB", "max_file_store: 2GB");
    let server = NatsServer::start_with(Profile::Development, small).await.unwrap();
    let bus = server.bus("test").await.unwrap();
    let error = bus.apply_topology(&topology()).await.unwrap_err();
    assert!(matches!(error, BusError::NoRoom { .. }), "{error}");
    assert!(error.to_string().contains("LAKE_0"), "{error}");
    let mut raw = RawNats::connect(server.port()).await.unwrap();
    for bucket in ["KV_LAKEGAUGE", "OBJ_LAKEGAUGE_SNAPSHOTS"] {
        assert_eq!(config(&mut raw, bucket).await["name"], json!(bucket));
    }
}

#[tokio::test]
async fn pipelines_with_different_prefixes_share_a_server() {
    let server = NatsServer::start_or_given().await.unwrap();
    let mut settings = server.settings("test");
    let plain = server.bus("test").await.unwrap();
    let small =
        TopologyOverrides { event_stream_max_bytes: Some(1 << 20), ..TopologyOverrides::default() };
    plain.apply_topology(&Topology::embedded("", &small, &Rules::default())).await.unwrap();
    settings.subject_prefix = "acme.eu".to_owned();
    let acme = bus::Bus::connect(&settings).await.unwrap();
    let topology = Topology::embedded("acme.eu", &small, &Rules::default());
    acme.apply_topology(&topology).await.unwrap();
    let mut raw = RawNats::connect(server.port()).await.unwrap();
    let stored = raw.publish("acme.eu.lake.access.0.x", "{}").await.unwrap();
    assert_eq!(stored["stream"], json!("acme_eu_LAKE_0"));
    assert_eq!(acme.stream("LAKE_0").await.unwrap().messages, 1);
    assert_eq!(plain.stream("LAKE_0").await.unwrap().messages, 0);
    assert_eq!(acme.epochs().raise("LAKE_0", 4).await, Ok(5));
    assert_eq!(plain.epochs().get("LAKE_0").await, Ok(None));
}

#[tokio::test]
async fn a_limit_that_the_server_did_not_take_is_an_error_by_name() {
    for option in ["max_bytes", "discard", "duplicate_window", "deny_delete"] {
        let without = |config: String| config.split("jetstream {").next().unwrap().to_owned();
        let server = NatsServer::start_with(Profile::Development, without).await.unwrap();
        let mut forgetful = RawNats::connect(server.port()).await.unwrap();
        forgetful.pose_as_jetstream().await.unwrap();
        let bus = server.bus("test").await.unwrap();
        let topology = topology();
        let error = tokio::select! {
            ended = forgetful.ignore_option(option) => panic!("{ended:?}"),
            applied = bus.apply_topology(&topology) => applied.unwrap_err(),
        };
        assert!(matches!(error, BusError::IgnoredOption { .. }), "{option}: {error}");
        let said = error.to_string();
        assert!(said.contains(option) && said.contains("upgrade nats-server"), "{said}");
    }
}

#[tokio::test]
async fn a_server_without_jetstream_or_without_the_streams_is_told_apart() {
    let without = |config: String| config.split("jetstream {").next().unwrap().to_owned();
    let server = NatsServer::start_with(Profile::Development, without).await.unwrap();
    let bus = server.bus("test").await.unwrap();
    let error = bus.apply_topology(&topology()).await.unwrap_err();
    assert!(matches!(error, BusError::NoJetStream { .. }), "{error}");
    let server = NatsServer::start_or_given().await.unwrap();
    let error = server.bus("test").await.unwrap().stream("LAKE_0").await.unwrap_err();
    assert!(matches!(error, BusError::NoStream { .. }), "{error}");
    assert!(error.to_string().contains("LAKE_0"), "{error}");
}

#[tokio::test]
async fn a_login_that_is_refused_shows_no_secret() {
    let guarded = |config: String| {
        format!("{config}\nauthorization {{ user: me, password: \"right@secret\" }}\n")
    };
    let server = NatsServer::start_with(Profile::Development, guarded).await.unwrap();
    let mut settings = server.settings("test");
    settings.user = Some("me".to_owned());
    settings.password = Some("wrong-secret".into());
    let error = bus::Bus::connect(&settings).await.unwrap_err();
    assert!(matches!(error, BusError::Refused { .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    settings.user = None;
    settings.password = None;
    settings.url = format!("nats://me:wrong-secret@127.0.0.1:{}", server.port()).into();
    let error = bus::Bus::connect(&settings).await.unwrap_err();
    assert!(!format!("{error} {error:?} {settings:?}").contains("secret"), "{error:?}");
    settings.url = format!("nats://me:right%40secret@127.0.0.1:{}", server.port()).into();
    assert!(bus::Bus::connect(&settings).await.is_ok());
}
