//! Asks for one page over plain HTTP: of an admin port, of the metrics, of a server on this machine.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest wait for a whole answer; what is asked is on this machine or near it.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// Largest answer that is read. A page of metrics is far smaller; what answers with more is no
/// server that we know.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The status and body of a page.
///
/// # Errors
///
/// Nobody answers, not in time, with more than 16 MiB, or not in HTTP.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    tokio::time::timeout(ANSWER_WAIT, fetch(address, path))
        .await
        .with_context(|| format!("{address}{path} did not answer in {} s", ANSWER_WAIT.as_secs()))?
}

/// Asks for a page that must answer with 200.
///
/// # Errors
///
/// It does not; the text is what it answers instead, or why it does not answer.
pub async fn expect_ok(address: SocketAddr, path: &str) -> anyhow::Result<()> {
    let (status, body) = get(address, path).await?;
    let said = body.lines().next().unwrap_or_default();
    anyhow::ensure!(status == 200, "{address}{path} says {status}: {said}");
    Ok(())
}

async fn fetch(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let stream = TcpStream::connect(address).await.context("nobody listens")?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.context("no HTTP")?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path)
        .header(hyper::header::HOST, address.to_string())
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .context("no request")?;
    let response = sender.send_request(request).await.context("no answer")?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), PAGE_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?
        .to_bytes();
    connection.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
