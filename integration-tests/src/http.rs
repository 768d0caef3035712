//! Asks a port of this machine over HTTP, from a thread that may wait.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// Longest wait for a connection, and for each part of an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Status and body of a page at a port of this machine.
///
/// # Errors
///
/// Nobody answers in time, or not with a whole page.
pub fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let answer = ask(port, "GET", path, &[], b"")?;
    Ok((answer.status, answer.body))
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The lines of its head.
    pub head: String,
    /// Its body.
    pub body: String,
}

/// The answer to a body that is posted with more headers to a port of this machine.
///
/// # Errors
///
/// As [`get`].
pub fn post(port: u16, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
    ask(port, "POST", path, headers, body)
}

fn ask(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WAIT)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    let mut more: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    if !body.is_empty() {
        more.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    // HTTP 1.0, so that the answer comes in one piece.
    write!(stream, "{method} {path} HTTP/1.0\r\nhost: {address}\r\n{more}\r\n")?;
    stream.write_all(body)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (head, body) = text.split_once("\r\n\r\n").context("no answer in HTTP")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    // A server that dies while it answers has not answered.
    ensure!(length.is_none_or(|length| length == body.len()), "half a page");
    let status = status.context("no status")?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// The value of a series, by name and labels as they stand on a page of metrics.
pub fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// One series of a port's `/metrics`, by name and labels as they stand on the page; none: nobody
/// answers, or it is not there.
pub fn metric(port: u16, series: &str) -> Option<f64> {
    let (status, page) = get(port, "/metrics").ok()?;
    (status == 200).then(|| value(&page, series))?
}
