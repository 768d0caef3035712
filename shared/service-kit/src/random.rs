//! The operating system's randomness, for values that must differ in each process.

use std::io;

use rand::{TryRng as _, rngs::SysRng};

/// A value that distinguishes a process, a pipeline or an archive from every other. A clock and a
/// process number are not enough: in containers every service is process 1, and two can start in
/// the same microsecond.
///
/// # Errors
///
/// The operating system provides no randomness.
pub fn token() -> io::Result<[u8; 16]> {
    let mut token = [0; 16];
    SysRng.try_fill_bytes(&mut token).map_err(io::Error::other)?;
    Ok(token)
}
