//! Requests one page over plain HTTP: from an admin port, the metrics, or a server on this machine.

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

/// Longest wait for a complete response; servers are on this machine or near it.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// Largest response that is read, in bytes. A page of metrics is far smaller, so a larger response
/// comes from an unknown server.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The address of a server: host and port. The host may be a name, as between containers. It is
/// looked up for each request, since the server may be started again elsewhere.
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
        // The leak is small: a process gets one or two addresses.
        Ok(Self(String::leak(text.to_owned())))
    }
}

impl Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The status and body of a page at a [`HostPort`] or a numeric address.
///
/// # Errors
///
/// No server answers, or not in time, with more than 16 MiB, or not in HTTP.
pub async fn get(address: impl Display, path: &str) -> anyhow::Result<(u16, String)> {
    let address = address.to_string();
    tokio::time::timeout(ANSWER_WAIT, fetch(&address, path))
        .await
        .with_context(|| format!("{address}{path} did not answer in {} s", ANSWER_WAIT.as_secs()))?
}

/// Requests a page that must have status 200.
///
/// # Errors
///
/// The status is another one (the error contains the first line of the page), or no server answers.
pub async fn expect_ok(address: SocketAddr, path: &str) -> anyhow::Result<()> {
    let (status, body) = get(address, path).await?;
    let said = body.lines().next().unwrap_or_default();
    anyhow::ensure!(status == 200, "{address}{path} answers {status}: {said}");
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
