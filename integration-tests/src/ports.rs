//! Ports for the servers and services that the tests start.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

/// Ports that the tests use: below those from which Linux takes one for each outgoing connection
/// (`ip_local_port_range`, from 32,768), so that no connection takes a port between its choice and
/// its use, and above those that are known for something.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// How many were given by this process.
static GIVEN: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on, and that this process was not given before.
///
/// # Errors
///
/// There is none left.
pub fn free_port() -> Result<u16> {
    let width = RANGE.end - RANGE.start;
    // Two processes of tests side by side begin at different places.
    let first = u16::try_from(std::process::id() % u32::from(width))?;
    loop {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        if given >= width {
            bail!("all ports from {} to {} were given", RANGE.start, RANGE.end);
        }
        let port = RANGE.start + (first + given) % width;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
}
