//! What services show over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::http;
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
    http::get(SocketAddr::from(([127, 0, 0, 1], port)), path, ANSWER_MAX)
}

/// One series of a port's `/metrics`, by name and labels as they stand on the page; none: nobody
/// answers, or it is not there.
pub fn metric(port: u16, series: &str) -> Option<f64> {
    let (status, page) = get(port, "/metrics").ok()?;
    (status == 200).then(|| http::value(&page, series))?
}
