//! Simulated lake and warehouse traffic.
