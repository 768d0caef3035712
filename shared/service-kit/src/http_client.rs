//! Asks for one page over plain HTTP: of an admin port, of the metrics, of a server on this machine.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::str::FromStr;
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

/// Where a page is asked for: host and port. The host may be a name, as containers call each other;
/// it is looked up each time, since what is behind it may be started again elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort(&'static str);

impl FromStr for HostPort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_numbers = text.parse::<SocketAddr>().is_ok();
        let is_name = text.rsplit_once(':').is_some_and(|(host, port)| {
            let legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            !host.is_empty() && host.chars().all(legal) && port.parse::<u16>().is_ok()
        });
        if !is_numbers && !is_name {
            return Err("must be HOST:PORT, as 127.0.0.1:8000 or aggregator:8000");
        }
        // For the life of the process, which is told one or two of them.
        Ok(Self(String::leak(text.to_owned())))
    }
}

impl Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The status and body of a page at a [`HostPort`] or an address of numbers.
///
/// # Errors
///
/// Nobody answers, not in time, with more than 16 MiB, or not in HTTP.
pub async fn get(address: impl Display, path: &str) -> anyhow::Result<(u16, String)> {
    let address = address.to_string();
    tokio::time::timeout(ANSWER_WAIT, fetch(&address, path))
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

async fn fetch(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let stream = TcpStream::connect(address).await.context("nobody listens")?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.context("no HTTP")?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path)
        .header(hyper::header::HOST, address)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_numbers_or_a_name_and_has_a_port() {
        for good in ["127.0.0.1:8000", "[::1]:8000", "aggregator:8000", "a-b.example:80"] {
            assert_eq!(good.parse::<HostPort>().unwrap().to_string(), good);
        }
        for wrong in ["8000", ":8000", "aggregator", "http://a:80", "a:b", "a:70000", "a b:1"] {
            assert!(wrong.parse::<HostPort>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        let asked = tokio::spawn(get(address.parse::<HostPort>().unwrap(), "/"));
        let (mut accepted, _) = listener.accept().await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        tokio::io::AsyncWriteExt::write_all(&mut accepted, answer).await.unwrap();
        assert_eq!(asked.await.unwrap().unwrap(), (200, "ok".to_owned()));
    }
}
