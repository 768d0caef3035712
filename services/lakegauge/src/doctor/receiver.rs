//! What the doctor checks of the receiver.

use std::time::Duration;

use super::check::{Check, bad};

/// How long a receiver may take to accept a connection.
const RECEIVER_WAIT: Duration = Duration::from_secs(2);

/// Checks whether the receiver of `lakegauge collect http` can work with its settings, and whether
/// it runs.
pub(super) async fn of_receiver(config: &collector::http::Config) -> Vec<Check> {
    let mut findings = Vec::new();
    for wrong in [config.check(), config.check_token()] {
        if let Err(error) = wrong {
            findings.push(bad(
                format!("the receiver: {error:#}"),
                "`lakegauge collect http --help` shows what each setting means",
            ));
        }
    }
    match config.tls() {
        Ok(None) => {}
        Ok(Some(_)) => findings.push(Check::Good("the receiver has a certificate".to_owned())),
        Err(error) => findings.push(bad(
            format!("the receiver: {error:#}"),
            "give it both files in PEM, readable by the user that it runs as",
        )),
    }
    let address = config.http_addr();
    let connecting = tokio::net::TcpStream::connect(address);
    findings.push(match tokio::time::timeout(RECEIVER_WAIT, connecting).await {
        Ok(Ok(_)) => Check::Good(format!("a receiver listens at {address}")),
        Ok(Err(_)) | Err(_) => Check::Note(format!(
            "no receiver listens at {address} (COLLECT_HTTP_ADDR): `lakegauge collect http` does \
             not run on this machine"
        )),
    });
    findings
}
