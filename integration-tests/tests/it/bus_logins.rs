//! NATS as people run it: with passwords, nkeys, credentials files and TLS.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::path::{Path, PathBuf};

use bus::{Bus, BusError, BusSettings, Recovery, Topology, TopologyOverrides};
use domain::Rules;
use integration_tests::nats::{NatsServer, Profile, repository};

/// An nkey of a user, made for these tests.
const NKEY: &str = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK";
const NKEY_SEED: &str = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y";

fn fixture(name: &str) -> PathBuf {
    repository().join("integration-tests/fixtures").join(name)
}

/// Files of this machine stand in what is added.
async fn server(more: &str) -> NatsServer {
    NatsServer::start_local_with(Profile::Development, |config| format!("{config}\n{more}\n"))
        .await
        .unwrap()
}

/// Connects and makes every stream: what a service does first, and more than a greeting.
async fn works(settings: &BusSettings) -> Result<(), BusError> {
    let bus = Bus::connect(settings).await?;
    let topology = Topology::embedded("", &TopologyOverrides::default(), &Rules::default());
    bus.apply_topology(&topology).await.map(drop)
}

/// The error of a login that the server refuses: final, and without the secret.
async fn refused(settings: &BusSettings, secret: &str) {
    let error = works(settings).await.unwrap_err();
    assert!(matches!(error, BusError::Refused { .. }), "{error}");
    assert_eq!(error.recovery(), Recovery::Stop, "{error}");
    assert!(!error.to_string().contains(secret), "{error}");
}

#[tokio::test]
async fn a_user_logs_in_with_a_password_by_setting_or_in_the_address() {
    let server = server("authorization { user: lake, password: \"p@ss\" }").await;
    let plain = server.settings("test");
    let with = |user: &str, password: &str| BusSettings {
        user: Some(user.to_owned()),
        password: Some(password.into()),
        ..plain.clone()
    };
    works(&with("lake", "p@ss")).await.unwrap();
    let url = format!("nats://lake:p%40ss@127.0.0.1:{}", server.port());
    works(&BusSettings { url: url.into(), ..plain.clone() }).await.unwrap();
    refused(&with("lake", "hunter2"), "hunter2").await;
    refused(&plain, "p@ss").await;
}

#[tokio::test]
async fn a_user_logs_in_with_the_seed_of_an_nkey() {
    let server = server(&format!("authorization {{ users: [ {{ nkey: {NKEY} }} ] }}")).await;
    let folder = tempfile::tempdir().unwrap();
    let seed = folder.path().join("seed");
    std::fs::write(&seed, format!("{NKEY_SEED}\n")).unwrap();
    let plain = server.settings("test");
    works(&BusSettings { nkey_seed_file: Some(seed), ..plain.clone() }).await.unwrap();
    refused(&plain, NKEY_SEED).await;
    let missing = Some(folder.path().join("no-such-file"));
    let error = works(&BusSettings { nkey_seed_file: missing, ..plain }).await.unwrap_err();
    assert!(error.to_string().contains("no-such-file"), "{error}");
}

#[tokio::test]
async fn a_user_of_an_account_logs_in_with_a_credentials_file() {
    let operator = std::fs::read_to_string(fixture("operator.conf")).unwrap();
    let server = server(&operator).await;
    let plain = server.settings("test");
    let credentials = Some(fixture("user.creds"));
    works(&BusSettings { credentials_file: credentials, ..plain.clone() }).await.unwrap();
    refused(&plain, "eyJ").await;
}

#[tokio::test]
async fn a_server_with_a_certificate_is_believed_by_its_authority_only() {
    let file = |name: &str| fixture(name).display().to_string();
    let tls = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\" }}",
        file("server.pem"),
        file("server.key")
    );
    let server = server(&tls).await;
    let of = |host: &str, ca_file: Option<&Path>| BusSettings {
        url: format!("tls://{host}:{}", server.port()).into(),
        ca_file: ca_file.map(Path::to_owned),
        ..server.settings("test")
    };
    let ca = fixture("ca.pem");
    works(&of("localhost", Some(&ca))).await.unwrap();
    works(&of("127.0.0.1", Some(&ca))).await.unwrap();
    let unknown = works(&of("localhost", None)).await.unwrap_err();
    assert!(unknown.to_string().contains("certificate"), "{unknown}");
}
