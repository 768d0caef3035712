//! Settings that would lose events or answer wrongly are refused at start, with what to do.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use bus::{BusError, Topology, TopologyOverrides};
use domain::Rules;
use integration_tests::nats::NatsServer;
use integration_tests::process::Process;
use integration_tests::raw_nats::RawNats;
use serde_json::{Value, json};

fn topology() -> Topology {
    Topology::embedded("", &TopologyOverrides::default(), &Rules::default())
}

async fn edit(operator: &mut RawNats, stream: &str, option: &str, value: Value) {
    let info = operator.demand(&format!("STREAM.INFO.{stream}"), &json!({})).await.unwrap();
    let mut config = info["config"].clone();
    config[option] = value;
    operator.demand(&format!("STREAM.UPDATE.{stream}"), &config).await.unwrap();
}

/// What a service that must end with a failure wrote.
fn refused(word: &str, settings: &[(&str, &str)], status: i32) -> String {
    let port = [("METRICS_ADDR", "127.0.0.1:0")];
    let mut service = Process::start(&[word], &[&port, settings].concat()).unwrap();
    assert_eq!(service.wait().unwrap().code(), Some(status), "{}", service.log());
    service.log()
}

#[tokio::test]
async fn services_refuse_a_stream_that_loses_events_or_can_never_be_trimmed_and_say_what_to_do() {
    let server = NatsServer::start().await.unwrap();
    let bus = server.bus("test").await.unwrap();
    let mut operator = RawNats::connect(server.port()).await.unwrap();
    let url = server.url();
    let database = "postgres://nobody@127.0.0.1:1/none";
    let an_hour = json!(3_600_000_000_000_u64);
    for (option, value, words) in [
        ("max_age", an_hour, ["age limit", "nats stream edit"]),
        ("deny_purge", json!(true), ["denies purging", "create it again without"]),
        ("sealed", json!(true), ["sealed", "create it again"]),
    ] {
        bus.apply_topology(&topology()).await.unwrap();
        edit(&mut operator, "WAREHOUSE_0", option, value).await;
        let error = bus.apply_topology(&topology()).await.unwrap_err();
        assert!(matches!(error, BusError::UnfitStream { .. }), "{option}: {error}");
        for service in ["archive", "aggregate"] {
            let settings = [("NATS_URL", url.as_str()), ("DATABASE_URL", database)];
            let said = refused(service, &settings, 1);
            let all = ["WAREHOUSE_0", words[0], words[1]];
            assert!(all.iter().all(|word| said.contains(word)), "{option} {service}: {said}");
        }
        // Some of these can't be taken back.
        operator.demand("STREAM.DELETE.WAREHOUSE_0", &json!({})).await.unwrap();
    }
}
