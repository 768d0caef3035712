//! Facts about a data lake and a data warehouse, and the pure functions over them.
//!
//! Architecture invariant: this crate performs no I/O, reads no clock, draws no randomness and does
//! not depend on an async runtime. Time arrives as an argument.
