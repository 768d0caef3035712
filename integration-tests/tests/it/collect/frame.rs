//! What surrounds the receiver: TLS, `doctor`, the lines for other systems.

use std::fs;
use std::path::Path;
use std::process::Command;

use integration_tests::executable::{Ended, finish, lakegauge};
use integration_tests::http;
use integration_tests::ports::free_port;

use super::{Collector, TOKEN, pipeline};

/// Runs our executable with settings in its environment.
fn run(arguments: &[&str], settings: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(lakegauge().unwrap());
    command.args(arguments).env_clear().envs(settings.iter().copied());
    finish(command, b"").unwrap()
}

fn openssl(folder: &Path, arguments: &str, input: &[u8]) -> Ended {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' ')).current_dir(folder);
    finish(command, input).unwrap()
}

/// A certificate for this machine by itself, in `NAME.pem` and `NAME.key`.
fn certificate(folder: &Path, name: &str) {
    let names = "-addext subjectAltName=IP:127.0.0.1";
    let files = format!("-keyout {name}.key -out {name}.pem -subj /CN={name}");
    let arguments = format!("req -x509 -newkey rsa:2048 -nodes -days 2 {names} {files}");
    let made = openssl(folder, &arguments, b"");
    assert_eq!(made.status, Some(0), "{}", made.stderr);
}

fn copy(folder: &Path, from: &str, to: &str) {
    // As a renewal does it: the whole file at once.
    fs::copy(folder.join(from), folder.join("new")).unwrap();
    fs::rename(folder.join("new"), folder.join(to)).unwrap();
}

/// What the port answers to one who trusts the certificate of a name only.
fn post_trusting(folder: &Path, name: &str, port: u16) -> String {
    let body = br#"{"Event":"s3:TestEvent"}"#;
    let request = format!(
        "POST /s3-events HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let arguments = format!(
        "s_client -quiet -verify_return_error -CAfile {name}.pem -connect 127.0.0.1:{port}"
    );
    openssl(folder, &arguments, &[request.as_bytes(), body].concat()).stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_speaks_tls_and_new_connections_take_a_renewed_certificate() {
    let mut pipeline = pipeline().await;
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    certificate(at, "old");
    certificate(at, "new");
    copy(at, "old.pem", "server.pem");
    copy(at, "old.key", "server.key");
    let [pem, key] = ["server.pem", "server.key"].map(|name| at.join(name).display().to_string());
    let words = ["--tls-cert-file", &pem, "--tls-key-file", &key];
    let collector = Collector::start_with(&mut pipeline, &words).await;
    let port = collector.port;

    assert!(post_trusting(at, "old", port).starts_with("HTTP/1.0 200"));
    assert_eq!(post_trusting(at, "new", port), "", "it shows the old one");
    assert!(http::post(port, "/s3-events", &[], b"{}").is_err(), "it speaks nothing but TLS");

    // Half of a renewal: the two files don't belong together, and the old ones are still used.
    copy(at, "new.pem", "server.pem");
    assert!(post_trusting(at, "old", port).starts_with("HTTP/1.0 200"));
    copy(at, "new.key", "server.key");
    assert!(post_trusting(at, "new", port).starts_with("HTTP/1.0 200"));
    assert_eq!(post_trusting(at, "old", port), "", "it shows the new one");

    let address = format!("127.0.0.1:{port}");
    let doctor = |key: &str| {
        let settings = [
            ("COLLECT_HTTP_ADDR", address.as_str()),
            ("COLLECT_TOKEN", TOKEN),
            ("COLLECT_TLS_CERT_FILE", &pem),
            ("COLLECT_TLS_KEY_FILE", key),
        ];
        run(&["doctor"], &settings).stdout
    };
    let good = doctor(&key);
    assert!(good.contains("ok    the receiver has a certificate"), "{good}");
    assert!(good.contains(&format!("ok    a receiver listens at {address}")), "{good}");
    let wrong = doctor(&at.join("old.key").display().to_string());
    assert!(wrong.contains("WRONG the receiver: COLLECT_TLS_CERT_FILE"), "{wrong}");
    assert!(wrong.contains("don't belong together"), "{wrong}");
}

#[test]
fn a_certificate_without_its_key_and_an_open_port_without_a_token_are_refused_at_start() {
    let ended = |settings: &[(&str, &str)]| run(&["collect", "http"], settings);
    let admin = format!("127.0.0.1:{}", free_port().unwrap());
    let admin = ("ADMIN_ADDR", admin.as_str());
    let half = ended(&[admin, ("COLLECT_TLS_CERT_FILE", "/nowhere.pem")]);
    assert_ne!(half.status, Some(0));
    assert!(half.stderr.contains("must be set together"), "{}", half.stderr);
    let open = ended(&[admin, ("COLLECT_HTTP_ADDR", "0.0.0.0:0")]);
    assert!(open.stderr.contains("set COLLECT_TOKEN"), "{}", open.stderr);
}

#[test]
fn the_help_has_the_lines_for_the_other_systems() {
    let help = run(&["collect", "http", "--help"], &[]).stdout;
    for line in [
        "endpoint=http://HOST:8020/s3-events",
        "endpoint=http://HOST:8020/s3-audit",
        "  http-event-listener.connect-ingest-uri=http://HOST:8020/trino",
    ] {
        assert!(help.contains(line), "{help}");
    }
}
