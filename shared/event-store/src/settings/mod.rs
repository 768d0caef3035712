//! Settings of the archive, connections, and the state of logins.

pub(crate) mod connection;
pub(crate) mod limits;
pub(crate) mod login;
pub mod service;
