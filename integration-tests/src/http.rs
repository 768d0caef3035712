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
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WAIT)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    // HTTP 1.0, so that the answer comes in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
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
    Ok((status.context("no status")?, body.to_owned()))
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
