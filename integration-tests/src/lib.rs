//! Servers and executables for the integration tests.
