//! The command line of Lakegauge.

fn main() {}
