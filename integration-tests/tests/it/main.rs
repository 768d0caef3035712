//! All integration tests: one binary, many modules.

mod architecture;
mod archiver_service;
mod audit;
mod bus_logins;
mod bus_publisher;
mod bus_reader;
mod bus_snapshots;
mod bus_topology;
mod crash;
mod dead_letters;
mod foreign;
mod laws;
mod matrix;
mod operation;
mod outage;
mod real_input;
mod replay;
mod retention;
mod simulators;
mod store_append;
mod store_crash;
mod store_events;
mod store_migrations;
mod store_read;
mod store_trouble;
mod verify;
