//! All integration tests: one binary, many modules.

mod bus_publisher;
mod bus_topology;
