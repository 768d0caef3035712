//! Where the archive is, how it is reached, and whether it takes our login.

pub(crate) mod connection;
pub(crate) mod limits;
pub(crate) mod login;
pub mod service;
