//! The boards, one file each.

mod archive;
mod lake;
mod overview;
mod pipeline;
mod slo;
mod warehouse;

use crate::board::Board;

/// Every board, in the order in which people go from a number to its cause.
pub fn all() -> Vec<Board> {
    vec![
        overview::board(),
        lake::board(),
        warehouse::board(),
        pipeline::board(),
        archive::board(),
        slo::board(),
    ]
}
