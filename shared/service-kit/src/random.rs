//! The operating system's randomness, for what must be another in each process.

use std::io;

use rand::{TryRng as _, rngs::SysRng};

/// What tells a process, a pipeline or an archive from every other. A clock and a process number do
/// not: in containers every service is process 1, and two can start in the same microsecond.
///
/// # Errors
///
/// The system gives none.
pub fn token() -> io::Result<[u8; 16]> {
    let mut token = [0; 16];
    SysRng.try_fill_bytes(&mut token).map_err(io::Error::other)?;
    Ok(token)
}
