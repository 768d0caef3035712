//! What services show over HTTP.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::pipeline::{FOUR, Four};

/// For one answer over HTTP.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The four metrics at a port; none while they are refused (503) or nobody listens.
///
/// # Errors
///
/// Anything in between.
pub fn four(port: u16) -> Result<Option<Four>> {
    let Ok((status, page)) = get(port, "/metrics") else { return Ok(None) };
    if status == 503 {
        return Ok(None);
    }
    ensure!(status == 200, "status {status}");
    let mut four = Four::default();
    for (value, name) in four.iter_mut().zip(FOUR) {
        let mut series = page.lines().filter(|line| line.starts_with(name));
        let line = series.next().with_context(|| format!("no {name}:\n{page}"))?;
        ensure!(series.next().is_none(), "{name} more than once");
        *value = line.strip_prefix(name).context("its name")?.trim().parse()?;
    }
    Ok(Some(four))
}

/// Status and body of a page.
///
/// # Errors
///
/// Nobody answers, or not a whole page.
pub fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
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

/// One series of a port's `/metrics`, by name and labels as they stand on the page; none: nobody
/// answers, or it is not there.
pub fn metric(port: u16, series: &str) -> Option<f64> {
    let (status, page) = get(port, "/metrics").ok()?;
    let mut values = page.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    (status == 200).then(|| values.next()?.parse().ok())?
}
