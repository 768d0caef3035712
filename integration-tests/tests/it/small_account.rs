//! Accounts and servers with little room: what is advised works to the letter.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use bus::{BusError, Topology, TopologyOverrides};
use domain::Rules;
use integration_tests::executable::{Ended, finish, lakegauge};
use integration_tests::nats::{NatsServer, Profile};
use std::process::Command;

/// A server whose users have an account with so much room.
async fn account(max_file: &str) -> NatsServer {
    let with = |config: String| {
        format!(
            "{config}\naccounts {{ SMALL {{ jetstream {{ max_file: {max_file}, max_mem: 16MB }}\n\
             users: [ {{ user: small, password: small }} ] }} }}\nno_auth_user: small\n"
        )
    };
    NatsServer::start_with(Profile::Development, with).await.unwrap()
}

fn streams(server: &NatsServer, settings: &[(String, String)]) -> Ended {
    let mut command = Command::new(lakegauge().unwrap());
    let settings = settings.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    command.arg("streams").env_clear().env("NATS_URL", server.url()).envs(settings);
    finish(command, b"").unwrap()
}

fn set(key: &str, value: impl ToString) -> (String, String) {
    (key.to_owned(), value.to_string())
}

/// What the advice says behind these words: a number.
fn advised(said: &str, words: &str) -> u64 {
    let behind = said.split_once(words).unwrap_or_else(|| panic!("no {words:?} in {said}")).1;
    behind.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

const EVENTS: &str = "NATS_EVENT_STREAM_MAX_BYTES";

#[tokio::test]
async fn in_a_small_account_the_streams_become_as_large_as_fits_and_all_of_them_stand() {
    let server = account("512MB").await;
    let ended = streams(&server, &[]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let bus = server.bus("test").await.unwrap();
    let lake = bus.stream("LAKE_0").await.unwrap().max_bytes;
    assert_eq!(lake, bus.stream("WAREHOUSE_0").await.unwrap().max_bytes);
    assert!((180 << 20..256 << 20).contains(&lake), "{lake}");
    // Again, and by a service: they stay.
    let again = streams(&server, &[]);
    assert_eq!(again.status, Some(0), "{}", again.stderr);
    let topology = Topology::embedded("", &TopologyOverrides::default(), &Rules::default());
    let applied = bus.apply_topology(&topology).await.unwrap();
    assert!(applied.iter().all(|stream| stream.changed.is_empty()), "{applied:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_start_at_once_in_a_small_account_agree_on_the_streams() {
    let server = account("512MB").await;
    let mut services = tokio::task::JoinSet::new();
    for number in 0..8 {
        let bus = server.bus(&format!("service {number}")).await.unwrap();
        let topology = Topology::embedded("", &TopologyOverrides::default(), &Rules::default());
        services.spawn(async move { bus.apply_topology(&topology).await.map(|_| ()) });
    }
    for outcome in services.join_all().await {
        assert_eq!(outcome, Ok(()));
    }
}

#[tokio::test]
async fn streams_that_were_asked_to_be_too_large_name_the_size_that_fits_and_it_does() {
    let server = account("512MB").await;
    let too_large = streams(&server, &[set(EVENTS, 400 << 20)]);
    assert_eq!(too_large.status, Some(1), "{}", too_large.stderr);
    assert!(too_large.stderr.contains("LAKE_0"), "{}", too_large.stderr);
    let bus = server.bus("test").await.unwrap();
    let made = bus.stream("KV_LAKEGAUGE").await;
    assert!(matches!(made, Err(BusError::NoStream { .. })), "made before it was refused: {made:?}");
    let fits = advised(&too_large.stderr, "set NATS_EVENT_STREAM_MAX_BYTES to ");
    let more = streams(&server, &[set(EVENTS, fits + (1 << 20))]);
    assert_eq!(more.status, Some(1), "it was not the largest: {}", more.stderr);
    let ended = streams(&server, &[set(EVENTS, fits)]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let lake = bus.stream("LAKE_0").await.unwrap().max_bytes;
    assert_eq!(u64::try_from(lake).unwrap(), fits);
}

#[tokio::test]
async fn an_account_that_is_raised_as_advised_has_room() {
    let server = account("64MB").await;
    let refused = streams(&server, &[]);
    assert_eq!(refused.status, Some(1), "{}", refused.stderr);
    let enough = advised(&refused.stderr, "raise the account's limit (max_file) to ");
    let larger = account(&enough.to_string()).await;
    let ended = streams(&larger, &[]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
}

#[tokio::test]
async fn a_bucket_that_alone_is_too_large_is_named_with_its_setting() {
    let server = account("512MB").await;
    for key in ["NATS_SNAPSHOT_BUCKET_MAX_BYTES", "NATS_SAMPLES_MAX_BYTES"] {
        let refused = streams(&server, &[set(key, 900 << 20)]);
        assert_eq!(refused.status, Some(1), "{}", refused.stderr);
        assert!(refused.stderr.contains(&format!("unset {key}")), "{key}: {}", refused.stderr);
    }
    let ended = streams(&server, &[set("NATS_SNAPSHOT_BUCKET_MAX_BYTES", 100 << 20)]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
}

/// The server's own limit is not told beforehand: the buckets stand when the first stream is refused.
#[tokio::test]
async fn on_a_small_server_smaller_event_streams_make_room_also_after_a_first_attempt() {
    let small = |config: String| config.replace("max_file_store: 16GB", "max_file_store: 1200MB");
    let server = NatsServer::start_with(Profile::Development, small).await.unwrap();
    let refused = streams(&server, &[]);
    assert_eq!(refused.status, Some(1), "{}", refused.stderr);
    for words in ["LAKE_0", "max_file_store", EVENTS] {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    let ended = streams(&server, &[set(EVENTS, 400 << 20)]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
}

#[tokio::test]
async fn a_replay_without_room_names_its_own_setting() {
    let server = account("512MB").await;
    let bus = server.bus("test").await.unwrap();
    let topology = Topology::embedded("", &TopologyOverrides::default(), &Rules::default());
    bus.apply_topology(&topology).await.unwrap();
    let run = bus::ReplayRun::new("r").unwrap();
    let streams = [domain::Stream::lake(0)];
    let about = std::collections::BTreeMap::new();
    let error = bus.declare_replay(&run, &streams, 1 << 30, &about).await.unwrap_err();
    let said = error.to_string();
    for words in ["REPLAY_r_LAKE_0", "REPLAY_STREAM_MAX_BYTES", "replay --remove"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}
