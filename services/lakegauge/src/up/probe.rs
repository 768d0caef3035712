//! Asking the parts: HTTP on loopback, and what stands in a page of metrics.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest wait for an answer; everything here is on this machine.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// A page of metrics is far smaller; whatever answers with more is not one of ours.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The status and body of a page.
///
/// # Errors
///
/// Nobody answers, not in time, or not in HTTP.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    tokio::time::timeout(ANSWER_WAIT, fetch(address, path))
        .await
        .with_context(|| format!("{address}{path} did not answer in {} s", ANSWER_WAIT.as_secs()))?
}

/// Whether a page answers with 200.
///
/// # Errors
///
/// It does not; the text is what it answers instead, or why it does not answer.
pub(crate) async fn well(address: SocketAddr, path: &str) -> anyhow::Result<()> {
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

/// A page of metrics in Prometheus' text format.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Page(Vec<Sample>);

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

impl Page {
    /// Reads a page; lines that are no samples are passed over.
    pub(crate) fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.trim().rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Some(Sample {
                name: name.to_owned(),
                labels: labels.trim_end_matches('}').to_owned(),
                value: value.parse().ok()?,
            })
        });
        Self(samples.collect())
    }

    /// The value of the series without labels.
    pub(crate) fn bare(&self, name: &str) -> Option<f64> {
        let mut found = self.0.iter().filter(|sample| sample.name == name);
        found.find(|sample| sample.labels.is_empty()).map(|sample| sample.value)
    }

    /// The sum over every series of the name whose labels contain the text; nothing without one.
    pub(crate) fn sum(&self, name: &str, label: &str) -> Option<f64> {
        let values: Vec<f64> = self
            .0
            .iter()
            .filter(|sample| sample.name == name && sample.labels.contains(label))
            .map(|sample| sample.value)
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_by_name_and_label() {
        let page = Page::parse(
            "# HELP a Things.\n# TYPE a counter\na 3\nb{stream=\"LAKE_0\"} 1.5\n\
             b{stream=\"WAREHOUSE_0\"} 2\nnonsense\n",
        );
        assert_eq!(page.bare("a"), Some(3.0));
        assert_eq!(page.bare("b"), None);
        assert_eq!(page.sum("b", ""), Some(3.5));
        assert_eq!(page.sum("b", "WAREHOUSE"), Some(2.0));
        assert_eq!(page.sum("c", ""), None);
    }
}
